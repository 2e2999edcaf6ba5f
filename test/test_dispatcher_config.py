"""The configuration of the dispatcher: what is refused, and that the message helps."""

import pathlib

from execution_helpers import config, PARAMETERS, TOY
import numpy as np
import pytest
import yaml

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.execution.config import (
    DispatcherConfig,
    NODE_KEYS,
    robot_file_parameters,
    WIRE_KEYS,
)

ROOT = pathlib.Path(__file__).resolve().parents[1]
R1_LITE = Embodiment.load(ROOT / 'config' / 'embodiments' / 'r1_lite.yaml')
R1_LITE_FILE = ROOT / 'config' / 'robots' / 'r1_lite.yaml'


def robot_file(tmp_path, content):
    path = tmp_path / 'robot.yaml'
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def parameters_file(tmp_path, parameters):
    return robot_file(tmp_path, {'/**': {'action_dispatcher': {'ros__parameters': parameters}}})


# --- values -----------------------------------------------------------------------------------


def test_absent_keys_have_the_documented_defaults():
    least = {'components': ['arm', 'hand', 'base']} | {
        f'{c.name}.max_velocity': [1.0] * c.size for c in TOY.action
    }
    c = DispatcherConfig.from_parameters(least, TOY)
    assert (c.dispatch_rate, c.min_lead, c.blend_steps, c.max_chunk_age) == (50.0, 0.0, 5, 1.0)
    assert (c.feedback_timeout, c.excess_tolerance, c.stop_pub_timeout) == (0.5, 0.1, 1.0)
    assert (c.consecutive_violation_threshold, c.require_enable) == (3, True)
    arm, hand, base = (c.components[name] for name in ('arm', 'hand', 'base'))
    assert (arm.on_stale, hand.on_stale, base.on_stale) == ('hold', 'hold', 'zero')
    assert (arm.max_start_offset, hand.max_start_offset) == (0.15, 0.05)
    assert np.isinf(arm.max_acceleration).all()
    assert np.isinf(arm.upper).all()
    assert np.isinf(arm.lower).all()


def test_one_pair_of_limits_serves_all_dimensions_or_each_has_its_own():
    assert config(arm__position_limits=[-1, 2]).components['arm'].upper.tolist() == [2.0, 2.0]
    arm = config(arm__position_limits=[-1.0, 1.0, -2.0, 3.0]).components['arm']
    assert arm.lower.tolist() == [-1.0, -2.0]
    assert arm.upper.tolist() == [1.0, 3.0]


def test_whole_numbers_serve_as_floats_as_people_write_them():
    c = config(dispatch_rate=20, min_lead=0, arm__max_velocity=[1, 2])
    assert isinstance(c.dispatch_rate, float)
    assert c.components['arm'].max_velocity.dtype == float


def test_the_general_stop_timeout_is_the_components_default():
    c = config(stop_pub_timeout=2.5, base__stop_pub_timeout=0.0)
    assert c.components['arm'].stop_pub_timeout == 2.5
    assert c.components['base'].stop_pub_timeout == 0.0


def test_keys_that_only_say_where_commands_go_are_known_here_and_change_nothing():
    wiring = {f'arm.{key}': 'somewhere' for key in WIRE_KEYS} | dict.fromkeys(NODE_KEYS, True)
    plain, wired = config(), config(**wiring)
    assert wired.dispatch_rate == plain.dispatch_rate
    assert wired.components['arm'].max_velocity.tolist() == [1.0, 2.0]


# --- wrong_config -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('key', 'value', 'expectation'),
    [
        ('dispatch_rate', 0.0, 'a number > 0'),
        ('dispatch_rate', -50.0, 'a number > 0'),
        ('dispatch_rate', float('nan'), 'a number > 0'),
        ('dispatch_rate', 'fast', 'a number > 0'),
        ('max_chunk_age', 0, 'a number > 0'),
        ('feedback_timeout', float('inf'), 'a number > 0'),
        ('min_lead', -0.1, 'a number >= 0'),
        ('excess_tolerance', True, 'a number >= 0'),
        ('stop_pub_timeout', -1.0, 'a number >= 0'),
        ('stop_pub_timeout', 'never', 'a number >= 0'),
        ('blend_steps', -1, 'a whole number >= 0'),
        ('blend_steps', 2.5, 'a whole number >= 0'),
        ('blend_steps', True, 'a whole number >= 0'),
        ('consecutive_violation_threshold', '3', 'a whole number >= 0'),
        ('require_enable', 'yes', 'a bool'),
        ('require_enable', 1, 'a bool'),
        ('arm.max_velocity', [1.0], '2 numbers'),
        ('arm.max_velocity', 1.0, '2 numbers'),
        ('arm.max_velocity', 'ab', '2 numbers'),
        ('arm.max_velocity', [1.0, 0.0], 'a number > 0'),
        ('arm.max_velocity', [1.0, None], 'a number > 0'),
        ('arm.max_acceleration', [1.0, 2.0, 3.0], '2 numbers'),
        ('arm.max_acceleration', [-1.0, 2.0], 'a number > 0'),
        ('arm.position_limits', [1.0, -1.0], 'lower < upper'),
        ('arm.position_limits', [0.0, 0.0], 'lower < upper'),
        ('arm.position_limits', [0.0, float('nan')], 'lower < upper'),
        ('arm.position_limits', [0.0, 'far'], 'lower < upper'),
        ('arm.position_limits', [0.0, 1.0, 2.0], '[lower, upper]'),
        ('arm.position_limits', 3.14, '[lower, upper]'),
        ('arm.max_start_offset', 0.0, 'a number > 0'),
        ('arm.stop_pub_timeout', -1.0, 'a number >= 0'),
        ('arm.on_stale', 'panic', "('hold', 'zero', 'stop')"),
        ('arm.on_stale', ['hold'], "('hold', 'zero', 'stop')"),
    ],
)
def test_a_wrong_value_is_refused_and_the_message_names_key_value_and_expectation(
    key, value, expectation
):
    with pytest.raises(ConfigError) as caught:
        config(**{key: value})
    message = str(caught.value)
    assert message.startswith(key)
    assert expectation in message
    found = [value, *value] if isinstance(value, list) else [value]
    assert any(f'found {v!r}' in message for v in found)


@pytest.mark.parametrize(
    ('key', 'value', 'advice'),
    [
        ('arm.on_stale', 'zero', 'use hold'),
        ('hand.on_stale', 'zero', 'use hold'),
        ('base.on_stale', 'hold', 'use zero'),
        ('base.position_limits', [0.0, 1.0], 'is a velocity'),
    ],
)
def test_what_would_be_dangerous_for_the_kind_is_refused_with_advice(key, value, advice):
    with pytest.raises(ConfigError, match=advice) as caught:
        config(**{key: value})
    assert str(caught.value).startswith(key)


def test_a_velocity_limit_is_never_guessed():
    parameters = {k: v for k, v in PARAMETERS.items() if k != 'base.max_velocity'}
    with pytest.raises(ConfigError, match=r'base\.max_velocity: missing'):
        DispatcherConfig.from_parameters(parameters, TOY)


@pytest.mark.parametrize(
    'components',
    [
        None,
        5,
        'arm',
        [],
        ['arm', 'hand'],
        ['hand', 'arm', 'base'],
        ['arm', 'hand', 'base', 'base'],
        ['arm', 'hand', 'wheels'],
    ],
    ids=['absent', 'number', 'string', 'empty', 'missing', 'order', 'twice', 'unknown'],
)
def test_components_must_be_the_embodiments_in_its_order(components):
    with pytest.raises(ConfigError) as caught:
        config(components=components)
    message = str(caught.value)
    assert message.startswith('components: found')
    assert str(components) in message
    assert "toy has ['arm', 'hand', 'base']" in message


@pytest.mark.parametrize(
    'key', ['dispatchrate', 'arm.max_speed', 'tail.max_velocity', 'arm.feedback.nonsense', 'arm']
)
def test_an_unknown_key_is_refused_by_name(key):
    with pytest.raises(ConfigError, match=f'unknown parameters: {key}$'):
        config(**{key: 1.0})


def test_end_effector_poses_have_no_output():
    pose = TOY.source.replace(
        'twist, names: [vx, wz]', 'ee_pose, names: [x, y, z, qx, qy, qz, qw]'
    )
    embodiment = Embodiment.from_text(pose)
    with pytest.raises(ConfigError, match='base: no output takes end-effector poses'):
        DispatcherConfig.from_parameters(PARAMETERS, embodiment)


def test_end_effector_displacements_have_no_output():
    delta = TOY.source.replace('twist, names: [vx, wz]', 'ee_delta, names: [x, rz]')
    embodiment = Embodiment.from_text(delta)
    with pytest.raises(ConfigError, match='base: no output takes end-effector displacements'):
        DispatcherConfig.from_parameters(PARAMETERS, embodiment)


# --- files ------------------------------------------------------------------------------------


def test_nested_keys_of_a_file_are_the_dotted_ones(tmp_path):
    nested = {'arm': {'feedback': {'size': [2]}, 'max_velocity': [1, 2]}, 'blend_steps': 2}
    path = parameters_file(tmp_path, nested)
    assert robot_file_parameters(path) == {
        'arm.feedback.size': [2],
        'arm.max_velocity': [1, 2],
        'blend_steps': 2,
    }


def test_a_node_may_have_no_parameters(tmp_path):
    assert robot_file_parameters(parameters_file(tmp_path, None)) == {}


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('', "no '/\\*\\*' on the way"),
        ('- a list', "no '/\\*\\*' on the way"),
        ({'/**': {'policy_node': {}}}, "no 'action_dispatcher' on the way"),
        ({'/**': {'action_dispatcher': {'blend_steps': 3}}}, "no 'ros__parameters' on the way"),
        ({'/**': {'action_dispatcher': {'ros__parameters': [1]}}}, 'expected a mapping'),
        ('a: [1, 2', 'robot.yaml'),
        ('a: 2026-02-30', 'robot.yaml'),
    ],
    ids=['empty', 'list', 'no node', 'no parameters', 'parameters a list', 'no yaml', 'no date'],
)
def test_a_malformed_file_is_a_clear_error_that_names_it(tmp_path, content, words):
    with pytest.raises(ConfigError, match=words) as caught:
        DispatcherConfig.load(robot_file(tmp_path, content), TOY)
    assert 'robot.yaml' in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_clear_errors(tmp_path):
    with pytest.raises(ConfigError, match=r'nothing\.yaml'):
        DispatcherConfig.load(tmp_path / 'nothing.yaml', TOY)
    (tmp_path / 'binary.yaml').write_bytes(b'\xff\xfe\x00\x81')
    with pytest.raises(ConfigError, match=r'binary\.yaml'):
        DispatcherConfig.load(tmp_path / 'binary.yaml', TOY)


def test_a_wrong_value_in_a_file_names_file_and_key(tmp_path):
    path = parameters_file(tmp_path, PARAMETERS | {'dispatch_rate': 0.0})
    with pytest.raises(ConfigError, match=r'robot\.yaml: dispatch_rate: expected a number > 0'):
        DispatcherConfig.load(path, TOY)


# --- the robot that is shipped ----------------------------------------------------------------


def test_the_shipped_r1_lite_has_the_limits_its_file_says():
    raw = yaml.safe_load(R1_LITE_FILE.read_text())['/**']['action_dispatcher']['ros__parameters']
    loaded = DispatcherConfig.load(R1_LITE_FILE, R1_LITE)
    assert loaded.dispatch_rate == raw['dispatch_rate']
    assert loaded.blend_steps == raw['blend_steps']
    for c in R1_LITE.action:
        limits = loaded.components[c.name]
        assert limits.max_velocity.tolist() == raw[f'{c.name}.max_velocity']
        if f'{c.name}.max_acceleration' in raw:
            assert limits.max_acceleration.tolist() == raw[f'{c.name}.max_acceleration']
        if c.kind.is_position:
            pairs = np.stack([limits.lower, limits.upper], axis=1)
            assert pairs.ravel().tolist() == raw[f'{c.name}.position_limits']
            assert limits.max_start_offset == raw[f'{c.name}.max_start_offset']


def test_the_shipped_r1_lite_starts_disarmed_holds_its_arms_and_stops_its_wheels():
    loaded = DispatcherConfig.load(R1_LITE_FILE, R1_LITE)
    assert loaded.require_enable
    for c in R1_LITE.action:
        assert loaded.components[c.name].on_stale == ('hold' if c.kind.is_position else 'zero')
    for wheels in ('torso', 'base'):
        assert np.isfinite(loaded.components[wheels].max_acceleration).all()
    assert loaded.components['base'].max_velocity.max() <= 0.5  # the machine's: 1.5 m/s, 3 rad/s


def test_the_shipped_r1_lite_chassis_gets_zeros_until_deactivated():
    loaded = DispatcherConfig.load(R1_LITE_FILE, R1_LITE)
    assert loaded.components['base'].stop_pub_timeout == 0.0
    assert loaded.components['torso'].stop_pub_timeout == 1.0
