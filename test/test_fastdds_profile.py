"""The Fast DDS profile is read, whatever version of Fast DDS is installed."""

import os
import pathlib
import subprocess
import sys

from project_files import ROOT
import pytest

from faster_vla_ros.compat import fastdds

PROFILE = ROOT / 'config' / 'fastdds_shm.xml'
# The segment is mapped into the process, so that other processes cannot disturb the answer.
SEGMENT = """
import pathlib, re, rclpy, sys
if 'leave' in sys.argv:
    from faster_vla_ros.compat.fastdds import leave_shared_memory
    leave_shared_memory(rclpy.utilities.get_rmw_implementation_identifier())
rclpy.init()
node = rclpy.create_node('segment')
maps = pathlib.Path('/proc/self/maps').read_text()
found = re.findall(r'(/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16})$', maps, re.M)
print(max((pathlib.Path(path).stat().st_size for path in set(found)), default=0))
rclpy.shutdown()
"""


@pytest.mark.parametrize(
    ('package', 'name'),
    [
        ('fastrtps', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
        ('fastdds', 'FASTDDS_DEFAULT_PROFILES_FILE'),
    ],
)
def test_the_variable_is_that_of_the_installed_version(tmp_path, package, name):
    (tmp_path / 'share' / package).mkdir(parents=True)
    assert fastdds.profile_variable({}, prefix=str(tmp_path)) == name
    distribution = {'AMENT_PREFIX_PATH': f'/nowhere{os.pathsep}{tmp_path}'}
    assert fastdds.profile_variable(distribution, prefix='/nowhere') == name


def test_the_profile_of_the_user_stays(tmp_path):
    name = fastdds.profile_variable({})
    given = {name: str(tmp_path / 'own.xml')}
    assert fastdds.profile_environment(PROFILE, given) == given
    assert fastdds.profile_environment(PROFILE, {name: ''}) == {name: str(PROFILE)}


@pytest.mark.ros
def test_fast_dds_makes_the_segment_of_the_profile():
    left_out = {fastdds.VERSION_2, fastdds.VERSION_3, 'FASTDDS_BUILTIN_TRANSPORTS'}
    clean = {k: v for k, v in os.environ.items() if k not in left_out}
    sizes = []
    for extra in ({}, fastdds.profile_environment(PROFILE, clean)):
        done = subprocess.run(
            [sys.executable, '-c', SEGMENT],
            env=clean | extra | {'ROS_DOMAIN_ID': '54'},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert 'deprecated' not in done.stderr
        sizes.append(int(done.stdout.split()[-1]))
    assert sizes[0] < 1 << 20
    assert sizes[1] >= 1 << 25
    assert pathlib.Path(PROFILE).read_text(encoding='utf-8').count(str(1 << 25)) == 1


@pytest.mark.ros
@pytest.mark.parametrize('profile', [None, PROFILE])
@pytest.mark.parametrize('reach', ['LOCALHOST', 'SUBNET'])
def test_a_process_may_leave_shared_memory(profile, reach):
    left_out = {fastdds.VERSION_2, fastdds.VERSION_3, fastdds.TRANSPORTS}
    clean = {k: v for k, v in os.environ.items() if k not in left_out}
    clean['ROS_AUTOMATIC_DISCOVERY_RANGE'] = reach
    if profile:
        clean |= fastdds.profile_environment(profile, clean)
    done = subprocess.run(
        [sys.executable, '-c', SEGMENT, 'leave'],
        env=clean | {'ROS_DOMAIN_ID': '54'},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == '0'


@pytest.mark.parametrize(
    ('reach', 'given', 'middleware'),
    [
        ('SUBNET', {fastdds.TRANSPORTS: 'LARGE_DATA'}, 'rmw_fastrtps_cpp'),
        ('SUBNET', {fastdds.profile_variable(): '/mine.xml'}, 'rmw_fastrtps_cpp'),
        ('LOCALHOST', {fastdds.profile_variable(): '/mine.xml'}, 'rmw_fastrtps_cpp'),
        ('LOCALHOST', {fastdds.PEERS: '10.0.0.7'}, 'rmw_fastrtps_cpp'),
        ('LOCALHOST', {}, 'rmw_cyclonedds_cpp'),
        ('SUBNET', {}, 'rmw_zenoh_cpp'),
    ],
)
def test_who_chose_something_else_keeps_it(monkeypatch, reach, given, middleware):
    for name in (fastdds.VERSION_2, fastdds.VERSION_3, fastdds.TRANSPORTS, fastdds.PEERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', reach)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    fastdds.leave_shared_memory(middleware)
    assert dict(os.environ) == before
