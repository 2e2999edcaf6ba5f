"""Shipped robot files: the nodes accept them, and they stay within what the vendors publish."""

import math

import numpy as np
import pytest
from robot_files import (
    as_dispatcher,
    as_policy_node,
    embodiment_path,
    parameters,
    ROBOTS,
    SHIPPED,
)

pytest.importorskip('rclpy')

import control_msgs_stand_in

from faster_core.embodiment import Embodiment, Kind
from faster_core.errors import ConfigError
from faster_core.sim.robot import make_robot
from faster_vla_ros.graph import GRAPHS
from faster_vla_ros.graph_robots import DUAL_ARM, SINGLE_ARM

pytestmark = pytest.mark.ros
PI = math.pi
# File -> component -> (velocity, acceleration or None where none is published, [lower, upper])
# of the machine, from the sources that the files name; a gripper's range in metres.
_FR3 = {
    'arm': (
        [2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26],
        [10.0] * 7,
        [
            *((-2.7437, 2.7437), (-1.7837, 1.7837), (-2.9007, 2.9007), (-3.0421, -0.1518)),
            *((-2.8065, 2.8065), (0.5445, 4.5169), (-3.0159, 3.0159)),
        ],
    ),
    'gripper': ([0.1], None, [(0.0, 0.04)]),
}
_UR5E = {
    'arm': ([PI] * 6, None, [(-2 * PI, 2 * PI)] * 2 + [(-PI, PI)] + [(-2 * PI, 2 * PI)] * 3),
    'gripper': ([0.075], None, [(0.0, 0.0425)]),
}
_XARM7 = {
    'arm': (
        [2.14] * 7,
        None,
        [
            *((-3.111, 3.111), (-2.059, 2.0944), (-3.111, 3.111), (-0.11, 3.111)),
            *((-3.111, 3.111), (-1.69297, 3.111), (-3.111, 3.111)),
        ],
    ),
    'gripper': ([0.1], None, [(0.0, 0.0425)]),
}
_DEGREES = [(-180, 180), (-106, 72), (-101, 92), (-180, 180), (-107, 128), (-180, 180)]
_VIPERX = ([PI] * 6, [5.0] * 6, [tuple(map(math.radians, pair)) for pair in _DEGREES])
_WIDOWX = (
    [3.375, 3.375, 3.375, 7.0, 7.0, 7.0],
    [3.141596] * 6,
    [(-3.0543, 3.0543), (0.0, PI), (0.0, 2.3562), (-1.5708, 1.5708), (-1.5708, 1.5708), (-PI, PI)],
)


def _both(arm, gripper):
    return {f'{side}_{c}': v for side in ('left', 'right') for c, v in (arm, gripper)}


MACHINES = {
    'franka_fr3': _FR3,
    'ur5e': _UR5E,
    'xarm7': _XARM7,
    'aloha': _both(('arm', _VIPERX), ('gripper', ([1.0], None, [(0.021, 0.057)]))),
    'trossen': _both(('arm', _WIDOWX), ('gripper', ([0.0875], [0.5], [(0.0, 0.044)]))),
}
# What a robot file may say otherwise than the one of the real robot: how it is wired.
WIRING = (
    *('output', 'topic', 'action', 'joints', 'scale', 'offset', 'deadband', 'max_effort'),
    *('feedback.topic', 'feedback.joints', 'feedback.scale', 'feedback.offset'),
)

_LOWERED = ('max_velocity', 'max_acceleration', 'max_start_offset')

all_files = pytest.mark.parametrize('file', SHIPPED)


@pytest.fixture(autouse=True)
def _controllers(monkeypatch):
    """Gripper actions can be configured where control_msgs is missing."""
    control_msgs_stand_in.install(monkeypatch)


def test_every_robot_file_is_tested_here():
    found = {str(p.relative_to(ROBOTS)) for p in ROBOTS.rglob('*.yaml')}
    assert found == set(SHIPPED)


def test_every_robot_of_every_graph_has_its_files():
    for description in GRAPHS.values():
        for robot in description._kind.robots:
            files = [robot.parameter_file, *(s.parameter_file for s in robot.simulated.values())]
            for file in files:
                assert SHIPPED[file] == robot.embodiment


@all_files
def test_the_dispatcher_accepts_the_file_with_its_embodiment(file):
    config = as_dispatcher(file, embodiment_path(SHIPPED[file]))
    embodiment = Embodiment.load(embodiment_path(SHIPPED[file]))
    assert set(config.outputs) == {c.name for c in embodiment.action}
    assert set(config.sources) == {c.name for c in embodiment.action if c.kind.is_position}


@all_files
def test_the_policy_node_accepts_the_file_with_its_embodiment(file):
    config, sources = as_policy_node(file, embodiment_path(SHIPPED[file]))
    assert config['reference_camera'] == config['cameras'][0]
    assert all(source.config.topic for source in sources.values())


@all_files
def test_a_word_that_does_not_exist_is_refused(file):
    """The readers above would otherwise prove nothing."""
    embodiment = embodiment_path(SHIPPED[file])
    first = Embodiment.load(embodiment).action[0].name
    with pytest.raises(ConfigError, match='colour'):
        as_dispatcher(file, embodiment, **{f'{first}.colour': 'red'})
    with pytest.raises(ConfigError, match='colour'):
        as_policy_node(file, embodiment, colour='red')


@all_files
def test_policy_and_dispatcher_read_a_position_alike(file):
    """A chunk starts where the policy saw the robot; the dispatcher compares with its own eyes."""
    embodiment = Embodiment.load(embodiment_path(SHIPPED[file]))
    dispatcher = as_dispatcher(file, embodiment_path(SHIPPED[file])).sources
    policy = as_policy_node(file, embodiment_path(SHIPPED[file]))[1]
    compared = 0
    for c in embodiment.action:
        if not c.kind.is_position:
            continue
        ours, theirs = dispatcher[c.name].config, policy[c.name].config
        for key in ('topic', 'mapping', 'joints', 'size', 'scale', 'offset'):
            assert getattr(ours, key) == getattr(theirs, key), (c.name, key)
        compared += 1
    assert compared >= 2


@all_files
def test_a_commanded_position_is_read_back_as_itself(file):
    config = as_dispatcher(file, embodiment_path(SHIPPED[file]))
    for name, source in config.sources.items():
        _, output = config.outputs[name]
        wire = 0.03 * output.scale + output.offset
        assert wire * source.config.scale + source.config.offset == pytest.approx(0.03), name


@all_files
def test_names_are_relative_so_that_a_namespace_serves_two_robots(file):
    if SHIPPED[file] == 'r1_lite':
        pytest.skip("the vendor's drivers have absolute names")
    for node in ('policy_node', 'action_dispatcher'):
        for key, value in parameters(file, node).items():
            if key.rpartition('.')[2] in ('topic', 'action'):
                assert not value.startswith('/'), key


@pytest.mark.parametrize('robot', MACHINES)
def test_limits_are_below_those_of_the_machine(robot):
    config = as_dispatcher(f'{robot}.yaml', embodiment_path(SHIPPED[f'{robot}.yaml']))
    assert set(MACHINES[robot]) == set(config.rules.components)
    for name, (velocity, acceleration, ranges) in MACHINES[robot].items():
        limits = config.rules.components[name]
        kind = config.embodiment.action_component(name).kind
        assert (limits.max_velocity <= 0.5 * np.array(velocity)).all(), name
        assert np.isfinite(limits.max_acceleration).all(), name
        if acceleration is not None:
            assert (limits.max_acceleration <= np.array(acceleration)).all(), name
        lower, upper = np.array(ranges).T
        assert (limits.lower >= lower - 1e-9).all() and (limits.upper <= upper + 1e-9).all(), name
        if kind is not Kind.GRIPPER_POSITION:
            # What the joint needs to stop on its own, or an end that is one of the work itself.
            free = (limits.upper < upper) & ((limits.lower > lower) | (lower == 0.0))
            assert free.all(), name


def test_the_real_r1_lite_begins_with_lower_limits_and_is_otherwise_what_is_simulated():
    simulated, real = (
        {node: parameters(file, node) for node in ('policy_node', 'action_dispatcher', 'guard')}
        for file in ('r1_lite.yaml', 'r1_lite_hardware.yaml')
    )
    wide, low = simulated.pop('action_dispatcher'), real.pop('action_dispatcher')
    assert real == simulated
    assert low.keys() == wide.keys()
    changed = {name for name in low if low[name] != wide[name]}
    arms = [f'{side}_arm.{what}' for side in ('left', 'right') for what in _LOWERED]
    assert changed == {*arms, 'torso.max_velocity', 'torso.max_acceleration'}
    for name in changed:
        assert (np.array(low[name]) < np.array(wide[name])).all(), name
    for side in ('left', 'right'):  # what docs/robots.md advises to begin with
        assert max(low[f'{side}_arm.max_velocity']) <= 0.8
        assert max(low[f'{side}_arm.max_acceleration']) <= 5.0  # as in the files of other arms
        assert low[f'{side}_arm.max_start_offset'] <= 0.15
    assert max(low['torso.max_velocity'][:2]) <= 0.05


@pytest.mark.parametrize('file', [f for f in SHIPPED if '/' in f])
def test_a_simulated_robot_is_wired_otherwise_but_moves_within_the_same_limits(file):
    real = parameters(file.split('/')[1], 'action_dispatcher')
    simulated = parameters(file, 'action_dispatcher')

    def rules(values):
        return {k: v for k, v in values.items() if k.partition('.')[2] not in WIRING}

    assert rules(simulated) == rules(real)


ON_A_TABLE = [p for r in (*SINGLE_ARM.robots, *DUAL_ARM.robots) for p in r.simulated.values()]


@pytest.mark.parametrize('played', ON_A_TABLE, ids=lambda p: p.parameter_file)
def test_simulated_arms_are_those_of_the_file_and_start_within_its_limits(played):
    pytest.importorskip('mujoco')
    from faster_vla_ros.mujoco_robot import DIALECTS

    choice, file = played.parameters, played.parameter_file
    sim = make_robot(choice['robot'], arm_model=choice['arm_model'])
    rules = as_dispatcher(file, embodiment_path(SHIPPED[file])).rules.components
    named = parameters(file, 'action_dispatcher')
    topics = DIALECTS[choice['dialect']].parameters(sim, choice)
    assert {part.name for part in sim.parts} == set(rules)
    for part in sim.parts:
        at, limits = sim.joint_feedback(part.name)[0], rules[part.name]
        assert tuple(named[f'{part.name}.joints']) == part.joints
        if (controller := topics.get(f'{part.name}.controller')) is not None:
            assert named[f'{part.name}.topic'] == f'{controller.default}/joint_trajectory'
        assert (limits.lower <= at).all() and (at <= limits.upper).all(), part.name


@pytest.mark.parametrize('file', [f for f in SHIPPED if f.startswith('gazebo/')])
def test_gazebo_files_need_standard_controllers_only(file):
    """Topics of joint_trajectory_controller and joint_state_broadcaster: no action, no vendor."""
    for key, value in parameters(file, 'action_dispatcher').items():
        if key.endswith('.output'):
            assert value == 'joint_trajectory'
            component = key.removesuffix('.output')
            topic = parameters(file, 'action_dispatcher')[f'{component}.topic']
            assert topic.endswith('_controller/joint_trajectory')
    for source in parameters(file, 'policy_node')['state_sources']:
        assert parameters(file, 'policy_node')[f'{source}.topic'] == 'joint_states'


@pytest.mark.parametrize('file', [f for f in SHIPPED if f.startswith('isaac/')])
def test_isaac_files_speak_joint_command_and_joint_states(file):
    values = parameters(file, 'action_dispatcher')
    for component in values['components']:
        assert values[f'{component}.output'] == 'joint_state_stream'
        assert values[f'{component}.topic'] == 'joint_command'
    for source in parameters(file, 'policy_node')['state_sources']:
        assert parameters(file, 'policy_node')[f'{source}.topic'] == 'joint_states'


@pytest.mark.parametrize('name', sorted(set(SHIPPED.values()) - {'r1_lite'}))
def test_embodiments_have_the_rate_and_the_horizon_of_their_kind(name):
    embodiment = Embodiment.load(embodiment_path(name))
    kind = (embodiment.action_dim, embodiment.action_frequency, embodiment.action_horizon)
    assert kind in {(8, 15.0, 20), (7, 15.0, 20), (14, 50.0, 50)}
    assert embodiment.state == embodiment.action


def test_no_two_embodiments_are_the_same_robot():
    sums = [Embodiment.load(embodiment_path(n)).checksum for n in set(SHIPPED.values())]
    assert len(set(sums)) == len(sums)
