"""Diagnostics of the policy node: inputs, inference, coverage of the plan, device."""

from __future__ import annotations

from collections.abc import Callable
import functools
import os
import pathlib
import sys
from typing import Any, TYPE_CHECKING

from faster_vla_msgs.msg import PolicyStatus
from faster_vla_ros import policy_judgements as judge
from faster_vla_ros.compat.diagnostic_updater import Updater
from faster_vla_ros.policy_judgements import Judgement

if TYPE_CHECKING:
    from faster_vla_ros.policy_node import PolicyNode

MIB = 2**20


class PolicyDiagnostics:
    """The tasks of the node's updater, as long as the node is configured."""

    def __init__(self, node: PolicyNode, updater: Updater) -> None:
        """Add the tasks."""
        self._node, self._updater = node, updater
        self._coverage: list[float] = []
        updater.setHardwareID(node.get_namespace().strip('/') or node.policy.embodiment.name)
        tasks: dict[str, Callable[[], Judgement]] = {
            f'input/{name}': functools.partial(self._input, name)
            for name in (*node.config.cameras, *node.config.sources)
        }
        tasks['inference'] = self._inference
        tasks['chunk coverage'] = self._chunk_coverage
        tasks['device'] = self._device
        self._names = list(tasks)
        for name, task in tasks.items():
            updater.add(name, functools.partial(_fill, task))

    def destroy(self) -> None:
        """Remove the tasks."""
        for name in self._names:
            self._updater.removeByName(name)

    def _input(self, name: str) -> Judgement:
        node, config = self._node, self._node.config
        rates = node.inputs.rates
        judgement = judge.judge_input(
            problem=node.inputs.stale().get(name, ''),
            seen=rates.ever_seen(name),
            age=rates.age(name),
            rate=rates.rate(name),
            expected=node.policy.embodiment.action_frequency,
            warn_ratio=config['input_rate.warn_ratio'],
        )
        judgement.values['refused'] = str(node.inputs.counts()[name])
        return judgement

    def _inference(self) -> Judgement:
        node, outcomes = self._node, self._node.outcomes
        return judge.judge_inference(
            list(outcomes.durations),
            warn=node.config['latency.warn'],
            error=node.config['latency.error'],
            fault=node.status.message if node.status.faulted else '',
            counts={
                'chunks': outcomes.num_published,
                'decode_failures': outcomes.num_failures,
                'low_confidence': outcomes.num_low_confidence,
                'observations_dropped': node.num_dropped,
            },
        )

    def _chunk_coverage(self) -> Judgement:
        node = self._node
        with node.lock:
            new = list(node.outcomes.coverage)
            node.outcomes.coverage.clear()
        if node.status.state == PolicyStatus.STATE_IDLE:
            self._coverage = []
        # Between two chunks the newest figure stays.
        self._coverage = new or self._coverage[-1:]
        return judge.judge_coverage(self._coverage, node.policy.embodiment.step_period)

    def _device(self) -> Judgement:
        if self._node.config['remote']:
            text = f'policy server {self._node.config["remote"]}'
            return Judgement(judge.OK, values={'device': text})
        try:
            memory = device_memory(self._node.policy)
        except RuntimeError as e:  # of CUDA, after a fault of the device
            return Judgement(judge.ERROR, f'the device does not answer: {_first_line(e)}')
        return judge.judge_device(**memory)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _fill(task: Callable[[], Judgement], status: Any) -> Any:
    judgement = task()
    status.summary(judgement.level, judgement.message)
    for key, value in judgement.values.items():
        status.add(key, value)
    return status


def device_memory(policy: Any) -> dict[str, Any]:
    """Return name, MiB allocated and reserved, and the share in use of a policy's device.

    On the CPU both are what the process has in memory, and the share is of the machine's.
    """
    model = getattr(policy, 'model', None)
    device = None if model is None else next(model.parameters()).device
    if device is not None and device.type == 'cuda':
        cuda = sys.modules['torch'].cuda
        free, total = cuda.mem_get_info(device)
        return {
            'name': f'{device} ({cuda.get_device_name(device)})',
            'allocated': cuda.memory_allocated(device) / MIB,
            'reserved': cuda.memory_reserved(device) / MIB,
            'used': 1.0 - free / total,
        }
    pages = int(pathlib.Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    resident = pages * os.sysconf('SC_PAGE_SIZE')
    text = pathlib.Path('/proc/meminfo').read_text(encoding='ascii')
    lines = dict(line.split(':') for line in text.splitlines())
    free, total = (int(lines[key].split()[0]) for key in ('MemAvailable', 'MemTotal'))
    return {
        'name': 'cpu',
        'allocated': resident / MIB,
        'reserved': resident / MIB,
        'used': 1.0 - free / total,
    }
