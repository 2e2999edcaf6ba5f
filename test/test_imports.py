"""Walls between the rooms: what may import what (docs/architecture.md, "Rooms")."""

import ast
import json
import subprocess
import sys

from project_files import (
    import_closure,
    imports_of,
    imports_of_file,
    module_file,
    module_name,
    python_files,
    ROOT,
)
import pytest
from warm_processes import run_code, Warm

ROS_ROOTS = {
    'ament_index_python',
    'builtin_interfaces',
    'cv_bridge',
    'faster_vla_ros',
    'launch',
    'launch_ros',
    'message_filters',
    'rclpy',
    'rosidl_runtime_py',
    'std_srvs',
    'tf2_ros',
}
TORCH_ROOTS = {'torch', 'torchvision', 'transformers', 'tokenizers', 'safetensors', 'accelerate'}

VOCABULARY = {'chunk', 'config', 'embodiment', 'errors', 'observation', 'paths', 'provenance'}
# room -> (third-party packages, rooms of faster_core beside itself and the vocabulary)
ROOMS = {
    'tokenizer': (
        {
            'accelerate',
            'matplotlib',
            'numpy',
            'scipy',
            'safetensors',
            'tokenizers',
            'torch',
            'vector_quantize_pytorch',  # what bench.py compares with, if it is there
        },
        {'training', 'data'},
    ),
    'policy': (
        {
            'accelerate',
            'cv2',
            'numpy',
            'openvino',  # only inside `engines/openvino.py`, if it is there
            'peft',  # only inside a function: adapters are an extra
            'safetensors',
            'tokenizers',
            'torch',
            'tqdm',
            'transformers',
            'yaml',
        },
        {'data', 'decoding', 'tokenizer', 'training'},
    ),
    'decoding': ({'numpy', 'torch'}, set()),
    # ruckig: in `jerk`, which is imported where a limit on the jerk is set.
    'execution': ({'numpy', 'ruckig', 'yaml'}, set()),
    # Beside numpy and yaml only inside functions of `data/sources`, see below.
    'data': (
        {
            'dm_control',
            'gym_aloha',
            'metaworld',
            'mujoco',
            'numpy',
            'pyarrow',
            'rosbags',
            'scipy',
            'yaml',
        },
        set(),
    ),
    'remote': ({'cv2', 'grpc', 'msgpack', 'numpy'}, set()),
    'training': ({'matplotlib', 'numpy', 'safetensors', 'torch', 'tqdm', 'yaml'}, set()),
    'sim': ({'cv2', 'daqp', 'imageio', 'mink', 'mujoco', 'numpy', 'yaml'}, {'data'}),
}


def _is_ros(name):
    root = name.split('.')[0]
    return root in ROS_ROOTS or root.endswith('_msgs')


def _roots(names):
    return {name.split('.')[0] for name in names}


def _third_party(names):
    return _roots(names) - set(sys.stdlib_module_names) - {'faster_core'}


def _room(name):
    parts = name.split('.')
    return parts[1] if len(parts) > 1 else ''


def _run(code, timeout=100):
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_both_packages_have_python_files():
    assert python_files('faster_core')
    assert python_files('faster_vla_ros')


def test_the_import_finder_sees_lazy_relative_and_dynamic_imports_but_not_type_checking():
    source = """
from typing import TYPE_CHECKING
import importlib
if TYPE_CHECKING:
    import torch
def f():
    import rclpy.node
    from . import sibling
    from ..room import other
    importlib.import_module('mujoco')
"""
    found = imports_of(source, package='faster_core.sim')
    assert {'rclpy.node', 'faster_core.sim.sibling', 'faster_core.room.other', 'mujoco'} <= found
    assert 'torch' not in found


@pytest.mark.parametrize('path', python_files('faster_core'), ids=module_name)
def test_core_module_names_no_ros_package(path):
    assert not {name for name in imports_of_file(path) if _is_ros(name)}


def test_importing_every_module_of_the_core_loads_no_ros(tmp_path):
    modules = [module_name(path) for path in python_files('faster_core')]
    code = (
        'import importlib, json, sys\n'
        "assert not [name for name in sys.modules if name.startswith('faster_')]\n"
        f'for name in {modules!r}:\n'
        '    importlib.import_module(name)\n'
        'print(json.dumps(sorted(sys.modules)))'
    )
    status, said = Warm(tmp_path / 'log', run_code, code).wait(100)
    assert status == 0, said
    loaded = json.loads(said.splitlines()[-1])
    assert 'faster_core.embodiment' in loaded
    assert not {name for name in loaded if _is_ros(name)}


@pytest.mark.parametrize('path', python_files('faster_core'), ids=module_name)
def test_core_module_keeps_to_the_imports_of_its_room(path):
    name = module_name(path)
    room = _room(name)
    imported = imports_of_file(path)
    rooms = {
        _room(other)
        for other in imported
        if other.startswith('faster_core.') and module_file(other) is not None
    }
    if room in VOCABULARY or name == 'faster_core':
        assert _third_party(imported) <= {'numpy', 'yaml'}
        assert rooms <= VOCABULARY
    elif room == 'data' and not name.startswith('faster_core.data.sources.'):
        assert _third_party(imported) <= {'numpy', 'yaml'}
        assert rooms - VOCABULARY - {room} == set()
    elif room in ROOMS:
        third_party, others = ROOMS[room]
        assert _third_party(imported) <= third_party
        assert rooms <= VOCABULARY | others | {room}
    else:
        assert room in {'cli', 'evaluation'}, f'{room} has no row in the table of rooms'


def test_execution_closure_names_no_torch():
    closure = import_closure('faster_core.execution')
    assert 'faster_core.execution' in closure
    assert not {m: _roots(n) & TORCH_ROOTS for m, n in closure.items() if _roots(n) & TORCH_ROOTS}


def test_dispatcher_closure_names_no_torch():
    closure = import_closure('faster_vla_ros.action_dispatcher')
    assert 'faster_vla_ros.action_dispatcher' in closure
    assert not {m: _roots(n) & TORCH_ROOTS for m, n in closure.items() if _roots(n) & TORCH_ROOTS}
    assert not {m for m in closure if m.startswith(('faster_core.policy', 'faster_core.decoding'))}


@pytest.mark.ros
def test_importing_the_dispatcher_loads_no_torch():
    loaded = set(
        _run(
            'import json, sys, faster_vla_ros.action_dispatcher\n'
            'print(json.dumps(sorted(sys.modules)))'
        )
    )
    assert 'rclpy' in loaded
    assert not _roots(loaded) & TORCH_ROOTS


def test_importing_the_execution_room_loads_no_torch():
    loaded = _run(
        'import json, sys, faster_core.execution\nprint(json.dumps(sorted(sys.modules)))'
    )
    assert 'faster_core.execution' in loaded
    assert not _roots(loaded) & TORCH_ROOTS


def test_client_and_server_of_a_remote_policy_name_no_torch():
    for name in ('client', 'server'):
        closure = import_closure(f'faster_core.remote.{name}')
        assert f'faster_core.remote.{name}' in closure
        assert not {m for m, names in closure.items() if _roots(names) & TORCH_ROOTS}


def test_importing_the_client_of_a_remote_policy_loads_no_torch():
    loaded = _run(
        'import json, sys, faster_core.remote.client\nprint(json.dumps(sorted(sys.modules)))'
    )
    assert {'grpc', 'faster_core.remote.client'} <= set(loaded)
    assert not _roots(loaded) & TORCH_ROOTS
    assert not [m for m in loaded if m.startswith('faster_core.policy')]


def _wall_clock_reads(source):
    """Return the lines of `source` that read the wall clock past the node's clock."""
    tree = ast.parse(source)
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            if pair in {('time', 'time'), ('time', 'time_ns')}:
                lines.append(node.lineno)
        if isinstance(node, ast.Attribute) and node.attr in ('now', 'utcnow'):
            if 'datetime' in ast.unparse(node.value):
                lines.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == 'time':
            if {alias.name for alias in node.names} & {'time', 'time_ns'}:
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    'source',
    [
        'import time\ntime.time()',
        'import time\nclock = time.time_ns',
        'from time import time\ntime()',
        'import datetime\ndatetime.datetime.now()',
    ],
)
def test_the_wall_clock_finder_finds(source):
    assert _wall_clock_reads(source)


def test_the_wall_clock_finder_lets_durations_and_the_node_clock_pass():
    assert not _wall_clock_reads('time.perf_counter_ns()\nself.get_clock().now()\ntime.sleep(1)')


@pytest.mark.parametrize('path', python_files('faster_vla_ros'), ids=module_name)
def test_ros_module_reads_no_wall_clock(path):
    assert not _wall_clock_reads(path.read_text(encoding='utf-8'))


@pytest.mark.parametrize('path', python_files('faster_vla_ros'), ids=module_name)
def test_ros_module_contains_no_mathematics_library(path):
    forbidden = {'scipy', 'mink', 'mujoco', 'transformers', 'tokenizers', 'safetensors'}
    assert not _roots(imports_of_file(path)) & forbidden


def test_optional_ros_packages_are_named_only_by_their_fallback_or_launch_code():
    # One file per module holds the fallback; nothing else knows which of the two it got.
    for path in python_files('faster_vla_ros'):
        if 'compat' not in path.parts:
            found = _roots(imports_of_file(path)) & {'cv_bridge', 'message_filters', 'launch'}
            if path.name == 'launching.py':  # what all launch files share; nothing else imports it
                found -= {'launch'}
            assert not found, f'{module_name(path)} imports {sorted(found)} past compat/'


def test_every_module_named_by_the_project_exists():
    for folder in ('faster_core', 'faster_vla_ros'):
        for path in python_files(folder):
            for name in imports_of_file(path):
                if name.startswith(('faster_core.', 'faster_vla_ros.')):
                    parent = name.rpartition('.')[0]
                    assert module_file(name) or module_file(parent), f'{path}: {name}'
