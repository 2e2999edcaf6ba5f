"""Processes of a graph: order, force, no orphans, and what is told when one of them ends."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from project_files import ROOT
import pytest

from faster_vla_ros import supervisor as module
from faster_vla_ros.graph import Graph, NodeSpec
from faster_vla_ros.supervisor import Ending, ProcessEndedError, Supervisor, wait_for

PATIENT = 20.0
# Says 'up', then waits; on SIGINT it notes its name in $NOTES and ends.
POLITE = 'trap "echo $0 >> $NOTES; exit 0" INT; echo up; while :; do sleep 0.05; done'
SLOW_TO_END = POLITE.replace('echo $0', 'echo asked; sleep 1; echo $0')
DEAF_TO_INT = 'trap "" INT; echo up; while :; do sleep 0.05; done'
DEAF = 'trap "" INT TERM; echo up; while :; do sleep 0.05; done'
FAILING = 'echo up; for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; done; exit 3'


class Stubs:
    """Shell scripts in place of nodes; `started` supervisors are ended by the fixture."""

    def __init__(self, folder):
        self.notes, self.lines, self._supervisors = folder / 'notes', [], []

    def start(self, scripts, *, stop_order=None, sink=None, safe_stop=()):
        nodes = tuple(NodeSpec(name=n, executable=n, safe_stop=n in safe_stop) for n in scripts)
        graph = Graph(
            name='stubs', nodes=nodes, stop_order=tuple(stop_order or scripts), environment={}
        )
        supervisor = Supervisor(
            graph,
            environment={'NOTES': str(self.notes)},
            sink=sink or (lambda name, line: self.lines.append((name, line))),
            command=lambda spec, overrides: ['bash', '-c', scripts[spec.name], spec.name],
        )
        self._supervisors.append(supervisor)
        supervisor.start()
        return supervisor

    def start_and_wait(self, scripts, **kwargs):
        supervisor = self.start(scripts, **kwargs)
        assert wait_for(lambda: all((n, 'up') in self.lines for n in scripts), PATIENT)
        return supervisor

    def noted(self):
        return self.notes.read_text().split() if self.notes.exists() else []

    def close(self):
        for supervisor in self._supervisors:
            supervisor.stop()


@pytest.fixture
def stubs(tmp_path):
    made = Stubs(tmp_path)
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch):
    quick = ((signal.SIGINT, 0.3), (signal.SIGTERM, 0.3), (signal.SIGKILL, PATIENT))
    monkeypatch.setattr(module, 'PATIENCE', quick)


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
        return False
    return state not in 'ZX'


# --- ending -----------------------------------------------------------------------------------


def test_processes_end_in_the_stop_order_and_not_in_the_starting_order(stubs):
    supervisor = stubs.start_and_wait(
        {'robot': POLITE, 'dispatcher': POLITE, 'policy': POLITE},
        stop_order=('policy', 'dispatcher', 'robot'),
    )
    endings = supervisor.stop()
    assert stubs.noted() == ['policy', 'dispatcher', 'robot']
    assert [(e.name, e.status) for e in endings] == [
        ('policy', 0),
        ('dispatcher', 0),
        ('robot', 0),
    ]


def test_the_next_process_is_asked_only_when_the_one_before_has_ended(stubs):
    supervisor = stubs.start_and_wait({'slow': SLOW_TO_END, 'quick': POLITE})
    supervisor.stop()
    assert stubs.noted() == ['slow', 'quick']


def test_a_process_missing_in_the_stop_order_is_ended_too(stubs):
    supervisor = stubs.start_and_wait({'a': POLITE, 'b': POLITE}, stop_order=('b',))
    assert [e.name for e in supervisor.stop()] == ['b', 'a']


def test_a_process_deaf_to_sigint_gets_sigterm_and_that_is_clean(stubs, impatient):
    (ending,) = stubs.start_and_wait({'node': DEAF_TO_INT}).stop()
    assert ending.status == -signal.SIGTERM and ending.clean


def test_a_process_deaf_to_everything_is_killed_and_that_is_not_clean(stubs, impatient):
    (ending,) = stubs.start_and_wait({'node': DEAF}).stop()
    assert not ending.clean and str(ending) == 'node was ended by SIGKILL'


def test_one_deaf_process_does_not_spare_the_others(stubs, impatient):
    endings = stubs.start_and_wait({'deaf': DEAF, 'polite': POLITE}).stop()
    assert [e.clean for e in endings] == [False, True]


def test_what_a_process_started_itself_ends_with_it(stubs):
    script = 'sleep 600 & echo $! > $NOTES; ' + POLITE.replace('>> $NOTES', '> /dev/null')
    supervisor = stubs.start_and_wait({'node': script})
    (child,) = map(int, stubs.noted())
    assert alive(child)
    supervisor.stop()
    assert wait_for(lambda: not alive(child), PATIENT)


def test_stopping_twice_does_nothing_the_second_time(stubs):
    supervisor = stubs.start_and_wait({'node': POLITE})
    assert len(supervisor.stop()) == 1
    assert supervisor.stop() == []


def test_a_second_ctrl_c_does_not_cut_the_safe_commands_short(stubs):
    supervisor = stubs.start_and_wait({'dispatcher': SLOW_TO_END, 'robot': POLITE})
    before = signal.getsignal(signal.SIGINT)

    def press_when_asked():
        if wait_for(lambda: ('dispatcher', 'asked') in stubs.lines, PATIENT):
            os.kill(os.getpid(), signal.SIGINT)

    hurry = threading.Thread(target=press_when_asked)
    hurry.start()
    endings = supervisor.stop()  # a KeyboardInterrupt would come out here
    hurry.join()
    assert [e.status for e in endings] == [0, 0]
    assert signal.getsignal(signal.SIGINT) is before


def test_processes_do_not_share_the_terminals_ctrl_c(stubs):
    supervisor = stubs.start_and_wait({'node': POLITE})
    pid = supervisor.pid('node')
    assert os.getsid(pid) == pid != os.getsid(0)


def test_processes_hear_sigint_even_if_the_supervisor_ignores_it(stubs):
    """A shell's background job ignores SIGINT and would pass that on."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        supervisor = stubs.start_and_wait({'node': POLITE})
        (ending,) = supervisor.stop()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ending.status == 0 and stubs.noted() == ['node']


def test_a_process_that_cannot_start_ends_those_already_running(tmp_path):
    nodes = tuple(NodeSpec(name=n, executable=n) for n in ('good', 'bad'))
    graph = Graph(name='stubs', nodes=nodes, stop_order=(), environment={})
    commands = {'good': ['sleep', '600'], 'bad': [str(tmp_path / 'nowhere')]}
    supervisor = Supervisor(graph, command=lambda spec, _: commands[spec.name])
    pids = []
    start_one = supervisor._start

    def note_pid(spec):
        start_one(spec)
        pids.append(supervisor.pid(spec.name))

    supervisor._start = note_pid
    with pytest.raises(FileNotFoundError), supervisor:
        pass
    assert len(pids) == 1 and not alive(pids[0])


# --- no orphans -------------------------------------------------------------------------------

_DRIVER = """
import sys, time
sys.path.insert(0, {root!r} + '/test')
import pathlib, test_supervisor as t
stubs = t.Stubs(pathlib.Path(sys.argv[1]))
supervisor = stubs.start_and_wait(
    {{'robot': t.POLITE, 'dispatcher': t.POLITE.replace(' INT', ' TERM')}},
    safe_stop=('dispatcher',),
)
print(supervisor.pid('robot'), supervisor.pid('dispatcher'), flush=True)
time.sleep(600)
"""


def test_sigkill_of_the_supervisor_leaves_no_orphan_and_the_dispatcher_may_still_act(tmp_path):
    driver = subprocess.Popen(
        [sys.executable, '-c', _DRIVER.format(root=str(ROOT)), str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        pids = [int(p) for p in driver.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
    try:
        assert wait_for(lambda: not any(map(alive, pids)), PATIENT)
        # The robot was killed at once; the dispatcher was asked and did its last duty.
        assert (tmp_path / 'notes').read_text().split() == ['dispatcher']
    finally:
        for pid in filter(alive, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# --- watching ---------------------------------------------------------------------------------


def test_check_is_silent_while_all_run(stubs):
    supervisor = stubs.start_and_wait({'a': POLITE, 'b': POLITE})
    supervisor.check()
    assert supervisor.ended() is None


def test_check_names_the_process_its_status_and_its_last_lines(stubs):
    supervisor = stubs.start_and_wait({'good': POLITE, 'bad': FAILING})
    assert wait_for(supervisor.ended, PATIENT)
    with pytest.raises(ProcessEndedError) as raised:
        supervisor.check()
    text = str(raised.value)
    assert 'bad ended with status 3' in text
    assert 'line 10' in text and 'line 3\n' in text and 'line 2\n' not in text


def test_wait_returns_the_process_that_ended_by_itself(stubs):
    supervisor = stubs.start_and_wait({'good': POLITE, 'bad': FAILING})
    assert supervisor.wait(threading.Event()) == Ending(name='bad', status=3)


def test_wait_returns_none_when_asked_to_stop(stubs):
    supervisor, stop = stubs.start_and_wait({'node': POLITE}), threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    assert supervisor.wait(stop) is None
    timer.join()


def test_lines_of_stdout_and_stderr_reach_the_sink_with_the_nodes_name(stubs):
    stubs.start({'a': 'echo out; echo err >&2', 'b': 'printf "no newline"'})
    expected = {('a', 'out'), ('a', 'err'), ('b', 'no newline')}
    assert wait_for(lambda: set(stubs.lines) == expected, PATIENT)


def test_a_sink_nobody_reads_does_not_block_the_process(stubs):
    """`faster-vla up | head`: a node that waits for a full pipe no longer answers."""

    def closed(name, line):
        raise BrokenPipeError

    talk = 'for i in $(seq 20000); do echo a line of some length, number $i; done; echo x > $NOTES'
    supervisor = stubs.start({'node': talk}, sink=closed)
    assert wait_for(lambda: stubs.noted() == ['x'], PATIENT)
    assert wait_for(lambda: 'number 20000' in ''.join(supervisor.last_lines('node')), PATIENT)


def test_the_environment_reaches_the_processes(stubs):
    stubs.start({'node': 'echo $NOTES'})
    assert wait_for(lambda: stubs.lines == [('node', str(stubs.notes))], PATIENT)


def test_wait_for_gives_up_after_its_timeout():
    start = time.monotonic()
    assert not wait_for(lambda: False, 0.2)
    assert 0.2 <= time.monotonic() - start < PATIENT
