"""`faster-vla doctor`: topics that several drivers share, and overrides of QoS."""

import dataclasses

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from doctor_helpers import (
    arrivals,
    changed,
    endpoint,
    healthy,
    heard,
    joint_state,
    only,
    rows,
    small_arm,
)
from rclpy.qos import QoSProfile

from faster_vla_ros.doctor.report import Verdict

pytestmark = pytest.mark.ros


# --- a topic with several publishers ----------------------------------------------------------

ARM, FINGER = ('a', 'b'), ('finger',)
PARTS = {ARM: joint_state(ARM, [0.0, 0.0]), FINGER: joint_state(FINGER, [0.02])}


def shared(arm, ours, fingers):
    """Return a graph in which two drivers share `joint_states`."""
    times = [dataclasses.replace(a, names=ARM) for a in ours]
    times += [dataclasses.replace(a, names=FINGER) for a in fingers]
    times.sort(key=lambda a: a.wall)
    graph = healthy(arm)
    both = heard(graph, '/joint_states', messages=PARTS).of('/joint_states')
    both.arrivals = times
    return changed(graph, heard={**graph.heard, '/joint_states': both})


def test_a_driver_that_died_is_not_hidden_by_another_on_the_same_topic(arm):
    once = [
        dataclasses.replace(a, wall=a.wall - 5.0, sent_at=a.sent_at - 5.0)
        for a in arrivals(number=1)
    ]
    row = only(arm, shared(arm, once, arrivals(100.0, number=300)))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'rate', 'arm')
    assert row.found == 'silent for the last 5.0 s on /joint_states'


def test_stamps_of_two_drivers_on_one_topic_are_judged_apart(arm):
    late = arrivals(100.0, number=300, age=0.006)
    graph = shared(arm, arrivals(97.0, number=300), late)
    assert rows(arm, graph) == []
    assert [f.subject for f in rows(arm, graph, Verdict.OK, 'stamps')] == [
        'scene',
        'arm',
        'gripper',
    ]
    twice = shared(arm, sorted([*late, *arrivals(97.0)], key=lambda a: a.wall), late)
    assert [f.subject for f in rows(arm, twice, check='stamps')] == ['arm']


def test_joints_nobody_sends_fail_once_and_the_others_are_judged(arm):
    graph = heard(healthy(arm), '/joint_states', messages={FINGER: PARTS[FINGER]})
    assert {(f.check, f.subject) for f in rows(arm, graph)} == {('values', 'arm')}
    assert [f.subject for f in rows(arm, graph, Verdict.OK, 'rate')] == ['scene', 'gripper']


# --- overrides of QoS -------------------------------------------------------------------------


def overriding(tmp_path, node, text):
    start = f'  {node}:\n    ros__parameters:\n'
    return small_arm(tmp_path, (start, f'{start}      {text}\n'))


@pytest.mark.parametrize(
    ('node', 'text'),
    [
        ('policy_node', 'qos_overrides./scene/image.subscription.speed: 1'),
        ('policy_node', 'qos_overrides./scene/image.reader.depth: 1'),
        ('action_dispatcher', 'qos_overrides./joint_states.subscription.reliability: sure'),
        ('action_dispatcher', 'qos_overrides./cmd_vel.publisher.depth: 0'),
    ],
)
def test_an_override_the_node_would_refuse_fails(tmp_path, node, text):
    arm = overriding(tmp_path, node, text)
    (row,) = [f for f in arm.findings if f.verdict is Verdict.FAIL]
    assert (row.check, row.subject) == ('parameters', node)
    assert text.split(':')[0] in row.found


@pytest.mark.parametrize(
    ('node', 'text', 'check', 'subject'),
    [
        ('policy_node', '/scene/image.subscription.reliability: reliable', 'topic', 'scene'),
        ('policy_node', '/scene/image.subscription.durability: transient_local', 'topic', 'scene'),
        (
            'action_dispatcher',
            '/joint_states.subscription.reliability: reliable',
            'topic',
            'arm +1',
        ),
        ('action_dispatcher', '/cmd_vel.publisher.reliability: best_effort', 'command', 'base'),
    ],
)
def test_an_override_that_makes_us_deaf_or_mute_fails(tmp_path, node, text, check, subject):
    plain = healthy(small_arm(tmp_path))
    arm = overriding(tmp_path, node, f'qos_overrides.{text}')
    strict = endpoint('/base', 'geometry_msgs/msg/Twist', QoSProfile(depth=1))
    row = only(
        arm,
        changed(
            plain, subscriptions={**plain.subscriptions, '/cmd_vel': (strict,)}, parameters={}
        ),
    )
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, check, subject)
    assert 'QoS of' in row.found
