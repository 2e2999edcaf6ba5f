"""The project installs as promised: by colcon and by pip, with ROS and without."""

import ast
import configparser
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv
import xml.etree.ElementTree as ET

from project_files import imports_of_file, module_file, python_files, ROOT
import pytest
import setuptools
import yaml

from faster_vla_ros.graph_guard import guard_part

MSGS = ROOT / 'faster_vla_msgs'
PACKAGES = {'faster_vla_msgs': MSGS, 'faster_vla_ros': ROOT}
INTERFACES = sorted(
    path.relative_to(MSGS).as_posix()
    for folder in ('msg', 'srv', 'action')
    for path in (MSGS / folder).iterdir()
)
EXECUTABLES = {'faster-vla', 'policy_node', 'action_dispatcher', 'guard', 'mujoco_robot'}
# What `pip install .` needs of the tree; copied, so that no build folder stays in the repository.
SOURCES = (
    *('faster_core', 'faster_vla_ros', 'config', 'launch', 'resource'),
    *('setup.py', 'setup.cfg', 'pyproject.toml', 'package.xml', 'README.md', 'MANIFEST.in'),
    *('LICENSE', 'constraints.txt', 'colcon_defaults.yaml'),
)


@pytest.fixture(scope='module')
def setup_arguments():
    """Return what setup.py passes to setuptools."""
    arguments = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, 'setup', lambda **kwargs: arguments.update(kwargs))
        patch.chdir(ROOT)
        source = (ROOT / 'setup.py').read_text(encoding='utf-8')
        names = {'__file__': str(ROOT / 'setup.py'), '__name__': '__main__'}
        exec(compile(source, 'setup.py', 'exec'), names)
    return arguments


@pytest.fixture(scope='module')
def source_copy(tmp_path_factory):
    """Return a copy of what is installed, without caches and builds."""
    copy = tmp_path_factory.mktemp('source')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns('__pycache__', '*.egg-info')
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def _run(*command, timeout, cwd=None, **environment):
    kept = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'
    return done.stdout


def _package_xml(name):
    return ET.parse(PACKAGES[name] / 'package.xml').getroot()


def _normalised(requirement):
    return re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-').replace('.', '-')


# --- colcon -----------------------------------------------------------------------------------


def test_colcon_lists_exactly_two_packages(tmp_path):
    colcon = shutil.which('colcon') or shutil.which(
        'colcon', path=str(pathlib.Path(sys.executable).parent)
    )
    if colcon is None:
        pytest.skip('colcon is not installed')
    listed = _run(
        colcon, '--log-base', tmp_path, 'list', timeout=60, cwd=ROOT, COLCON_HOME=str(tmp_path)
    )
    found = {tuple(line.split('\t')) for line in listed.splitlines()}
    assert found == {
        ('faster_vla_msgs', 'faster_vla_msgs', '(ros.ament_cmake)'),
        ('faster_vla_ros', '.', '(ros.ament_python)'),
    }


def test_colcon_defaults_name_both_packages_for_every_verb():
    defaults = yaml.safe_load((ROOT / 'colcon_defaults.yaml').read_text(encoding='utf-8'))
    assert {'list', 'build', 'test'} <= set(defaults)
    for verb, options in defaults.items():
        paths = {(ROOT / path).resolve() for path in options['base-paths']}
        assert paths == set(PACKAGES.values()), verb


def test_no_colcon_ignore_hides_a_package():
    assert not (ROOT / 'COLCON_IGNORE').exists()
    assert not (MSGS / 'COLCON_IGNORE').exists()


@pytest.mark.parametrize('name', PACKAGES)
def test_package_xml_is_format_3_and_complete(name):
    root = _package_xml(name)
    assert root.get('format') == '3'
    assert root.findtext('name') == name
    assert root.findtext('license') == 'Apache-2.0'
    assert re.fullmatch(r'[\w.-]+@[\w-]+(\.[\w-]+)+', root.find('maintainer').get('email'))


def test_package_xml_names_every_ros_package_that_is_imported_and_only_tools_that_are_used():
    root = _package_xml('faster_vla_ros')
    declared = {element.text for element in root.findall('exec_depend')}
    used = set()
    for path in python_files('faster_vla_ros'):
        used |= {name.split('.')[0] for name in imports_of_file(path)}
    ros = {n for n in used if n.endswith('_msgs') or n in ('std_srvs', 'rcl_interfaces')}
    ros |= used & {'rclpy', 'launch', 'launch_ros', 'cv_bridge', 'message_filters'}
    ros |= used & {'ament_index_python', 'diagnostic_updater'}
    # Asked for if it is there (doctor); installed with whoever has controllers.
    assert ros - declared <= {'controller_manager_msgs'}
    assert 'launch_testing' not in {element.text for element in root.iter('test_depend')}


def test_build_types_are_what_the_build_files_are_written_for():
    assert _package_xml('faster_vla_msgs').findtext('export/build_type') == 'ament_cmake'
    assert _package_xml('faster_vla_ros').findtext('export/build_type') == 'ament_python'


def test_versions_agree_everywhere(setup_arguments):
    pip_msgs = (MSGS / 'pyproject.toml').read_text(encoding='utf-8')
    core = (ROOT / 'faster_core' / '__init__.py').read_text(encoding='utf-8')
    versions = {
        'setup.py': setup_arguments['version'],
        'faster_core': re.search(r"^__version__ = '(.+)'$", core, re.M)[1],
        'faster_vla_msgs/pyproject.toml': re.search(r"^version = '(.+)'$", pip_msgs, re.M)[1],
        **{f'{name}/package.xml': _package_xml(name).findtext('version') for name in PACKAGES},
    }
    assert len(set(versions.values())) == 1, versions


def test_root_pyproject_has_no_project_table_which_would_hide_setup_py_from_colcon():
    text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
    assert not re.search(r'^\[project\b', text, re.M)
    assert 'requires-python' not in text


def test_colcon_puts_executables_where_ros2_run_looks():
    text = (ROOT / 'setup.cfg').read_text(encoding='utf-8')
    assert text.count('$base/lib/faster_vla_ros') == 2


# --- the message package ----------------------------------------------------------------------


@pytest.mark.parametrize('interface', INTERFACES)
def test_interface_file_parses(interface):
    parser = pytest.importorskip('rosidl_adapter.parser')
    path = MSGS / interface
    parse = {
        '.msg': parser.parse_message_file,
        '.srv': parser.parse_service_file,
        '.action': parser.parse_action_file,
    }[path.suffix]
    parse('faster_vla_msgs', str(path))


def test_cmake_generates_every_interface_file():
    text = (MSGS / 'CMakeLists.txt').read_text(encoding='utf-8')
    assert sorted(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', text)) == INTERFACES


def test_packages_named_by_the_interfaces_are_declared():
    cmake = (MSGS / 'CMakeLists.txt').read_text(encoding='utf-8')
    declared = {element.text for element in _package_xml('faster_vla_msgs').findall('depend')}
    linked = set(re.search(r'DEPENDENCIES ([\w ]+)', cmake)[1].split())
    used = set()
    for interface in INTERFACES:
        used.update(re.findall(r'^(\w+)/\w+', (MSGS / interface).read_text('utf-8'), re.M))
    assert 'std_msgs' in used
    assert used <= declared
    assert used <= linked


@pytest.mark.ros
def test_installed_messages_have_the_fields_of_this_tree():
    import faster_vla_msgs.msg as installed

    parser = pytest.importorskip('rosidl_adapter.parser')
    for interface in INTERFACES:
        if interface.startswith('msg/'):
            spec = parser.parse_message_file('faster_vla_msgs', str(MSGS / interface))
            message = getattr(installed, spec.msg_name)
            assert [f.name for f in spec.fields] == list(message.get_fields_and_field_types())


# --- pip --------------------------------------------------------------------------------------


def test_setup_installs_every_config_and_launch_file(setup_arguments):
    installed = {}
    for folder, files in setup_arguments['data_files']:
        for file in files:
            installed[f'{folder}/{pathlib.PurePath(file).name}'] = file
    for folder in ('config', 'launch'):
        expected = [
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob('*')
            if path.is_file() and '__pycache__' not in path.parts
        ]
        assert expected, f'{folder}/ is empty'
        for path in expected:
            assert installed[f'share/faster_vla_ros/{path}'] == path
    assert installed['share/faster_vla_ros/package.xml'] == 'package.xml'
    marker = 'share/ament_index/resource_index/packages/faster_vla_ros'
    assert installed[marker] == 'resource/faster_vla_ros'


def test_the_unit_of_the_guard_starts_what_is_installed_and_starts_it_again():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(ROOT / 'config' / 'systemd' / 'faster-vla-guard.service')
    service = unit['Service']
    assert service['Restart'] == 'always'
    assert unit['Unit']['StartLimitIntervalSec'] == '0', 'systemd would give up'
    assert '/lib/faster_vla_ros/guard --ros-args ' in service['ExecStart']
    (file,) = re.findall(r'share/faster_vla_ros/(\S+\.yaml)', service['ExecStart'])
    assert guard_part(ROOT / file)['timeout'] > 0.0
    assert float(service['TimeoutStopSec']) > 3.0, 'it needs them for its zeros'
    # systemd knows no comment behind a value.
    assert not [v for section in unit.values() for v in section.values() if '#' in v]


def test_setup_ships_the_assets_and_the_models(setup_arguments):
    shipped = set(setup_arguments['package_data']['faster_core'])
    for folder in ('assets', 'sim/models'):
        for path in (ROOT / 'faster_core' / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert path.relative_to(ROOT / 'faster_core').as_posix() in shipped
    assert 'sim/models/r1_lite.xml' in shipped


def test_setup_packages_every_folder_with_python_files(setup_arguments):
    expected = {
        '.'.join(path.parent.relative_to(ROOT).parts)
        for folder in ('faster_core', 'faster_vla_ros')
        for path in (ROOT / folder).rglob('*.py')
    }
    assert set(setup_arguments['packages']) == expected


def test_every_executable_has_a_main(setup_arguments):
    scripts = dict(
        re.split(r'\s*=\s*', entry) for entry in setup_arguments['entry_points']['console_scripts']
    )
    assert set(scripts) == EXECUTABLES
    for target in scripts.values():
        module, function = target.split(':')
        path = module_file(module)
        assert path is not None, f'{module} does not exist'
        tree = ast.parse(path.read_text(encoding='utf-8'))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        imported = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert function in defined | imported, target


def test_requirements_name_no_package_that_is_something_else_on_pypi(setup_arguments):
    requirements = list(setup_arguments['install_requires'])
    for extra in setup_arguments['extras_require'].values():
        requirements += extra
    names = {_normalised(requirement) for requirement in requirements}
    assert not names & {'launch', 'launch-ros', 'cv-bridge', 'message-filters', 'rclpy', 'lark'}
    # `colcon test` runs no test at all unless an extra called `test` lists pytest.
    assert 'pytest' in setup_arguments['extras_require']['test']


def test_core_requirements_name_no_ros(setup_arguments):
    assert not [r for r in setup_arguments['install_requires'] if r.startswith('ros-')]


def test_constraints_pin_every_requirement_torch_first_and_name_no_host(setup_arguments):
    text = (ROOT / 'constraints.txt').read_text(encoding='utf-8')
    lines = [line for line in text.splitlines() if line and not line.startswith('#')]
    assert lines[0].startswith('torch==')
    assert all(re.match(r'[\w.-]+==[\w.]+(; python_version >= .3\.11.)?$', line) for line in lines)
    assert '://' not in text
    pinned = {_normalised(line) for line in lines}
    requirements = list(setup_arguments['install_requires'])
    for extra in setup_arguments['extras_require'].values():
        requirements += extra
    assert {_normalised(requirement) for requirement in requirements} <= pinned
    pyproject = (MSGS / 'pyproject.toml').read_text(encoding='utf-8')
    build = re.search(r'requires = \[(.*?)\n\]', pyproject, re.S)
    assert {_normalised(r) for r in re.findall(r"'([^']+)'", build[1])} <= pinned


IMPORT_CORE = """
import importlib, json, pathlib, pkgutil, sys
for name in ('rclpy', 'faster_vla_msgs'):
    sys.modules[name] = None  # an import of it fails, as on a machine without ROS
import faster_core
from faster_core import embodiment, paths
names = [m.name for m in pkgutil.walk_packages(faster_core.__path__, 'faster_core.')]
for name in names:
    importlib.import_module(name)
print(json.dumps({
    'file': faster_core.__file__,
    'names': names,
    'share': str(paths.share_dir()),
    'dims': embodiment.Embodiment.load(paths.embodiment_file('r1_lite')).action_dim,
    'model': (pathlib.Path(faster_core.__file__).parent / 'sim/models/r1_lite.xml').is_file(),
}))
"""


def _check_installed_core(python, prefix, timeout, **environment):
    printed = _run(python, '-c', IMPORT_CORE, timeout=timeout, cwd=prefix, **environment)
    told = json.loads(printed.splitlines()[-1])
    assert pathlib.Path(told['file']).is_relative_to(prefix)
    assert pathlib.Path(told['share']).is_relative_to(prefix)
    assert told['dims'] == 21
    assert told['model']
    assert {'faster_core.policy', 'faster_core.tokenizer', 'faster_core.sim'} <= set(told['names'])


def test_pip_installs_a_core_that_works_outside_the_source_tree_and_without_ros(
    source_copy, tmp_path
):
    pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check', 'install', '-qq')
    _run(
        *(*pip, '--no-deps', '--no-build-isolation', '--no-warn-script-location'),
        *('--ignore-installed', '--prefix', tmp_path, source_copy),
        timeout=100,
        cwd=tmp_path,
    )
    site = next(tmp_path.rglob('faster_core/__init__.py')).parents[1]
    _check_installed_core(sys.executable, tmp_path, 100, PYTHONPATH=str(site))
    assert {path.name for path in (tmp_path / 'bin').iterdir()} >= EXECUTABLES


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pip_install_into_an_empty_environment_gives_the_core_and_no_ros(source_copy, tmp_path):
    prefix = tmp_path / 'venv'
    venv.create(prefix, with_pip=True)
    python = prefix / 'bin' / 'python'
    constraints = ROOT / 'constraints.txt'
    pip = (python, '-m', 'pip', '--disable-pip-version-check', 'install', '-q', '-c', constraints)
    _run(*pip, 'torch', timeout=600)
    _run(*pip, f'{source_copy}[sim,train,remote]', timeout=600)
    _check_installed_core(python, prefix, 200)
    listed = _run(python, '-m', 'pip', 'list', timeout=60)
    assert 'rclpy' not in listed
