"""The distribution matrix: what each cell installs and tests, what is skipped, how it is told."""

import ast
import json
import pathlib
import subprocess
import sys

from project_files import ROOT
import pytest

MATRIX = ROOT / 'scripts' / 'matrix'


@pytest.fixture(scope='module', autouse=True)
def modules():
    """Import the matrix's files as its command does: from their own folder."""
    names = ('cells', 'environment', 'interpreters', 'report', 'torchless')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(MATRIX))
        yield {name: __import__(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def cells(modules):
    return modules['cells']


@pytest.fixture
def arguments(cells):
    return cells.declared(ROOT / 'setup.py')


def cell(cells, name, main='3.11'):
    return next(c for c in cells.grid(main) if c.name == name)


# --- cells ------------------------------------------------------------------------------------


def test_the_grid_has_every_place_once_and_torch_only_with_ros_on_one_python(cells):
    grid = cells.grid('3.11')
    assert len({c.name for c in grid}) == len(grid) == 12
    assert {c.name for c in grid if c.torch} == {'3.11-kilted', '3.11-jazzy'}


def test_jazzy_pins_replace_every_ros_line_and_nothing_else(cells):
    base = (ROOT / 'constraints.txt').read_text(encoding='utf-8')
    jazzy = (ROOT / 'scripts/matrix_constraints/jazzy.txt').read_text(encoding='utf-8')
    merged = cells.constraints(base, jazzy).splitlines()
    assert 'ros-rclpy==7.1.6' in merged
    assert 'ros-rclpy==9.1.2' not in merged
    assert [line for line in merged if line.startswith('ros-')] == cells.ros_pins(jazzy)
    others = [line for line in base.splitlines() if not line.startswith('ros-')]
    assert [line for line in merged if not line.startswith('ros-')] == others
    assert cells.constraints(base, None) == base


def test_jazzy_pins_cover_what_the_project_asks_of_ros(cells, arguments):
    jazzy = (ROOT / 'scripts/matrix_constraints/jazzy.txt').read_text(encoding='utf-8')
    pinned = {cells.normalised(line) for line in cells.ros_pins(jazzy)}
    wanted = {cells.normalised(r) for r in arguments['extras_require']['ros']}
    pyproject = (ROOT / 'faster_vla_msgs/pyproject.toml').read_text(encoding='utf-8')
    table = pyproject.split('requires = ', 1)[1].split('\n]', 1)[0] + ']'
    build = {cells.normalised(r) for r in ast.literal_eval(table)}
    # Jazzy has no separate ament_cmake_ros_core: it is part of ament_cmake_ros.
    build -= {'ros-ament-cmake-ros-core'}
    assert wanted | {r for r in build if r.startswith('ros-')} <= pinned
    assert {r for r in build if not r.startswith('ros-')} <= {
        *cells.BUILD_TOOLS,
        *('setuptools', 'numpy'),
    }
    assert '://' not in jazzy


def test_a_cell_without_torch_asks_for_nothing_that_brings_it(cells, arguments):
    wanted = cells.requirements(cell(cells, '3.12-none'), arguments, '')
    names = {cells.normalised(r) for r in wanted}
    assert not names & set(cells.WITHOUT_TORCH)
    assert {'numpy', 'pytest', 'mujoco', 'grpcio', 'gym-aloha', 'setuptools'} <= names
    assert not [name for name in names if name.startswith('ros-')]


def test_a_cell_with_torch_and_ros_asks_for_everything_but_torch_which_came_before(
    cells, arguments
):
    pins = 'ros-rclpy==7.1.6\nros-extra==1.0\n'
    wanted = cells.requirements(cell(cells, '3.11-jazzy'), arguments, pins)
    assert {'transformers>=5', 'ros-rclpy[fastrtps]', 'ros-extra==1.0', 'cmake'} <= set(wanted)
    assert 'torch' not in {cells.normalised(r) for r in wanted}


def test_what_has_no_wheel_for_a_python_is_left_out_there_only(cells, arguments):
    for name, has in (('3.12-none', True), ('3.13-none', False)):
        wanted = cells.requirements(cell(cells, name), arguments, '')
        assert ('dm-control' in {cells.normalised(r) for r in wanted}) is has


def test_ros_cells_run_exactly_the_files_with_ros_tests(cells):
    files = cells.ros_test_files(ROOT / 'test')
    assert {'test/test_qos.py', 'test/test_dispatcher_node.py', 'test/test_imports.py'} <= set(
        files
    )
    assert 'test/test_chunk.py' not in files
    given = cells.pytest_arguments(cell(cells, '3.11-kilted'), ROOT)
    assert set(files) <= set(given)
    assert 'torchless' not in given
    assert 'torchless' in cells.pytest_arguments(cell(cells, '3.12-kilted'), ROOT)
    assert not set(files) & set(cells.pytest_arguments(cell(cells, '3.12-none'), ROOT))


def test_on_other_pythons_than_the_native_one_the_dispatcher_is_what_is_run(cells):
    whole = set(cells.ros_test_files(ROOT / 'test'))
    assert whole <= set(cells.pytest_arguments(cell(cells, '3.12-jazzy'), ROOT))
    short = whole & set(cells.pytest_arguments(cell(cells, '3.13-jazzy'), ROOT))
    assert {'test/test_dispatcher_node.py', 'test/test_dispatcher_process.py'} <= short
    assert 'test/test_up.py' not in short
    for name in cells.SHORT:
        assert [file for file in short if file.startswith(f'test/test_{name}')], name


def test_every_test_left_out_by_name_exists(cells):
    for test in cells.NEED_TORCH:
        file, _, name = test.partition('::')
        tree = ast.parse((ROOT / file).read_text(encoding='utf-8'))
        assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, test


def test_rooms_that_must_import_without_torch_exist(cells):
    for name in cells.TORCHLESS_ROOMS:
        assert (ROOT / 'faster_core' / name / '__init__.py').is_file()
    for name in cells.TORCHLESS_MODULES:
        path = ROOT / 'faster_core' / name
        assert path.with_suffix('.py').is_file() or (path / '__init__.py').is_file()


def test_outcome_counts_every_kind_once(cells):
    junit = (
        '<testsuites><testsuite>'
        '<testcase classname="test.a" name="good"/>'
        '<testcase classname="test.a" name="bad"><failure message="x"/></testcase>'
        '<testcase classname="test.b" name="broken"><error message="x"/></testcase>'
        '<testcase classname="test.b" name="t"><skipped message="needs\n torch"/></testcase>'
        '<testcase classname="test.b" name="u"><skipped message="needs torch"/></testcase>'
        '</testsuite></testsuites>'
    )
    assert cells.outcome(junit) == {
        'passed': 1,
        'failed': 2,
        'skipped': 2,
        'failures': ['test.a::bad', 'test.b::broken'],
        'skip_reasons': {'needs torch': 2},
    }
    with pytest.raises(ValueError, match='junit'):
        cells.outcome('<testsuites>')


def test_shown_versions_are_found_whatever_way_a_name_is_written(cells):
    listed = [
        {'name': 'ros_rclpy', 'version': '7.1.6'},
        {'name': 'NumPy', 'version': '2.4.6'},
        {'name': 'idna', 'version': '3'},
    ]
    assert cells.shown_versions(listed) == {'numpy': '2.4.6', 'ros-rclpy': '7.1.6'}


# --- interpreters and commands ----------------------------------------------------------------


def test_an_interpreter_of_another_version_or_that_fails_is_passed_over(modules, tmp_path):
    find, row = modules['interpreters'].find, '{}.{}'.format(*sys.version_info[:2])
    shim = tmp_path / 'python'
    shim.write_text('#!/bin/sh\necho not selected >&2\nexit 127\n')
    shim.chmod(0o755)
    tried = [(str(shim), 'PATH'), (str(tmp_path / 'absent'), 'PATH'), (sys.executable, 'pyenv')]
    found = find(row, tried)
    assert (found.path, found.found) == (sys.executable, 'pyenv')
    assert find('3.1', tried) is None


def test_an_incomplete_interpreter_is_taken_only_where_there_is_no_other(modules, tmp_path):
    bare = tmp_path / 'bare'
    bare.write_text('#!/bin/sh\necho 3.12\necho Python.h\n')
    whole = tmp_path / 'whole'
    whole.write_text('#!/bin/sh\necho 3.12\necho\n')
    for file in (bare, whole):
        file.chmod(0o755)
    find = modules['interpreters'].find
    assert find('3.12', [(str(bare), 'PATH'), (str(whole), 'uv')]).path == str(whole)
    assert find('3.12', [(str(bare), 'PATH')]).missing == ('Python.h',)


def test_a_command_past_its_limit_is_ended_with_its_children(modules, tmp_path):
    environment, mark = modules['environment'], tmp_path / 'mark'
    command = ['bash', '-c', f'(sleep 1; touch {mark}) & wait']
    assert environment.run_bounded(command, limit=0.5) == (None, '')
    with pytest.raises(environment.CellError, match=r'sleeping: longer than 0 s'):
        environment.run(command, 'sleeping', limit=0.4)
    subprocess.run(['sleep', '0.8'], check=True)
    assert not mark.exists()


def test_a_failed_step_is_told_in_one_line(modules):
    environment = modules['environment']
    with pytest.raises(environment.CellError, match=r'^pip: exit status 3: ERROR: no such thing$'):
        environment.run(
            ['bash', '-c', 'echo a; echo "ERROR: no such thing"; echo hint; exit 3'],
            'pip',
            limit=10,
        )


# --- without torch ----------------------------------------------------------------------------


def test_only_what_was_left_out_skips(modules):
    reason = modules['torchless'].reason
    assert reason("E   ModuleNotFoundError: No module named 'torch.nn'") == 'needs torch'
    assert reason("ModuleNotFoundError: No module named 'numpy'") is None
    assert reason("ImportError: cannot import name 'x' from 'torch'") is None


@pytest.mark.parametrize(
    ('line', 'place', 'counts'),
    [
        ('import torch', 'file', (0, 1)),
        ('import no_such_module', 'file', (1, 0)),
        ('import torch', 'test', (0, 1)),
        ('import no_such_module', 'test', (1, 0)),
        ('raise ValueError("torch")', 'test', (1, 0)),
    ],
)
def test_the_plugin_skips_a_file_or_a_test_and_hides_no_other_error(
    cells, tmp_path, line, place, counts
):
    # In the place of torch stands a module that raises as its absence does.
    (tmp_path / 'torch.py').write_text(
        'raise ModuleNotFoundError("No module named \'torch\'", name="torch")\n'
    )
    inside = f'def test_it():\n    {line if place == "test" else "pass"}\n'
    (tmp_path / 'test_it.py').write_text((f'{line}\n' if place == 'file' else '') + inside)
    report = tmp_path / 'report.xml'
    options = ['-p', 'torchless', '-p', 'no:cacheprovider', '-c', '/dev/null']
    subprocess.run(
        [sys.executable, '-m', 'pytest', *options, f'--junitxml={report}', str(tmp_path)],
        cwd=tmp_path,
        env={'PATH': '/usr/bin:/bin', 'PYTHONPATH': f'{MATRIX}:{tmp_path}'},
        capture_output=True,
        timeout=60,
    )
    outcome = cells.outcome(report.read_text(encoding='utf-8'))
    assert (outcome['failed'], outcome['skipped']) == counts


# --- the table --------------------------------------------------------------------------------


PASSED = {'python': '3.11', 'column': 'jazzy', 'status': 'passed', 'why': '', 'torch': True}
PASSED |= {'whole': True}
PASSED |= {'passed': 9, 'failed': 0, 'skipped': 1, 'seconds': 12.3, 'commit': 'a' * 40}
ABSENT = {'python': '3.13', 'column': 'none', 'status': 'not run', 'why': 'not found'}


def everywhere(modules, *results):
    places = [{'python': c.python, 'column': c.column} for c in modules['cells'].grid('3.11')]
    blank = [place | {'status': 'not run', 'why': 'not yet'} for place in places]
    return modules['report'].merged(blank, results)


def test_the_table_says_of_every_place_run_or_not_and_why(modules):
    rows = modules['report'].table(everywhere(modules, PASSED, ABSENT)).splitlines()
    assert rows[3].split('|')[4].strip() == '9 passed, 1 skipped, with torch, 12 s'
    assert rows[5].split('|')[2].strip() == 'not run: not found'
    assert sum(row.count('not run: not yet') for row in rows) == 10


def test_a_failure_stands_out_with_its_reason(modules):
    line = modules['report'].line
    failed = PASSED | {'status': 'failed', 'failed': 2, 'why': 'pytest ended with 1'}
    assert line(failed).startswith('**2 failed**, 9 passed, 1 skipped; pytest ended with 1')
    unbuilt = {k: PASSED[k] for k in ('python', 'column', 'torch')}
    unbuilt |= {'status': 'failed', 'why': 'build of faster_vla_msgs: exit status 1'}
    assert line(unbuilt) == '**failed**: build of faster_vla_msgs: exit status 1'


def test_new_results_replace_old_ones_of_their_cell_only(modules):
    merged = modules['report'].merged
    newer = PASSED | {'passed': 10}
    assert merged([ABSENT, PASSED], [newer]) == [newer, ABSENT]
    gone = PASSED | {'python': '3.9'}
    assert merged([gone], [ABSENT]) == [ABSENT]


def test_a_page_without_both_marks_is_refused(modules):
    report = modules['report']
    results = everywhere(modules, PASSED)
    page = report.filled(f'a\n{report.BEGIN}\nold\n{report.END}\nb\n', results)
    assert page.startswith('a\n') and page.endswith('\nb\n') and 'old' not in page
    for broken in ('nothing', f'{report.END} {report.BEGIN}', report.BEGIN):
        with pytest.raises(ValueError, match='expected'):
            report.filled(broken, results)


def test_the_published_table_is_that_of_the_published_results(modules):
    results = json.loads((ROOT / 'docs/results/matrix.json').read_text(encoding='utf-8'))['cells']
    page = (ROOT / 'docs/matrix.md').read_text(encoding='utf-8')
    assert modules['report'].filled(page, results) == page
    assert {(r['python'], r['column']) for r in results} == {
        (c.python, c.column) for c in modules['cells'].grid('3.11')
    }


def test_an_unknown_cell_is_refused_before_anything_is_installed():
    done = subprocess.run(
        [sys.executable, MATRIX, '3.11-melodic'], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert '3.11-melodic' in done.stderr and '3.11-jazzy' in done.stderr
    assert pathlib.Path(MATRIX / '__main__.py').is_file()
