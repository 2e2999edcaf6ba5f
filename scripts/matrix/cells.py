"""What the matrix consists of: rows, columns, and what each cell installs and tests. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import re
import runpy
import sys
import types
from typing import Any
from unittest import mock
import xml.etree.ElementTree as ET

ROWS = ('3.10', '3.11', '3.12', '3.13')
COLUMNS = ('none', 'kilted', 'jazzy')
TITLES = {'none': 'no ROS, no torch', 'kilted': 'Kilted wheels', 'jazzy': 'Jazzy wheels'}
# Python of Ubuntu 24.04, for which Jazzy and Kilted are released.
NATIVE = '3.12'
# How the names of the ROS tests run on any other Python begin: conversions and the dispatcher.
SHORT = ('conversions', 'dispatcher', 'outputs', 'parameters', 'qos')

# Left out of cells without torch: distribution -> module. A test that asks for one of the modules
# is skipped there, and counted as such.
WITHOUT_TORCH = {
    'accelerate': 'accelerate',
    'peft': 'peft',
    'torch': 'torch',
    'transformers': 'transformers',
    'vector-quantize-pytorch': 'vector_quantize_pytorch',
}
EXTRAS = ('sim', 'train', 'data', 'remote', 'jerk', 'test')
# distribution -> rows it cannot be installed in: labmaze, which it requires, has no wheel there.
NO_WHEEL = {'dm-control': ('3.13',), 'gym-aloha': ('3.13',)}
# What builds faster_vla_msgs beside the ROS wheels (faster_vla_msgs/pyproject.toml).
BUILD_TOOLS = ('catkin-pkg', 'cmake', 'empy', 'lark-parser', 'ninja', 'scikit-build-core')

# Rooms and modules of faster_core that must import without torch; every cell without it tries.
TORCHLESS_ROOMS = ('data', 'execution', 'remote', 'sim')
TORCHLESS_MODULES = ('chunk', 'config', 'embodiment', 'errors', 'observation', 'paths')

# Tests of commands and processes that say they lack torch, which cannot be told from a fault.
NEED_TORCH = (
    'test/test_cli.py::test_a_terminated_command_takes_its_processes_along',
    'test/test_cli.py::test_eval_without_rclpy_asks_for_ros_only_when_it_is_needed',
    'test/test_documentation.py::test_generated_parts_are_up_to_date',
    'test/test_evaluation.py::test_jobs_of_baselines_run_without_a_checkpoint',
    'test/test_imports.py::test_importing_every_module_of_the_core_loads_no_ros',
    'test/test_packaging.py::'
    'test_pip_installs_a_core_that_works_outside_the_source_tree_and_without_ros',
    'test/test_policy_node_lifecycle.py::'
    'test_process_with_a_missing_checkpoint_ends_with_status_1_and_one_fatal_line',
    'test/test_remote.py::test_the_commands_say_what_is_wrong_without_a_traceback',
)

# Versions that a result shows.
SHOWN = (
    *('numpy', 'torch', 'pytest', 'mujoco', 'opencv-python-headless'),
    *('ros-rclpy', 'ros-rmw-fastrtps-cpp', 'ros-fastdds', 'ros-fastrtps', 'ros-sensor-msgs'),
    *('ros-rosidl-generator-py', 'faster-vla-msgs'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One environment and the tests run in it.

    Attributes:
        python: row, e.g. `3.12`.
        column: one of `COLUMNS`.
        torch: whether torch and what builds on it is installed.
        whole: whether a ROS cell runs all ROS tests, or only those of `SHORT`.
    """

    python: str
    column: str
    torch: bool
    whole: bool = True

    @property
    def name(self) -> str:
        """Name on the command line and below `.venv-matrix/`."""
        return f'{self.python}-{self.column}'

    @property
    def ros(self) -> bool:
        """Whether it has ROS wheels."""
        return self.column != 'none'


def grid(main: str) -> tuple[Cell, ...]:
    """Return every cell; the ROS cells of Python `main` have torch."""
    return tuple(
        Cell(
            python=row,
            column=column,
            torch=column != 'none' and row == main,
            whole=column == 'none' or row in (main, NATIVE),
        )
        for row in ROWS
        for column in COLUMNS
    )


def normalised(requirement: str) -> str:
    """Return the name in a requirement as PyPI compares it."""
    return re.sub(r'[-_.]+', '-', re.match(r'[\w.-]+', requirement)[0]).lower()


def constraints(base: str, ros: str | None) -> str:
    """Return the pins of a cell.

    Args:
        base: text of constraints.txt.
        ros: pins of another distribution, in place of the ros-* lines of `base`; None: as it is.
    """
    if ros is None:
        return base
    kept = [line for line in base.splitlines() if not line.startswith('ros-')]
    return '\n'.join([*kept, *ros_pins(ros), ''])


def ros_pins(text: str) -> list[str]:
    """Return the ros-* lines of a constraints file."""
    return [line for line in text.splitlines() if line.startswith('ros-')]


def declared(setup_file: pathlib.Path) -> dict[str, Any]:
    """Return what setup.py passes to setuptools, which need not be installed."""
    found: dict[str, Any] = {}
    stand_in = types.SimpleNamespace(find_packages=lambda **_: [])
    stand_in.setup = lambda **arguments: found.update(arguments)
    with mock.patch.dict(sys.modules, {'setuptools': stand_in}):
        runpy.run_path(str(setup_file))
    return found


def requirements(cell: Cell, arguments: Mapping[str, Any], pins: str) -> list[str]:
    """Return what a cell installs, torch excepted.

    Args:
        cell: the cell.
        arguments: of `setup` (`declared`).
        pins: the cell's constraints; a ROS cell installs every ros-* package of them.
    """
    wanted = list(arguments['install_requires'])
    for extra in EXTRAS:
        wanted += arguments['extras_require'][extra]
    if cell.ros:
        wanted += [*arguments['extras_require']['ros'], *ros_pins(pins), *BUILD_TOOLS]
    left_out = set() if cell.torch else set(WITHOUT_TORCH)
    left_out |= {'torch'} | {name for name, rows in NO_WHEEL.items() if cell.python in rows}
    kept = [r for r in wanted if normalised(r) not in left_out]
    return [*dict.fromkeys(kept), 'setuptools']


def ros_test_files(folder: pathlib.Path, names: Sequence[str] = ('',)) -> list[str]:
    """Return the files below `folder` with a test marked `ros`, relative to its parent.

    Args:
        folder: the tests.
        names: the files' names begin with `test_` and one of these.
    """
    return sorted(
        path.relative_to(folder.parent).as_posix()
        for name in names
        for path in folder.glob(f'test_{name}*.py')
        if re.search(r'pytest\.mark\.ros\b', path.read_text(encoding='utf-8'))
    )


def pytest_arguments(cell: Cell, tree: pathlib.Path) -> list[str]:
    """Return the arguments of pytest: which tests, and how what needs torch is skipped."""
    arguments = ['-q', '-p', 'no:cacheprovider', '--continue-on-collection-errors']
    if cell.ros:
        files = ros_test_files(tree / 'test', *(() if cell.whole else (SHORT,)))
        arguments += ['-m', 'ros and not slow and not bench', *files]
    if not cell.torch:
        arguments += ['-p', 'torchless', *(f'--deselect={test}' for test in NEED_TORCH)]
    return arguments


def outcome(junit: str) -> dict[str, Any]:
    """Return the counts of a junit report, reasons of skips and names of failures.

    Raises:
        ValueError: the text is not such a report.
    """
    try:
        cases = list(ET.fromstring(junit).iter('testcase'))  # noqa: S314 - written by our pytest
    except ET.ParseError as e:
        raise ValueError(f'expected a junit report, found {e}') from e
    failed, reasons = [], {}
    for case in cases:
        skip = case.find('skipped')
        if case.find('failure') is not None or case.find('error') is not None:
            failed.append(f'{case.get("classname")}::{case.get("name")}')
        elif skip is not None:
            reason = re.sub(r'\s+', ' ', skip.get('message', '')).strip()
            reasons[reason] = reasons.get(reason, 0) + 1
    skipped = sum(reasons.values())
    return {
        'passed': len(cases) - len(failed) - skipped,
        'failed': len(failed),
        'skipped': skipped,
        'failures': sorted(set(failed)),
        'skip_reasons': dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }


def shown_versions(listed: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the versions of `SHOWN` among those that `pip list --format json` names."""
    versions = {normalised(entry['name']): entry['version'] for entry in listed}
    return {name: versions[name] for name in SHOWN if name in versions}
