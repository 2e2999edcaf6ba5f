"""`faster-vla`: one command line for everything.

A command's module is imported when the command is used, so commands of the core work without ROS
and a command that needs ROS says so instead of failing with a traceback.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import importlib
import signal
import sys
import threading

from faster_core.errors import FasterVlaError

# command -> (module with `add_parser(subparsers)`, help)
COMMANDS = {
    'up': ('faster_vla_ros.up', 'start a robot graph; Ctrl-C ends it with the safe commands'),
    'say': ('faster_vla_ros.commands', 'send an instruction to the running policy'),
    'enable': ('faster_vla_ros.commands', 'allow motion'),
    'disable': ('faster_vla_ros.commands', 'forbid motion'),
    'stop': ('faster_vla_ros.commands', 'stop the robot; latched until reset'),
    'reset': ('faster_vla_ros.commands', 'clear a stop; does not enable'),
    'doctor': ('faster_vla_ros.doctor.command', 'what is wrong, before anything moves'),
    'draft-robot': ('faster_vla_ros.draft.command', 'files of your own robot, from its URDF'),
    'demo': ('faster_vla_ros.demo', 'one instruction in simulation, with video'),
    'eval': ('faster_vla_ros.evaluate', 'success and latency over many episodes'),
    'bench': ('faster_core.cli.bench', 'latency of the policy alone'),
    'serve': ('faster_core.cli.remote', 'the policy, for clients on other machines'),
    'bench-remote': ('faster_core.cli.remote', 'what a policy server costs per call'),
    'demos': ('faster_core.cli.demos', 'collect demonstrations in simulation'),
    'data': ('faster_core.cli.data', 'motions for training and comparing action tokenizers'),
    'tokenizer': ('faster_core.cli.tokenizer', 'train or evaluate the action tokenizer'),
    'policy': ('faster_core.cli.policy', 'train the policy'),
}
ROS_PACKAGES = ('rclpy', 'rosgraph_msgs', 'builtin_interfaces', 'std_srvs')
EXTRAS = {
    'mujoco': 'sim',
    'mink': 'sim',
    'imageio': 'sim',
    'imageio_ffmpeg': 'sim',
    'tqdm': 'train',
    'matplotlib': 'train',
    'dm_control': 'data',
    'gym_aloha': 'data',
    'gymnasium': 'data',
    'pyarrow': 'data',
    'rosbags': 'data',
    'grpc': 'remote',
    'msgpack': 'remote',
}
# No extra can name it: it asks for one old MuJoCo and runs on ours.
NO_DEPENDENCIES = {'metaworld': 'metaworld==3.1.1'}
USAGE_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv[0] if argv and argv[0] in COMMANDS else None
    with _terminated_like_interrupted():
        return _run(command, argv)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: with its processes, not without them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(command: str | None, argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog='faster-vla', description=_overview(), **_RAW)
    subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    try:
        if command is None:
            for name, (_, text) in COMMANDS.items():
                subparsers.add_parser(name, help=text)
        else:
            importlib.import_module(COMMANDS[command][0]).add_parser(subparsers)
        args = parser.parse_args(argv)
        return args.run(args)
    except ModuleNotFoundError as e:
        print(f'faster-vla {command}: {_how_to_get(e)}', file=sys.stderr)
        return USAGE_ERROR
    except FasterVlaError as e:
        print(f'faster-vla {command}: {e}', file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


_RAW = {'formatter_class': argparse.RawDescriptionHelpFormatter}


def _overview() -> str:
    return 'FASTer policies on robots. Help on one command: faster-vla COMMAND --help'


def _how_to_get(error: ModuleNotFoundError) -> str:
    """Say how a missing package is installed."""
    root = (error.name or '').split('.')[0]
    if root in ROS_PACKAGES or root.endswith('_msgs'):
        return (
            f'this command needs ROS 2 ({root} is missing). Source a ROS distribution, or: '
            "pip install '.[ros]' ./faster_vla_msgs"
        )
    if root in EXTRAS:
        return f"{root} is missing: pip install '.[{EXTRAS[root]}]'"
    if root in NO_DEPENDENCIES:
        return (
            f"{root} is missing: pip install '.[data]' && "
            f'pip install --no-deps {NO_DEPENDENCIES[root]}'
        )
    if root in ('faster_core', 'faster_vla_ros'):
        return f'this installation has no module {error.name}'
    return f'the Python package {root} is missing: pip install {root}'


if __name__ == '__main__':
    sys.exit(main())
