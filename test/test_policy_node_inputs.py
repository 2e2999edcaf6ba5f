"""What the policy node does with good and bad inputs: either a chunk, or a reason."""

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import policy_node_helpers as h
from sensor_msgs.msg import CompressedImage

from faster_vla_msgs.msg import InferenceTiming, PolicyStatus

pytestmark = pytest.mark.ros

STALE = PolicyStatus.STATE_STALE_OBSERVATION


def test_chunk_carries_stamp_of_the_reference_image_to_the_nanosecond(rig):
    rig.say('grasp the cup')
    stamp = rig.now() // 1000 * 1000 + 123
    others = {c: h.image(stamp + 1_000_000) for c in ('wrist_left', 'wrist_right')}
    rig.sense(stamp, images=others)
    rig.until(rig.moving_chunks)
    chunk = rig.moving_chunks()[0]
    found = chunk.header.stamp.sec * 10**9 + chunk.header.stamp.nanosec
    assert found == stamp
    assert chunk.num_steps == 32
    assert chunk.instruction == 'grasp the cup'
    assert chunk.embodiment_checksum == rig.policy.embodiment.checksum
    assert [c.name for c in chunk.components] == [c.name for c in rig.policy.embodiment.action]
    assert not any(chunk.goal_id.uuid)
    assert rig.wait_status(PolicyStatus.STATE_RUNNING).num_chunks_published == 1


def test_state_is_taken_by_index_scaled_and_in_the_order_of_the_embodiment(rig):
    rig.follow()
    np.testing.assert_allclose(rig.policy.observations[-1].state, h.STATE, atol=1e-6)


def test_timing_is_sent_only_to_those_who_listen(rig):
    rig.follow()
    timings = []
    rig.robot.create_subscription(InferenceTiming, '/policy_node/timing', timings.append, 10)
    rig.until(lambda: rig.node.count_subscribers('/policy_node/timing'))
    rig.spin(0.3)
    rig.sense()
    rig.until(lambda: timings)
    assert len(timings) == 1
    rig.until(lambda: len(rig.moving_chunks()) == 2)
    timing, chunk = timings[0], rig.moving_chunks()[1]
    assert timing.header.stamp == chunk.header.stamp
    assert timing.sequence_id == chunk.sequence_id
    assert list(timing.decode_block_ms) == [0.5, 0.25]
    assert timing.preprocess_ms > 1.0  # the policy's own and the decoding of the images
    assert timing.observation_age_ms > 0.0


@pytest.mark.parametrize('camera', ['head', 'wrist_right'])
def test_missing_camera_is_named_and_nothing_is_published(context, camera):
    with h.rig(context, **{f'{camera}.timeout': 0.2}) as rig:
        rig.say('grasp the cup')
        rig.sense(without=(camera,))
        status = rig.wait_status(STALE, camera)
        assert 'no message yet' in status.message
        assert not rig.moving_chunks()


def test_camera_that_stops_is_named(context):
    with h.rig(context, **{'wrist_left.timeout': 0.3}) as rig:
        rig.follow()
        rig.wait_status(STALE, 'wrist_left (/wrist_left): no message for 0.3 s')


def test_first_good_set_after_a_stale_one_makes_it_run_again(rig):
    rig.say('grasp the cup')
    rig.sense(feedback={'torso': h.joint_state(rig.now(), [float('nan')] * 4)})
    rig.wait_status(STALE, 'torso')
    rig.sense()
    rig.wait_status(PolicyStatus.STATE_RUNNING)


@pytest.mark.parametrize(
    ('source', 'values', 'field', 'expected'),
    [
        ('left_arm', [0.0, 0.0, float('nan'), 0.0, 0.0, 0.0], 'position', 'joint3 is not finite'),
        ('base', [0.0, float('inf'), 0.0], 'velocity', 'chassis2 is not finite'),
        ('torso', [0.0] * 3, 'position', 'torso: 3 values of position, expected 4'),
        ('right_arm', [0.0] * 8, 'position', 'right_arm: 8 values of position, expected 6 or 7'),
        ('base', [0.0] * 6, 'position', 'base: 0 values of velocity, expected 3 or 6'),
    ],
)
def test_unusable_feedback_is_reported_counted_and_publishes_nothing(
    rig, source, values, field, expected
):
    rig.say('grasp the cup')
    rig.sense(feedback={source: h.joint_state(rig.now(), values, field)})
    status = rig.wait_status(STALE, expected)
    rig.until(lambda: rig.status.num_observations_dropped >= 1)
    assert status.instruction == 'grasp the cup'
    assert not rig.moving_chunks()
    assert not rig.policy.observations


def test_feedback_far_from_the_image_is_refused(rig):
    rig.say('grasp the cup')
    stamp = rig.now()
    rig.sense(stamp)
    rig.until(rig.moving_chunks)
    late = stamp + 300_000_000
    for camera in h.CAMERAS:
        rig.cameras[camera].publish(h.image(late))
    assert 'at most 0.05 s are allowed' in rig.wait_status(STALE, '0.300 s from the').message
    assert len(rig.moving_chunks()) == 1


BAD_IMAGES = {
    'unknown encoding': (
        {'encoding': 'yuv999'},
        "'yuv999' is not known; expected one of rgb8",
    ),
    'colours unknown': ({'encoding': '8UC3'}, "encoding '8UC3' is not known"),
    'sixteen bits': ({'encoding': 'rgb16'}, "encoding 'rgb16' has more than 8 bits"),
    'step too small': ({'step': 17}, 'rows of 17 bytes'),
    'step too large': ({'step': 19}, 'rows of 19 bytes'),
    'step zero': ({'step': 0}, 'rows of 0 bytes'),
    'empty': ({'size': (0, 0)}, '0 bytes do not fit 0 x 0'),
}


@pytest.mark.parametrize('case', BAD_IMAGES)
@pytest.mark.parametrize('camera', ['head', 'wrist_left'])
def test_unusable_image_is_reported_counted_and_publishes_nothing(rig, case, camera):
    options, expected = BAD_IMAGES[case]
    rig.say('grasp the cup')
    stamp = rig.now()
    rig.sense(stamp, images={camera: h.image(stamp, **options)})
    assert f'camera {camera}: ' in rig.wait_status(STALE, expected).message
    assert rig.status.num_observations_dropped == 1
    assert rig.status.num_decode_failures == 0
    assert not rig.moving_chunks()


@pytest.mark.parametrize(('back', 'expected'), [(0, 'repeats'), (40_000_000, 'back by 0.040 s')])
def test_stamp_that_repeats_or_runs_back_is_refused(rig, back, expected):
    chunk = rig.follow()
    stamp = chunk.header.stamp.sec * 10**9 + chunk.header.stamp.nanosec - back
    rig.cameras['head'].publish(h.image(stamp))
    status = rig.wait_status(STALE, 'camera head: the stamp ')
    assert expected in status.message
    assert status.num_observations_dropped == 1
    for camera in h.CAMERAS[1:]:
        rig.cameras[camera].publish(h.image(stamp))
    rig.until(lambda: rig.status.num_observations_dropped == 3)
    assert len(rig.policy.observations) == 1
    assert len(rig.moving_chunks()) == 1


def test_camera_that_changes_its_size_is_refused_until_the_next_activation(rig):
    rig.follow()
    stamp = rig.sense(images={'wrist_left': h.image(rig.now(), size=(6, 4))})
    expected = 'camera wrist_left: an image of 4 x 6 pixels, the first one had 6 x 4'
    assert rig.wait_status(STALE, expected).num_observations_dropped == 1
    assert rig.node.inputs.counts()['wrist_left'] == 1
    assert len(rig.moving_chunks()) == 1
    assert rig.node.trigger_deactivate() == rig.node.trigger_activate()
    rig.say('grasp the cup')
    stamp = max(rig.now(), stamp + 100_000_000)
    rig.sense(stamp, images={'wrist_left': h.image(stamp, size=(6, 4))})
    rig.until(lambda: len(rig.moving_chunks()) == 2)


def test_negative_stamp_is_refused_and_the_node_lives_on(rig):
    rig.say('grasp the cup')
    rig.sense(-5 * 10**9)
    rig.wait_status(STALE, 'the stamp -5 s is negative')
    rig.sense()
    rig.until(rig.moving_chunks)


def test_clock_that_was_reset_clears_the_buffers_and_work_goes_on(rig):
    rig.follow()
    start = 3 * 10**9  # a simulation that began anew
    rig.sense(start)
    rig.until(lambda: len(rig.policy.observations) == 2)
    assert rig.policy.observations[-1].stamp == pytest.approx(3.0)
    rig.sense(start + 66_000_000)
    rig.until(lambda: len(rig.moving_chunks()) == 3)


def test_newest_observation_wins_while_inference_is_busy(rig):
    rig.say('grasp the cup')
    rig.policy.gate.clear()
    first = rig.sense()
    rig.until(rig.policy.entered.is_set)
    for k in (1, 2, 3):
        rig.sense(first + k * 50_000_000)
        rig.until(lambda k=k: rig.node.num_dropped == k - 1 and rig.node.worker._job)
    rig.policy.gate.set()
    rig.until(lambda: len(rig.moving_chunks()) == 2)
    assert rig.policy.observations[1].stamp == pytest.approx((first + 150_000_000) / 1e9)
    rig.node.status.publish()
    rig.until(lambda: rig.status.num_observations_dropped == 2)


@pytest.mark.parametrize('damage', [None, 'truncated', 'nonsense', 'empty'])
def test_compressed_images_are_decoded_or_refused(context, damage):
    cv2 = pytest.importorskip('cv2')
    topic = '/hdas/camera_head/left_raw/image_raw_color/compressed'
    options = {'head.transport': 'compressed', 'head.topic': topic}
    with h.rig(context, **options, up=False) as rig:
        rig.robot.destroy_publisher(rig.cameras['head'])
        rig.cameras['head'] = rig.robot.create_publisher(CompressedImage, topic, 10)
        rig.up().say('grasp the cup')
        bgr = np.zeros((24, 32, 3), np.uint8)
        bgr[..., 2] = 200  # red
        data = cv2.imencode('.jpg', bgr)[1].tobytes()
        data = {'truncated': data[:40], 'nonsense': b'GIF89a', 'empty': b''}.get(damage, data)
        stamp = rig.now()
        message = CompressedImage(format='jpeg', data=data, header=h.image(stamp).header)
        rig.sense(stamp, images={'head': message})
        if damage:
            rig.wait_status(STALE, 'camera head: ')
            assert not rig.moving_chunks()
        else:
            rig.until(rig.moving_chunks)
            seen = rig.policy.observations[0].images['head']
            assert seen.shape == (24, 32, 3)
            assert np.abs(seen.astype(int) - [200, 0, 0]).max() < 12
