"""Parameters that may change while the node runs: exactly those, checked, applied at once."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import policy_node_helpers as h
from rclpy.parameter import Parameter

from faster_vla_msgs.msg import PolicyStatus
from faster_vla_ros import policy_parameters as p

pytestmark = pytest.mark.ros

STALE = PolicyStatus.STATE_STALE_OBSERVATION
# docs/ros.md: those that are not read-only.
CHANGEABLE = {
    'sync_slop': 0.2,
    'min_replan_period': 0.3,
    'default_instruction': 'grasp the bowl',
    'latency.warn': 0.1,
    'latency.error': 0.9,
    'input_rate.warn_ratio': 0.5,
} | {f'{name}.timeout': 7.0 for name in (*h.CAMERAS, *h.SOURCES)}


def change(rig, **values):
    """Set parameters at once; double underscores are dots. Returns the answer."""
    named = {k.replace('__', '.'): v for k, v in values.items()}
    return rig.node.set_parameters_atomically(h.overrides(named))


def test_exactly_the_parameters_of_the_contract_may_change(rig):
    refused, taken = [], []
    names = [*p.TABLE]
    names += [f'{c}.{k}' for c in h.CAMERAS for k in p.CAMERA_TABLE]
    names += [f'{s}.{k}' for s in h.SOURCES for k in p.SOURCE_TABLE]
    for name in names:
        if not rig.node.has_parameter(name):  # optional and not given: nothing can be set
            refused.append(name)
            continue
        value = CHANGEABLE.get(name, rig.node.get_parameter(name).value)
        result = rig.node.set_parameters([Parameter(name, value=value)])[0]
        (taken if result.successful else refused).append(name)
        if not result.successful:
            assert result.reason == f'{name}: fixed while configured'
    assert set(taken) == set(CHANGEABLE)
    assert len(refused) > 60
    assert set(refused) == set(names) - set(CHANGEABLE)


def test_changes_are_in_force_at_once_and_survive_the_next_configure(rig):
    assert change(rig, **{k.replace('.', '__'): v for k, v in CHANGEABLE.items()}).successful

    def check():
        config = rig.node.config
        assert {k: config[k] for k in p.CHANGEABLE} == {k: CHANGEABLE[k] for k in p.CHANGEABLE}
        assert {c.timeout for c in config.cameras.values()} == {7.0}
        assert {s.timeout for s in config.sources.values()} == {7.0}

    check()
    assert rig.node.worker.min_period == 0.3
    rig.node.trigger_deactivate()
    rig.node.trigger_cleanup()
    rig.up()
    check()


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ({'sync_slop': -0.1}, 'sync_slop: expected at least 0.0, found -0.1'),
        ({'sync_slop': float('nan')}, 'sync_slop: expected a finite number'),
        ({'head__timeout': 0.0}, 'head.timeout: expected more than 0.0, found 0.0'),
        ({'torso__timeout': -1.0}, 'torso.timeout: expected more than 0.0'),
        ({'latency__warn': 0.7}, 'latency.warn: expected at most latency.error (0.6 s)'),
        ({'sync_slop': 0.1, 'trigger': 'on_demand'}, 'trigger: fixed while configured'),
        ({'sync_slop': 0.1, 'min_replan_period': -1.0}, 'min_replan_period: expected at least'),
    ],
)
def test_wrong_change_is_refused_whole_with_the_reason(rig, values, expected):
    before = (dict(rig.node.config.values), dict(rig.node.config.cameras))
    result = change(rig, **values)
    assert not result.successful
    assert expected in result.reason
    assert (rig.node.config.values, rig.node.config.cameras) == before
    assert rig.node.get_parameter('sync_slop').value == 0.05


def test_shorter_timeout_of_a_camera_makes_it_stale_and_a_longer_one_does_not(rig):
    rig.follow()
    rig.spin(0.4)
    assert rig.status.state == PolicyStatus.STATE_RUNNING
    assert change(rig, head__timeout=0.1).successful
    rig.wait_status(STALE, 'head (/head): no message for 0.1 s')
    assert change(rig, head__timeout=60.0, torso__timeout=0.1).successful
    rig.wait_status(STALE, 'torso (/hdas/feedback_torso): no message for 0.1 s')


def test_wider_slop_lets_pass_what_was_refused(rig):
    rig.say('grasp the cup')
    stamp = rig.sense(without=h.CAMERAS)

    def images(later):
        for camera in h.CAMERAS:
            rig.cameras[camera].publish(h.image(stamp + later))

    images(100_000_000)
    rig.wait_status(STALE, 'at most 0.05 s are allowed')
    assert change(rig, sync_slop=0.3).successful
    rig.sense(stamp + 20_000_000, without=h.CAMERAS)
    images(200_000_000)
    rig.until(rig.moving_chunks)


def test_wider_slop_also_matches_cameras_that_are_further_apart(rig):
    rig.say('grasp the cup')

    def sense(stamp):
        late = {c: h.image(stamp + 150_000_000) for c in ('wrist_left', 'wrist_right')}
        return rig.sense(stamp, images=late)

    stamp = sense(rig.now())
    rig.spin(0.3)
    assert not rig.policy.observations
    assert change(rig, sync_slop=0.3).successful
    sense(stamp + 400_000_000)
    rig.until(rig.moving_chunks)
    assert rig.policy.observations[0].stamp == pytest.approx(stamp / 1e9 + 0.4)


def test_default_instruction_is_that_of_the_next_activation(rig):
    assert change(rig, default_instruction='grasp the bowl').successful
    rig.spin(0.2)
    assert rig.node.instruction == ''
    rig.node.trigger_deactivate()
    rig.node.trigger_activate()
    assert rig.node.instruction == 'grasp the bowl'
