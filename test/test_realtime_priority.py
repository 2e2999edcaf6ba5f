"""A real-time priority is given, or refused with what to do, before anything is started."""

import os
import signal
import sys

import pytest

from faster_core.errors import ConfigError
from faster_vla_ros import realtime
from faster_vla_ros.graph import r1lite_wbc
from faster_vla_ros.graph_parts import Graph, NodeSpec
from faster_vla_ros.supervisor import Supervisor, wait_for

PATIENT = 20.0


@pytest.fixture
def chrt(tmp_path, monkeypatch):
    """Return a function that puts a script in place of chrt, and gives what it was asked."""
    monkeypatch.setenv('PATH', str(tmp_path))

    def put(text):
        (tmp_path / 'chrt').write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{text}\n')
        (tmp_path / 'chrt').chmod(0o755)
        return lambda: (tmp_path / 'asked').read_text().splitlines()

    return put


def graph_with(priority):
    return r1lite_wbc(realtime_priority=priority)


def test_the_system_is_asked_once_for_every_priority_and_never_for_none(chrt):
    asked = chrt('')
    realtime.require_priorities(graph_with(5))
    assert asked() == ['-f 5 true']
    realtime.require_priorities(graph_with(0))
    assert asked() == ['-f 5 true']


def test_a_priority_that_is_not_allowed_is_refused_with_what_to_do(chrt):
    chrt('echo "chrt: failed to set the policy: Operation not permitted" >&2; exit 1')
    with pytest.raises(ConfigError) as error:
        realtime.require_priorities(graph_with(7))
    for word in ('realtime_priority 7', 'Operation not permitted', 'rtprio 7', 'no capability'):
        assert word in str(error.value)
    assert '/etc/security/limits.d' in str(error.value)


def test_a_system_without_chrt_is_told_apart(chrt):
    with pytest.raises(ConfigError, match=r'expected the command chrt \(util-linux\), found none'):
        realtime.require_priorities(graph_with(5))
    realtime.require_priorities(graph_with(0))


def test_a_process_runs_under_sched_fifo_and_ends_as_any_other():
    code = (
        'import os, time; '
        'print(os.sched_getscheduler(0) == os.SCHED_FIFO, os.sched_getparam(0).sched_priority, '
        'flush=True); time.sleep(600)'
    )
    spec = NodeSpec(name='node', executable='node', realtime_priority=3)
    graph = Graph(name='one', nodes=(spec,), stop_order=('node',), environment={})
    try:
        realtime.require_priorities(graph)
    except ConfigError as e:
        pytest.skip(str(e))
    lines = []
    supervisor = Supervisor(
        graph,
        sink=lambda _, line: lines.append(line),
        command=lambda s, _: [*realtime.prefix(s.realtime_priority), sys.executable, '-c', code],
    )
    with supervisor:
        assert wait_for(lambda: lines, PATIENT)
        assert lines == ['True 3']
        assert os.sched_getscheduler(supervisor.pid('node')) == os.SCHED_FIFO
        (ending,) = supervisor.stop()
    assert ending.status == -signal.SIGINT
