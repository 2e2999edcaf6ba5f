"""`faster-vla doctor`: faults of cameras and states; a healthy graph has none."""

import collections
import dataclasses

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from doctor_helpers import (
    ARM_URDF,
    arrivals,
    changed,
    END,
    endpoint,
    healthy,
    heard,
    joint_state,
    only,
    publishers,
    r1_lite,
    rows,
    small_arm,
    START,
    topic_of,
)
from rclpy.duration import Duration
from rclpy.qos import QoSProfile

from faster_vla_ros.doctor.report import Verdict
from faster_vla_ros.doctor.snapshot import Heard, Snapshot

pytestmark = pytest.mark.ros
IMAGE = 'sensor_msgs/msg/CompressedImage'
JOINTS = 'sensor_msgs/msg/JointState'


# --- nothing wrong ----------------------------------------------------------------------------


def test_a_healthy_r1_lite_has_neither_warning_nor_failure(r1, fine):
    assert rows(r1, fine) == []


def test_a_healthy_arm_with_names_urdf_and_namespace_has_neither(tmp_path):
    arm = small_arm(tmp_path, urdf=ARM_URDF, namespace='/one')
    graph = healthy(arm)
    assert '/one/joint_states' in graph.heard
    # A joint that turns without end has no limits in the URDF: those of the file are narrower.
    assert rows(arm, graph) == []
    limits = {f.subject: f.found for f in rows(arm, graph, Verdict.OK, 'limits')}
    assert limits == dict.fromkeys(('arm', 'gripper'), 'within those of the URDF')


def test_an_empty_graph_fails_for_every_input_and_command(r1, fine):
    empty = Snapshot(duration=6.5, end=END)
    failed = rows(r1, empty, Verdict.FAIL)
    assert len([f for f in failed if f.check == 'topic']) == len(r1.inputs) == 9
    assert len([f for f in failed if f.check == 'command']) == 6
    assert {f.check for f in failed} == {'topic', 'command', 'interlock', 'node'}


# --- topics -----------------------------------------------------------------------------------


def test_a_missing_topic_is_named_with_others_of_its_type_that_nobody_reads(r1, fine):
    topic = topic_of(r1, 'head')
    graph = publishers(fine, topic)
    other = {'/cam': (endpoint('/driver', IMAGE),)}
    graph = changed(
        graph, topics={**graph.topics, '/cam': (IMAGE,)}, publishers={**graph.publishers, **other}
    )
    row = only(r1, graph)
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'topic', 'head')
    assert topic in row.found
    assert row.advice.endswith('of this type there are /cam')


def test_a_topic_of_another_type_fails(r1, fine):
    topic = topic_of(r1, 'torso')
    row = only(r1, publishers(fine, topic, endpoint('/driver', 'geometry_msgs/msg/Twist')))
    assert (row.verdict, row.expected) == (Verdict.FAIL, JOINTS)
    assert '/driver publishes geometry_msgs/msg/Twist' in row.found


def test_a_publisher_our_subscription_cannot_hear_fails(r1, fine):
    # Ours asks for nothing, so every publisher is heard; one that asks for a deadline is not.
    topic = topic_of(r1, 'torso')
    strict = QoSProfile(depth=1, deadline=Duration(seconds=0.1))
    inputs = tuple(
        dataclasses.replace(i, qos={'policy_node': strict}) if i.topic == topic else i
        for i in r1.inputs
    )
    row = only(dataclasses.replace(r1, inputs=inputs), fine)
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'topic', 'torso')
    assert 'deadline' in row.found


def test_two_publishers_fail_to_be_told_apart_unless_joints_have_names(r1, fine, arm):
    topic = topic_of(r1, 'torso')
    pair = endpoint('/one', JOINTS), endpoint('/two', JOINTS)
    row = only(r1, publishers(fine, topic, *pair))
    assert row.verdict is Verdict.WARN
    assert '/one, /two' in row.found
    assert rows(arm, publishers(healthy(arm), '/joint_states', *pair)) == []


@pytest.mark.parametrize(
    ('rate', 'verdict'),
    [(15.0, None), (10.6, None), (10.4, Verdict.WARN), (5.5, Verdict.WARN), (4.0, Verdict.FAIL)],
)
def test_a_slow_camera_is_warned_of_and_one_that_is_always_stale_fails(r1, fine, rate, verdict):
    # 15 steps per second, of which 0.7; stale after 0.2 s.
    graph = heard(fine, topic_of(r1, 'head'), arrivals=arrivals(rate))
    found = rows(r1, graph, check='rate')
    assert [f.verdict for f in found] == ([verdict] if verdict else [])


def test_a_silent_camera_fails(r1, fine):
    row = only(r1, changed(fine, heard={**fine.heard, topic_of(r1, 'head'): Heard()}))
    assert (row.verdict, row.check) == (Verdict.FAIL, 'rate')
    assert row.found.startswith('0 messages in 6.5 s')


def test_a_long_silence_among_quick_messages_is_warned_of(r1, fine):
    quick = arrivals(100.0)
    late = [dataclasses.replace(a, wall=a.wall + 0.15, sent_at=a.sent_at + 0.15) for a in quick]
    row = only(r1, heard(fine, topic_of(r1, 'torso'), arrivals=quick[:15] + late[15:]))
    assert (row.verdict, row.check) == (Verdict.WARN, 'rate')
    assert 'longest silence 0.16 s' in row.found


def test_an_input_that_died_while_it_was_listened_to_fails(r1, fine):
    # 30 images a second for the first half second, then nothing.
    early = [
        dataclasses.replace(a, wall=a.wall - 6.0, sent_at=a.sent_at - 6.0)
        for a in arrivals(30.0, number=15)
    ]
    row = only(r1, heard(fine, topic_of(r1, 'head'), arrivals=early))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'rate', 'head')
    assert row.found.startswith('silent for the last 6.0 s on /hdas/camera_head')


@pytest.mark.parametrize(
    ('silence', 'verdict'), [(0.09, None), (0.5, Verdict.WARN), (1.1, Verdict.FAIL)]
)
def test_silence_at_the_end_counts_as_any_other(r1, fine, silence, verdict):
    times = [
        dataclasses.replace(a, wall=a.wall - silence, sent_at=a.sent_at - silence)
        for a in arrivals(100.0)
    ]
    found = rows(r1, heard(fine, topic_of(r1, 'torso'), arrivals=times))
    assert [f.verdict for f in found] == ([verdict] if verdict else [])


# --- stamps -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('age', 'verdict'),
    [
        (0.019, None),
        (0.021, Verdict.WARN),
        (0.49, Verdict.WARN),
        (0.51, Verdict.FAIL),
        (-0.019, None),
        (-0.021, Verdict.WARN),
        (-0.049, Verdict.WARN),
        (-0.06, Verdict.FAIL),
        (START, Verdict.FAIL),  # a clock that began at 0
    ],
)
def test_an_offset_of_the_clock_is_judged_by_the_youngest_stamp(r1, fine, age, verdict):
    times = arrivals(age=age)
    # Most messages are late; one is as young as can be.
    for i in range(1, len(times)):
        times[i] = dataclasses.replace(times[i], wall=times[i].wall + 0.03)
    found = rows(r1, heard(fine, topic_of(r1, 'torso'), arrivals=times), check='stamps')
    assert [f.verdict for f in found] == ([verdict] if verdict else [])


def test_an_image_may_be_one_period_older_than_a_state(r1, fine):
    topic = topic_of(r1, 'head')
    assert rows(r1, heard(fine, topic, arrivals=arrivals(20.0, age=0.065))) == []
    row = only(r1, heard(fine, topic, arrivals=arrivals(20.0, age=0.075)))
    assert (row.verdict, row.expected) == (Verdict.WARN, 'at most 70 ms')


@pytest.mark.parametrize(
    ('stamps', 'verdict', 'text'),
    [
        ([0.0] * 30, Verdict.FAIL, '30 of 30 stamps were never set'),
        ([START] * 30, Verdict.FAIL, '29 repeat'),
        ([START + i for i in range(29, -1, -1)], Verdict.FAIL, '29 run backwards'),
    ],
)
def test_stamps_that_do_not_grow_are_counted(r1, fine, stamps, verdict, text):
    row = only(r1, heard(fine, topic_of(r1, 'torso'), arrivals=arrivals(stamps=stamps)))
    assert row.verdict is verdict
    assert text in row.found


def test_one_stamp_that_repeats_is_a_warning(r1, fine):
    times = arrivals()
    times[5] = dataclasses.replace(times[5], sent_at=times[4].sent_at)
    row = only(r1, heard(fine, topic_of(r1, 'torso'), arrivals=times))
    assert (row.verdict, row.check) == (Verdict.WARN, 'stamps')
    assert '1 repeat the one before and 0 run backwards' in row.found


def test_images_that_are_never_near_those_of_the_reference_camera_make_no_set(r1, fine):
    topic = topic_of(r1, 'wrist_left')
    # At 30 Hz the synchroniser holds the images of a sixth of a second.
    for age, failed in ((0.12, False), (0.35, True)):
        graph = heard(fine, topic, arrivals=arrivals(age=age))
        found = [f for f in rows(r1, graph, Verdict.FAIL, 'stamps') if 'no set' in f.found]
        assert [f.subject for f in found] == ['wrist_left'] * failed


def test_three_cameras_of_which_no_two_are_far_apart_may_make_no_set(r1, fine):
    graph = fine
    for name, age in (('wrist_left', 0.042), ('head', 0.002), ('wrist_right', -0.038)):
        slow = arrivals(rate=2.0, number=8, age=age)
        graph = heard(graph, topic_of(r1, name), arrivals=slow)
    assert 'no set' in ' '.join(f.found for f in rows(r1, graph, Verdict.FAIL, 'stamps'))


def test_stamps_that_nobody_uses_are_not_judged(tmp_path):
    received = r1_lite(
        tmp_path,
        ('reference_camera: "head"', 'reference_camera: "head"\n      use_receive_time: true'),
    )
    graph = heard(
        healthy(received), topic_of(received, 'torso'), arrivals=arrivals(stamps=[0.0] * 30)
    )
    assert rows(received, graph) == []


def test_feedback_is_judged_by_stamps_that_never_change_although_their_time_is_not_used(tmp_path):
    received = r1_lite(
        tmp_path,
        ('reference_camera: "head"', 'reference_camera: "head"\n      use_receive_time: true'),
    )

    def judged(name):
        stuck = arrivals(stamps=[START] * 30)
        return rows(received, heard(healthy(received), topic_of(received, name), arrivals=stuck))

    (row,) = judged('left_arm')
    assert (row.verdict, row.check) == (Verdict.FAIL, 'stamps')
    assert 'all 30 messages have the same stamp' in row.found
    assert judged('torso') == []  # the dispatcher does not read it


def test_simulated_stamps_are_compared_with_the_simulated_clock(r1, fine):
    simulated = {n: p | {'use_sim_time': True} for n, p in fine.parameters.items()}
    clock = {'/clock': (endpoint('/simulator', 'rosgraph_msgs/msg/Clock'),)}
    stamped = {
        t: dataclasses.replace(
            h, arrivals=[dataclasses.replace(a, sent_at=a.sent_at - START + 1) for a in h.arrivals]
        )
        for t, h in fine.heard.items()
    }
    graph = changed(fine, parameters=simulated, publishers=fine.publishers | clock, heard=stamped)
    # One second ahead of the clock.
    assert {f.check for f in rows(r1, graph)} == {'stamps'}
    assert all('998 ms in the future' in f.found for f in rows(r1, graph))
    failed = rows(r1, changed(graph, publishers=fine.publishers), check='clock')
    assert 'waits for simulated time and nobody publishes it' in failed[0].found


# --- pictures ---------------------------------------------------------------------------------


def test_an_image_that_is_refused_fails_with_the_reason(r1, fine):
    why = collections.Counter({"camera head: encoding '16UC1' has more than 8 bits": 3})
    row = only(r1, heard(fine, topic_of(r1, 'head'), refused=why))
    assert (row.verdict, row.check) == (Verdict.FAIL, 'picture')
    assert row.found.startswith('3 of 30 refused: camera head: encoding')


def test_an_image_that_cannot_be_decoded_fails(r1, fine):
    row = only(r1, heard(fine, topic_of(r1, 'head'), undecodable='camera head: not an image'))
    assert (row.verdict, row.found) == (Verdict.FAIL, 'camera head: not an image')


def test_sizes_that_change_fail_and_small_ones_are_warned_of(r1, fine):
    sizes = collections.Counter({(640, 480): 20, (320, 240): 10})
    row = only(r1, heard(fine, topic_of(r1, 'head'), sizes=sizes))
    assert (row.verdict, row.found) == (Verdict.FAIL, 'sizes change: 640 x 480, 320 x 240')
    row = only(r1, heard(fine, topic_of(r1, 'head'), sizes=collections.Counter({(160, 90): 30})))
    assert row.verdict is Verdict.WARN
    assert 'at least 96 pixels' in row.expected
    same = heard(fine, topic_of(r1, 'head'), sizes=collections.Counter({(96, 96): 30}))
    assert rows(r1, same) == []


def test_two_cameras_with_the_same_picture_are_warned_of(r1, fine):
    graph = heard(fine, topic_of(r1, 'head'), pictures={7, 8})
    graph = heard(graph, topic_of(r1, 'wrist_left'), pictures={8, 9})
    row = only(r1, graph)
    assert (row.verdict, row.subject) == (Verdict.WARN, 'head')
    assert row.found == '1 of 2 different pictures are those of wrist_left'


def test_a_left_component_with_a_right_topic_is_warned_of(tmp_path):
    swapped = r1_lite(
        tmp_path,
        (
            'wrist_left.topic: "/hdas/camera_wrist_left/',
            'wrist_left.topic: "/hdas/camera_hand_right/',
        ),
    )
    row = only(swapped, healthy(swapped))
    assert (row.verdict, row.check, row.subject) == (Verdict.WARN, 'sides', 'wrist_left')


# --- values -----------------------------------------------------------------------------------


def test_a_message_of_another_length_fails_with_its_names(r1, fine):
    graph = heard(
        fine, topic_of(r1, 'torso'), messages={('x', 'y'): joint_state('xy', [0.0, 0.0])}
    )
    row = only(r1, graph)
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'values', 'torso')
    assert row.found == 'torso: 2 values of position, expected 4; the messages name x, y'


def test_a_joint_that_is_missing_fails(arm):
    names = ('a', 'finger')
    graph = heard(healthy(arm), '/joint_states', messages={names: joint_state(names, [0.0, 0.02])})
    failed = rows(arm, graph)
    assert {(f.verdict, f.check, f.subject) for f in failed} == {(Verdict.FAIL, 'values', 'arm')}
    assert 'no position of b' in failed[0].found


def test_joints_may_come_in_several_messages_and_any_order(arm):
    parts = {
        ('b', 'a'): joint_state('ba', [0.2, 0.1]),
        ('wheel',): joint_state(['wheel'], [0.0]),
        ('finger',): joint_state(['finger'], [0.02]),
    }
    graph = heard(healthy(arm), '/joint_states', messages=parts)
    assert rows(arm, graph) == []
    found = {f.subject: f.found for f in rows(arm, graph, Verdict.OK, 'values')}
    assert found == {'arm': '0.100, 0.200', 'gripper': '0.020'}


def test_names_that_contradict_an_order_taken_by_index_fail(r1, fine):
    names = ('joint2', 'joint1', 'joint3', 'joint4', 'joint5', 'joint6')
    topic = topic_of(r1, 'left_arm')
    values = next(iter(fine.of(topic).messages.values())).position
    graph = heard(fine, topic, messages={names: joint_state(names, values)})
    row = only(r1, graph)
    assert (row.verdict, row.check) == (Verdict.FAIL, 'values')
    assert 'by_index, but the messages name joint2, joint1' in row.found


def test_joints_in_another_order_than_the_embodiment_fail(tmp_path):
    arm = small_arm(
        tmp_path, ('arm.max_velocity', 'arm.feedback.joints: ["b", "a"]\n      arm.max_velocity')
    )
    failed = rows(arm, healthy(arm), check='order')
    assert {f.verdict for f in failed} == {Verdict.FAIL}
    assert {f.found for f in failed} >= {'arm.feedback.joints: b, a'}
    assert 'the order of embodiment: a, b' in {f.expected for f in failed}


def test_other_joints_measured_than_commanded_are_warned_of(tmp_path):
    arm = small_arm(
        tmp_path, ('arm.topic: "arm', 'arm.feedback.joints: ["c", "d"]\n      arm.topic: "arm')
    )
    found = rows(arm, healthy(arm), check='order')
    assert {f.verdict for f in found} == {Verdict.WARN}
    assert any('the joints of arm.joints of policy_node: a, b' in f.expected for f in found)


def test_a_scale_given_to_one_part_only_fails_though_both_can_be_read(tmp_path):
    arm = small_arm(
        tmp_path, ('arm.max_velocity', 'arm.feedback.scale: 2.0\n      arm.max_velocity')
    )
    names = ('a', 'b', 'finger')
    graph = heard(
        healthy(arm), '/joint_states', messages={names: joint_state(names, [0.1, 0.2, 0.02])}
    )
    row = only(arm, graph)
    assert (row.verdict, row.check) == (Verdict.FAIL, 'agreement')
    assert row.found == 'the policy reads 0.100, 0.200, the dispatcher 0.200, 0.400'


@pytest.mark.parametrize(
    ('half_ranges', 'verdict'),
    [(1.4, None), (1.6, Verdict.WARN), (19.9, Verdict.WARN), (20.1, Verdict.FAIL)],
)
def test_a_state_outside_the_data_is_judged_in_half_ranges(r1, fine, half_ranges, verdict):
    columns = r1.embodiment.state_slices['torso']
    statistics = r1.checkpoint.statistics
    values = statistics.centre[columns].astype(float)
    values[1] += half_ranges * statistics.half_range[columns][1]
    names = tuple('pqrs')
    graph = heard(fine, topic_of(r1, 'torso'), messages={names: joint_state(names, values)})
    found = rows(r1, graph)
    assert [(f.verdict, f.subject) for f in found] == ([(verdict, 'torso')] if verdict else [])
    assert all('torso2 is' in f.found for f in found)
