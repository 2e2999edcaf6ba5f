"""The file tree of README.md: a line for every file, from its docstring."""

from __future__ import annotations

import ast
from collections.abc import Mapping
import subprocess

from scripts.generated.reports import ROOT

# What a line of the tree says about files that carry no docstring; folders first.
ABOUT = {
    '.ci/run': 'what a submission must pass: lint, two episodes through DDS, tests',
    'LICENSE': 'Apache-2.0',
    'MANIFEST.in': 'files of a source distribution',
    'Makefile': 'every command by name',
    'colcon_defaults.yaml': 'makes plain `colcon build` see both packages',
    'config/embodiments/aloha.yaml': 'two arms of gym-aloha',
    'config/embodiments/franka.yaml': 'Franka arm, joint positions (recording)',
    'config/embodiments/g1_inspire.yaml': 'Unitree G1 with Inspire hands (recordings)',
    'config/embodiments/libero.yaml': "LIBERO's Franka: displacements of the hand (training only)",
    'config/embodiments/metaworld.yaml': 'Sawyer arm of Meta-World: displacements of the hand',
    'config/embodiments/r1_lite.yaml': 'what the robot is: the single source of truth',
    'config/fastdds_shm.xml': 'shared-memory segment large enough for images',
    'config/fastdds_udp.xml': 'no shared memory: dispatcher and guard',
    'config/fastdds_udp_localhost.xml': 'the same for a graph that stays on its machine',
    'config/robots/r1_lite.yaml': 'topics and limits of the R1 Lite for both nodes',
    'config/robots/r1_lite_hardware.yaml': 'of the real R1 Lite: the limits one begins with',
    'config/diagnostics/': 'groups of diagnostics for rqt_robot_monitor',
    'config/embodiments/aloha_stationary.yaml': 'ALOHA on a table: two arms, four cameras',
    'config/embodiments/franka_fr3.yaml': 'Franka FR3 with its hand',
    'config/embodiments/trossen_stationary.yaml': 'two WidowX AI arms, four cameras',
    'config/embodiments/ur5e.yaml': 'UR5e with a parallel gripper',
    'config/embodiments/xarm7.yaml': 'xArm 7 with its gripper',
    'config/foxglove/': 'layouts for Foxglove, one per graph',
    'config/robots/aloha.yaml': 'topics and limits of ALOHA',
    'config/robots/franka_fr3.yaml': 'of the Franka FR3',
    'config/robots/gazebo/': 'of ros2_control in simulation',
    'config/robots/isaac/': "of Isaac Sim's joint topics",
    'config/robots/trossen.yaml': 'of the Trossen stationary kit',
    'config/robots/ur5e.yaml': 'of the UR5e',
    'config/robots/xarm7.yaml': 'of the xArm 7',
    'config/rviz/': 'layouts for RViz, one per graph',
    'config/systemd/': "units for the robot's computer: the guard",
    'config/study/': 'comparison of action tokenizers',
    'config/train/': "recipes: the shipped checkpoint's, and the paper's settings",
    'constraints.txt': 'every version that `make setup` installs',
    'docs/': 'architecture, ROS interface, execution, training',
    'faster_core/assets/': 'shipped checkpoint and tokenizers, mean trajectories of the baseline',
    'faster_core/sim/models/': 'MJCF of the robots and of a table',
    'scripts/matrix_constraints/': 'pins of the other ROS distributions',
    'faster_vla_msgs/': 'messages, service and action; a package of its own (colcon and pip)',
    'package.xml': 'ROS package (format 3)',
    'pyproject.toml': 'ruff, pytest, coverage',
    'resource/': 'marker of the ament index',
    'scripts/system_packages.sh': 'Debian packages that pip cannot bring',
    'setup.cfg': 'where ros2 run looks for executables',
    'setup.py': 'one packaging file for colcon and pip',
    'test/': 'tests; their names are sentences',
}


def file_tree() -> str:
    """Return the tracked files, one line each, with what they are for."""
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    rows: dict[str, str] = {}
    for name in sorted(n for n in listed if (ROOT / n).is_file()):
        folder = next((f for f in ABOUT if f.endswith('/') and name.startswith(f)), None)
        if folder:
            rows[folder] = ABOUT[folder]
        elif not name.startswith(('.git', 'README')) and not _is_marker(name):
            rows[name] = ABOUT.get(name) or _first_line(name)
    return '```\n' + '\n'.join(_tree_lines(rows)) + '\n```'


def _is_marker(name: str) -> bool:
    """Whether a file only makes its folder a package."""
    return name.endswith('__init__.py') and len((ROOT / name).read_text().splitlines()) < 2


def _tree_lines(rows: Mapping[str, str]) -> list[str]:
    lines, shown = [], set()
    for name, about in rows.items():
        parts = name.rstrip('/').split('/')
        for depth in range(1, len(parts)):
            folder = '/'.join(parts[:depth])
            if folder not in shown:
                shown.add(folder)
                lines.append(f'{"  " * (depth - 1)}{parts[depth - 1]}/')
        label = parts[-1] + ('/' if name.endswith('/') else '')
        lines.append(f'{"  " * (len(parts) - 1)}{label:<{34 - 2 * len(parts)}} {about}'.rstrip())
    return lines


def _first_line(name: str) -> str:
    text = (ROOT / name).read_text(encoding='utf-8')
    if name.endswith('.py'):
        documentation = ast.get_docstring(ast.parse(text)) or _only_class(text)
        return documentation.splitlines()[0].rstrip('.') if documentation else ''
    return ''


def _only_class(text: str) -> str:
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            return ast.get_docstring(node) or ''
    return ''
