"""`faster-vla`: how the command line fails, and what it needs for what."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

from project_files import import_closure, module_file, ROOT
import pytest

from faster_core.errors import CheckpointError, ConfigError
from faster_vla_ros import cli


@pytest.fixture
def command(monkeypatch):
    """Put a command of our own into the table; returns what sets its behaviour."""

    def install(run=None, *, on_import=None):
        class Module:
            @staticmethod
            def add_parser(subparsers):
                subparsers.add_parser('mine').set_defaults(run=run)

        def import_module(name):
            if name != 'mine_module':
                return importlib.import_module(name)
            if on_import is not None:
                raise on_import
            return Module

        monkeypatch.setitem(cli.COMMANDS, 'mine', ('mine_module', 'a test'))
        fake = type('importlib', (), {'import_module': staticmethod(import_module)})
        monkeypatch.setattr(cli, 'importlib', fake)

    return install


def raising(error):
    def run(args):
        raise error

    return run


def test_an_unknown_command_is_refused_and_the_known_ones_are_listed(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(['fly'])
    assert ending.value.code == 2
    err = capsys.readouterr().err
    assert 'fly' in err
    assert all(name in err for name in ('demo', 'eval', 'bench'))


def test_no_command_at_all_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main([])
    assert ending.value.code == 2
    assert 'COMMAND' in capsys.readouterr().err


def test_help_tells_what_every_command_does(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(['--help'])
    assert ending.value.code == 0
    out = ' '.join(capsys.readouterr().out.split())
    assert all(name in out and text in out for name, (_, text) in cli.COMMANDS.items())


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_every_command_has_a_module(name):
    assert module_file(cli.COMMANDS[name][0]) is not None


def test_the_exit_status_of_a_command_is_ours(command):
    command(lambda args: 7)
    assert cli.main(['mine']) == 7


@pytest.mark.parametrize(
    'error', [ConfigError('rate: expected > 0, found -1'), CheckpointError('no folder x')]
)
def test_errors_raised_on_purpose_end_with_a_message_and_no_traceback(command, capsys, error):
    command(raising(error))
    assert cli.main(['mine']) == 2
    captured = capsys.readouterr()
    assert captured.err == f'faster-vla mine: {error}\n'
    assert captured.out == ''


def test_a_bug_is_not_hidden(command):
    command(raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(['mine'])


def test_ctrl_c_ends_quietly_with_its_own_status(command, capsys):
    command(raising(KeyboardInterrupt()))
    assert cli.main(['mine']) == 130
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('missing', ['rclpy', 'std_msgs', 'faster_vla_msgs', 'sensor_msgs.msg'])
def test_a_missing_ros_package_is_told_with_the_way_to_get_it(command, capsys, missing):
    command(on_import=ModuleNotFoundError(f'No module named {missing!r}', name=missing))
    assert cli.main(['mine']) == 2
    err = capsys.readouterr().err
    assert missing.split('.')[0] in err
    assert 'needs ROS 2' in err
    assert "pip install '.[ros]'" in err


@pytest.mark.parametrize(
    ('missing', 'extra'),
    [
        *(('mujoco', 'sim'), ('mink', 'sim'), ('tqdm', 'train'), ('matplotlib.pyplot', 'train')),
        *(('grpc', 'remote'), ('msgpack', 'remote')),
    ],
)
def test_a_missing_extra_is_told_by_its_name(command, capsys, missing, extra):
    command(raising(ModuleNotFoundError(f'No module named {missing!r}', name=missing)))
    assert cli.main(['mine']) == 2
    assert f"pip install '.[{extra}]'" in capsys.readouterr().err


def test_any_other_missing_package_is_told(command, capsys):
    command(raising(ModuleNotFoundError("No module named 'yaml'", name='yaml')))
    assert cli.main(['mine']) == 2
    assert 'pip install yaml' in capsys.readouterr().err


def test_commands_of_the_core_name_no_ros():
    for name in ('bench', 'bench-remote', 'data', 'demos', 'serve', 'tokenizer', 'policy'):
        closure = import_closure(cli.COMMANDS[name][0])
        assert closure
        assert not [m for m in closure if m.startswith('faster_vla_ros')]


def test_help_on_a_command_needs_neither_ros_nor_torch():
    code = (
        'import json, sys\n'
        "sys.modules['rclpy'] = None\n"
        'from faster_vla_ros import cli\n'
        "for name in ('bench', 'data', 'eval', 'demos', 'policy', 'serve', 'tokenizer'):\n"
        '    try:\n'
        "        cli.main([name, '--help'])\n"
        '    except SystemExit as e:\n'
        '        assert e.code == 0\n'
        "print(json.dumps([m for m in ('torch', 'mujoco') if m in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_eval_without_rclpy_asks_for_ros_only_when_it_is_needed(monkeypatch, capsys, tmp_path):
    # The checkpoint's own check comes first; a file stands in for it here.
    (tmp_path / 'metadata.json').write_text('{}')
    for name in ('rclpy', 'rclpy.context'):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ('episodes', 'observer', 'session'):
        monkeypatch.delitem(sys.modules, f'faster_vla_ros.{name}', raising=False)
    options = ['--ros', '--tasks', 'pick_red', '--episodes', '1', '--checkpoint', str(tmp_path)]
    assert cli.main(['eval', 'r1lite_wbc', *options]) == 2
    assert 'needs ROS 2' in capsys.readouterr().err


def _members(group):
    """Return the processes of a process group that still run."""
    listed = subprocess.run(
        ['ps', '-eo', 'pid=,pgid=,stat='], capture_output=True, text=True, timeout=20, check=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, pgid, stat in rows if int(pgid) == group and stat[0] != 'Z']


@pytest.mark.skipif(sys.platform != 'linux', reason='looks at process groups with ps')
def test_a_terminated_command_takes_its_processes_along():
    command = [sys.executable, '-m', 'faster_vla_ros.cli', 'eval', 'r1lite_wbc', '--workers', '2']
    command += ['--only', 'baselines', '--episodes', '50', '--tasks', 'pick_red', '--seed', '9000']
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while len(_members(process.pid)) < 3 and time.monotonic() < end:
            time.sleep(0.2)
        assert len(_members(process.pid)) >= 3  # itself and two workers
        process.terminate()
        assert process.wait(timeout=60) == cli.INTERRUPTED
        end = time.monotonic() + 20
        while _members(process.pid) and time.monotonic() < end:
            time.sleep(0.2)
        assert _members(process.pid) == []
    finally:
        if left := _members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            assert not left


def test_termination_is_handled_as_before_after_a_command(command):
    before = signal.getsignal(signal.SIGTERM)
    during = []

    def run(args):
        during.append(signal.getsignal(signal.SIGTERM))
        return 0

    command(run)
    assert cli.main(['mine']) == 0
    assert during == [signal.default_int_handler]
    assert signal.getsignal(signal.SIGTERM) is before
