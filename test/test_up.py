"""`faster-vla up`: options, readiness, Ctrl-C, and a process that ends by itself."""

import argparse
import errno
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading

from project_files import ROOT
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from std_msgs.msg import Bool

from faster_core.errors import CheckpointError, ConfigError
from faster_vla_ros import up as module
from faster_vla_ros.cli import main
from faster_vla_ros.graph import GRAPHS, r1lite_wbc, single_arm
from faster_vla_ros.session import LATCHED, Session
from faster_vla_ros.supervisor import Supervisor, wait_for

pytestmark = pytest.mark.ros
DOMAIN = 43
PATIENT = 60.0
NODES = ['mujoco_robot', 'action_dispatcher']
# In place of a node: notes its name when asked to end.
POLITE = (
    'trap "echo $0 >> $NOTES; exit 0" INT; echo $0 >> $NOTES.up; echo up; '
    'while :; do sleep 0.05; done'
)
# Waits until the other one, which is polite, can be asked to end.
UP = 'while ! grep -qs {} $NOTES.up; do sleep 0.05; done'


def stubbed(scripts):
    """Return what takes the place of `Supervisor`: shell scripts instead of nodes."""

    def command(spec, overrides):
        return ['bash', '-c', scripts.get(spec.name, POLITE), spec.name]

    return functools.partial(Supervisor, command=command)


@pytest.fixture
def notes(tmp_path, monkeypatch):
    path = tmp_path / 'notes'
    monkeypatch.setenv('NOTES', str(path))
    monkeypatch.setenv('ROS_DOMAIN_ID', str(DOMAIN))
    return lambda: path.read_text().split() if path.exists() else []


def stop_when_up(*names):
    """Return an event that is set once these stubs run, and can be asked to end."""
    stop, path = threading.Event(), pathlib.Path(os.environ['NOTES'] + '.up')

    def watch():
        wait_for(lambda: path.exists() and set(path.read_text().split()) == set(names), PATIENT)
        stop.set()

    threading.Thread(target=watch).start()
    return stop


def two_nodes():
    return r1lite_wbc(nodes=NODES)


# --- options ----------------------------------------------------------------------------------


def parse(*options, graph='r1lite_wbc'):
    parser = argparse.ArgumentParser()
    module.add_parser(parser.add_subparsers())
    return parser.parse_args(['up', graph, *options])


@pytest.mark.parametrize('graph', GRAPHS)
def test_every_argument_of_the_launch_file_is_an_option_with_the_same_default(graph):
    args = vars(parse(graph=graph))
    arguments = {a.name: a.default for a in GRAPHS[graph].arguments}
    assert arguments.pop('rviz') is False  # launch starts it, beside the nodes
    assert {name: args[name] for name in arguments} == arguments
    assert set(args) - set(arguments) == {'graph', 'nodes', 'run'}


def test_options_of_one_graph_are_not_those_of_another():
    with pytest.raises(SystemExit):
        parse('--task', 'pick_red', graph='single_arm')
    with pytest.raises(SystemExit):
        parse('--robot', 'ur5e')
    with pytest.raises(SystemExit):
        parse('--robot', 'pr2', graph='single_arm')


def test_a_robot_of_a_graph_can_be_chosen_in_a_namespace_and_a_dialect():
    args = parse(
        *('--robot', 'ur5e', '--namespace', 'robot1', '--dialect', 'isaac'),
        *('--nodes', *NODES),
        graph='single_arm',
    )
    assert module.graph_from_args(args) == single_arm(
        robot='ur5e', namespace='robot1', dialect='isaac', nodes=NODES
    )


def test_options_reach_the_graph(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    args = parse(
        *('--no-sim', '--dry-run', '--checkpoint', str(tmp_path), '--auto-enable', 'false'),
        *('--instruction', 'pick up the red block'),
    )
    expected = r1lite_wbc(
        sim=False,
        dry_run=True,
        checkpoint=str(tmp_path),
        auto_enable='false',
        instruction='pick up the red block',
    )
    assert module.graph_from_args(args) == expected


def chrt(folder, monkeypatch, text):
    """Put a script in place of chrt."""
    (folder / 'chrt').write_text(f'#!/bin/bash\n{text}\n')
    (folder / 'chrt').chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:/usr/bin:/bin')


def test_a_realtime_priority_reaches_the_graph_where_it_is_allowed(tmp_path, monkeypatch):
    chrt(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked')
    args = parse('--realtime-priority', '7', '--nodes', *NODES)
    made = module.graph_from_args(args)
    assert made == r1lite_wbc(realtime_priority=7, nodes=NODES)
    assert (tmp_path / 'asked').read_text() == '-f 7 true\n'


def test_a_realtime_priority_that_is_not_allowed_starts_nothing(tmp_path, monkeypatch, capsys):
    chrt(tmp_path, monkeypatch, 'echo "chrt: Operation not permitted" >&2; exit 1')
    monkeypatch.setattr(module, 'Supervisor', lambda *_: pytest.fail('started'))
    assert main(['up', 'r1lite_wbc', '--nodes', *NODES, '--realtime-priority', '7']) == 2
    said = capsys.readouterr().err
    assert 'realtime_priority 7: expected the right to it' in said
    assert 'rtprio 7' in said


def test_a_missing_checkpoint_is_refused_only_if_a_policy_needs_it(tmp_path):
    wrong = ('--checkpoint', str(tmp_path))
    with pytest.raises(CheckpointError, match=f'no checkpoint in {tmp_path}.*--checkpoint'):
        module.graph_from_args(parse(*wrong))
    assert module.graph_from_args(parse(*wrong, '--nodes', *NODES)).nodes


def test_an_unknown_node_is_refused():
    with pytest.raises(ConfigError, match='unknown nodes coffee_machine'):
        module.graph_from_args(parse('--nodes', 'coffee_machine'))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--checkpoint', 'nowhere'], 'no checkpoint in'),
        (['--no-sim', '--auto-enable', 'true'], 'explicit enable'),
        (['--params-file', 'nowhere.yaml'], 'no file'),
    ],
)
def test_wrong_options_end_with_status_2_before_anything_starts(
    monkeypatch, capsys, options, message
):
    monkeypatch.setattr(module, 'Supervisor', lambda *_: pytest.fail('started'))
    assert main(['up', 'r1lite_wbc', *options]) == 2
    assert message in capsys.readouterr().err


# --- running ----------------------------------------------------------------------------------


def test_asked_to_stop_before_it_is_ready_it_ends_in_order_with_status_0(
    notes, monkeypatch, capfd
):
    monkeypatch.setattr(module, 'Supervisor', stubbed({}))
    assert module.bring_up(two_nodes(), stop_when_up(*NODES)) == 0
    assert notes() == ['action_dispatcher', 'mujoco_robot']
    assert 'is ready' not in capfd.readouterr().err


def test_it_says_when_every_node_is_ready(notes, monkeypatch, capfd):
    monkeypatch.setattr(module, 'Supervisor', stubbed({}))
    graph = r1lite_wbc(nodes=['mujoco_robot'])
    stop, said = threading.Event(), []

    def stop_when_said():
        def is_said():
            said.append(capfd.readouterr().err)
            return 'r1lite_wbc is ready; Ctrl-C ends it' in ''.join(said)

        wait_for(is_said, PATIENT)
        stop.set()

    with Session(domain=DOMAIN, name='robot') as robot:
        topic = graph.nodes[0].ready_topic
        robot.node.create_publisher(Bool, topic, LATCHED).publish(Bool())
        watcher = threading.Thread(target=stop_when_said)
        watcher.start()
        assert module.bring_up(graph, stop) == 0
        watcher.join()
    assert 'is ready' in ''.join(said)


def test_a_policy_that_is_left_out_is_told_at_the_start(notes, monkeypatch, capfd):
    monkeypatch.setattr(module, 'Supervisor', stubbed({}))
    graph = module.graph_from_args(parse(graph='single_arm'))
    assert module.bring_up(graph, stop_when_up(*NODES)) == 0
    assert '[faster-vla] warning: policy_node is left out' in capfd.readouterr().err


def test_a_process_that_ends_by_itself_ends_the_others_with_status_1(notes, monkeypatch, capfd):
    failing = {'mujoco_robot': f'echo no display found; {UP.format("action_dispatcher")}; exit 4'}
    monkeypatch.setattr(module, 'Supervisor', stubbed(failing))
    assert module.bring_up(two_nodes(), threading.Event()) == 1
    said = capfd.readouterr()
    assert 'mujoco_robot ended with status 4 by itself' in said.err
    assert 'no display found' in said.err
    assert notes() == ['action_dispatcher']


def test_a_process_that_ends_by_itself_later_ends_the_others_too(notes, monkeypatch, capfd):
    ending = f'{UP.format("mujoco_robot")}; exit 0'
    monkeypatch.setattr(module, 'Supervisor', stubbed({'action_dispatcher': ending}))
    monkeypatch.setattr(module, '_announce_when_ready', lambda *_: None)
    assert module.bring_up(two_nodes(), threading.Event()) == 1
    assert 'action_dispatcher ended with status 0 by itself' in capfd.readouterr().err
    assert notes() == ['mujoco_robot']


def test_a_graph_that_is_not_ready_yet_is_told_of_and_waited_for(notes, monkeypatch):
    monkeypatch.setattr(module, 'Supervisor', stubbed({}))
    monkeypatch.setattr(module, 'LATE_AFTER', 1.0)
    said, stop = [], threading.Event()
    monkeypatch.setattr(module, '_say', said.append)
    late = 'not ready after 2 s: mujoco_robot (silent)'

    def stop_when_said():
        wait_for(lambda: any(late in text for text in said), PATIENT)
        stop.set()

    watcher = threading.Thread(target=stop_when_said)
    watcher.start()
    assert module.bring_up(two_nodes(), stop) == 0
    watcher.join()
    assert any(late in text for text in said)
    assert notes() == ['action_dispatcher', 'mujoco_robot']


def test_without_a_terminal_all_nodes_are_ended_in_order(notes, monkeypatch):
    class Gone:
        def write(self, text):
            raise OSError(errno.EIO, 'hung up')

        flush = write

    monkeypatch.setattr(module, 'Supervisor', stubbed({}))
    stop = stop_when_up(*NODES)
    monkeypatch.setattr(module.sys, 'stderr', Gone())
    assert module.bring_up(two_nodes(), stop) == 0
    assert notes() == ['action_dispatcher', 'mujoco_robot']


def test_a_node_that_had_to_be_killed_is_a_failure(notes, monkeypatch, capfd):
    deaf = 'trap "" INT TERM; echo $0 >> $NOTES.up; while :; do sleep 0.05; done'
    monkeypatch.setattr(module, 'Supervisor', stubbed({'action_dispatcher': deaf}))
    quick = ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.2), (signal.SIGKILL, PATIENT))
    monkeypatch.setattr('faster_vla_ros.supervisor.PATIENCE', quick)
    assert module.bring_up(two_nodes(), stop_when_up(*NODES)) == 1
    assert 'action_dispatcher was ended by SIGKILL' in capfd.readouterr().err


_DRIVER = """
import sys
sys.path.insert(0, 'test')
import test_up
test_up.module.Supervisor = test_up.stubbed({})
sys.exit(test_up.main(['up', 'r1lite_wbc', '--nodes', *test_up.NODES]))
"""


@pytest.mark.parametrize(
    'number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name
)
def test_ctrl_c_of_the_command_ends_the_nodes_in_order_with_status_0(notes, number):
    process = subprocess.Popen(
        [sys.executable, '-c', _DRIVER],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        up = set()
        while len(up) < 2:
            line = process.stdout.readline()
            assert line, 'ended early'
            if line.endswith('] up\n'):
                up.add(line)
        process.send_signal(number)
        process.send_signal(number)
        said = process.communicate(timeout=PATIENT)[0]
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert notes() == ['action_dispatcher', 'mujoco_robot']
    assert 'Traceback' not in said
