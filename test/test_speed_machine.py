"""What a measurement says of the machine: memory of one policy, versions. No GPU is needed."""

import pytest
import torch

from faster_core.evaluation import machine
from faster_core.evaluation.speed.measure import leave_out
from faster_core.evaluation.speed.memory import MemoryGauge


class _Allocator:
    """Stands for torch.cuda's statistics, bytes."""

    def __init__(self, monkeypatch):
        self.allocated = self.peak = self.pools = self.cached = 0
        for name, function in {
            'synchronize': lambda _: None,
            'empty_cache': lambda: setattr(self, 'cached', 0),
            'memory_allocated': lambda _: self.allocated,
            'max_memory_allocated': lambda _: self.peak,
            'memory_reserved': lambda _: self.allocated + self.pools + self.cached,
            'reset_peak_memory_stats': lambda _: setattr(self, 'peak', self.allocated),
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def run(self, *, activations=0, kept=0, pool=0):
        """Allocate, give back what is not kept, and reserve a pool as a captured graph does."""
        self.peak = max(self.peak, self.allocated + kept + activations)
        self.allocated += kept
        self.cached, self.pools = self.cached + activations, self.pools + pool


def test_the_memory_of_a_policy_is_not_that_of_the_others(monkeypatch):
    gpu = _Allocator(monkeypatch)
    gpu.run(activations=7000, kept=6000, pool=900)  # the others
    eager = MemoryGauge(torch.device('cuda'))
    gpu.run(activations=40)
    assert eager.taken() == 40
    captured = MemoryGauge(torch.device('cuda'))
    gpu.run(activations=40, kept=10, pool=300)
    assert captured.taken() == 310
    assert MemoryGauge(torch.device('cuda')).taken() == 0


@pytest.mark.parametrize(
    'said',
    [
        'NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n'
        'GCC version:  gcc version 12.2.0\n',
        'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build\n',
    ],
)
def test_the_driver_is_what_its_module_says(tmp_path, monkeypatch, said):
    file = tmp_path / 'version'
    file.write_text(said)
    monkeypatch.setattr(machine, '_DRIVER', file)
    monkeypatch.setattr(torch.version, 'cuda', '12.4')
    assert machine.describe_software()['driver'] == '550.54.15'


def test_without_the_module_the_driver_is_what_its_tool_says(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, '_DRIVER', tmp_path / 'none')
    monkeypatch.setattr(torch.version, 'cuda', '12.4')
    monkeypatch.setenv('PATH', str(tmp_path))
    assert machine.describe_software()['driver'] is None
    tool = tmp_path / 'nvidia-smi'
    tool.write_text('#!/bin/sh\necho 550.54.15\n')
    tool.chmod(0o755)
    assert machine.describe_software()['driver'] == '550.54.15'


# --- the stream of a capture that failed ------------------------------------------------------


def test_what_comes_after_a_failure_runs_on_the_stream_from_before(monkeypatch):
    """torch.cuda.graph leaves its stream the current one if the capture cannot be ended."""
    streams = ['default']
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda _: streams[-1])
    monkeypatch.setattr(torch.cuda, 'set_stream', streams.append)
    skipped = {}
    with leave_out(skipped, 'cuda_graph block', torch.device('cuda')):
        streams.append("the capture's")
        raise RuntimeError('capture failed')
    assert skipped == {'cuda_graph block': 'RuntimeError: capture failed'}
    assert streams[-1] == 'default'
    with leave_out(skipped, 'eager block', torch.device('cuda')):
        streams.append('its own')
    assert streams[-1] == 'its own'
    assert list(skipped) == ['cuda_graph block']
