"""Cameras of the simulated robot: pictures, falling behind, failing, ending. Without ROS."""

import functools
import threading

import numpy as np
import pytest

pytest.importorskip('mujoco')

import cv2

from faster_core.sim import R1LiteSim
from faster_core.sim.robot import make_robot
from faster_vla_ros.robot_cameras import CameraThread, encode_jpeg

PATIENT = 30.0
SIZES = {'head': (96, 96), 'wrist_left': (64, 48)}


class Deliveries:
    """Takes pictures as the node does; `hold` makes the next one wait until `release`."""

    def __init__(self):
        self.pictures, self.failures = [], []
        self.arrived = threading.Condition()
        self.held, self.free = threading.Event(), threading.Event()
        self.free.set()

    def take(self, camera, stamp, jpeg):
        self.held.set()
        assert self.free.wait(PATIENT)
        with self.arrived:
            self.pictures.append((camera, stamp, jpeg))
            self.arrived.notify_all()

    def wait_for(self, count):
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.pictures) >= count, PATIENT)

    def stamps(self):
        return [stamp for camera, stamp, _ in self.pictures if camera == 'head']


@pytest.fixture
def deliveries():
    return Deliveries()


@pytest.fixture
def cameras(deliveries):
    thread = CameraThread(SIZES, 90, deliveries.take, deliveries.failures.append)
    assert thread.wait_until_ready(PATIENT)
    yield thread
    deliveries.free.set()
    thread.close(PATIENT)


@pytest.fixture(scope='module')
def sim():
    made = R1LiteSim()
    yield made
    made.close()


def decode_rgb(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_every_camera_delivers_its_own_view_in_its_own_size(cameras, deliveries, sim):
    sim.reset(5, 'pick_red')
    cameras.show(sim.pose(), 'now')
    assert deliveries.wait_for(2)
    assert [(c, s) for c, s, _ in deliveries.pictures] == [('head', 'now'), ('wrist_left', 'now')]
    for camera, _, jpeg in deliveries.pictures:
        expected = sim.render(camera, SIZES[camera])
        assert expected.shape[:2] == SIZES[camera][::-1]
        error = np.abs(decode_rgb(jpeg).astype(float) - expected).mean()
        assert error < 6.0, camera


def test_pictures_show_the_pose_given_and_not_the_one_the_robot_has_now(cameras, deliveries, sim):
    sim.reset(5, 'pick_red')
    pose, before = sim.pose(), sim.render('head', (96, 96)).astype(float)
    sim.reset(6, 'pick_red')
    after = sim.render('head', (96, 96)).astype(float)
    cameras.show(pose, 0)
    assert deliveries.wait_for(1)
    shown = decode_rgb(deliveries.pictures[0][2])
    assert np.abs(shown - before).mean() < np.abs(shown - after).mean()


def test_a_camera_thread_that_falls_behind_shows_the_newest_instant(cameras, deliveries, sim):
    deliveries.free.clear()
    cameras.show(sim.pose(), 0)
    assert deliveries.held.wait(PATIENT)  # the thread is busy with instant 0
    for stamp in (1, 2, 3):
        cameras.show(sim.pose(), stamp)
    deliveries.free.set()
    assert deliveries.wait_for(4)
    assert deliveries.stamps() == [0, 3]
    assert cameras.num_skipped == 2


def test_a_failed_delivery_ends_the_thread_and_is_reported(deliveries, sim):
    def fail(*_):
        raise RuntimeError('wire cut')

    cameras = CameraThread(SIZES, 90, fail, deliveries.failures.append)
    assert cameras.wait_until_ready(PATIENT)
    cameras.show(sim.pose(), 0)
    cameras._thread.join(PATIENT)
    assert [str(e) for e in deliveries.failures] == ['wire cut']


def test_a_camera_that_does_not_exist_is_reported_instead_of_waited_for(deliveries, sim):
    cameras = CameraThread({'tail': (96, 96)}, 90, deliveries.take, deliveries.failures.append)
    assert cameras.wait_until_ready(PATIENT)
    cameras._thread.join(PATIENT)
    assert len(deliveries.failures) == 1 and 'tail' in str(deliveries.failures[0])
    # Physics goes on showing until the node ends: that must not block.
    for stamp in range(3):
        cameras.show(sim.pose(), stamp)
    cameras.close()


def test_close_drops_what_waits_and_ends_the_thread(deliveries, sim):
    cameras = CameraThread(SIZES, 90, deliveries.take, deliveries.failures.append)
    assert cameras.wait_until_ready(PATIENT)
    deliveries.free.clear()
    cameras.show(sim.pose(), 0)
    assert deliveries.held.wait(PATIENT)
    cameras.show(sim.pose(), 1)
    threading.Timer(0.1, deliveries.free.set).start()
    cameras.close(PATIENT)
    assert not cameras._thread.is_alive()
    assert deliveries.stamps() == [0] and deliveries.failures == []


def test_without_a_quality_pictures_are_arrays_of_any_robot(deliveries):
    build = functools.partial(make_robot, 'dual_arm')
    robot = build()
    cameras = CameraThread(
        {'cam_high': (64, 48)}, None, deliveries.take, deliveries.failures.append, make_sim=build
    )
    assert cameras.wait_until_ready(PATIENT)
    cameras.show(robot.pose(), 7)
    assert deliveries.wait_for(1)
    camera, stamp, image = deliveries.pictures[0]
    assert (camera, stamp) == ('cam_high', 7)
    np.testing.assert_array_equal(image, robot.render('cam_high', (64, 48)))
    cameras.close(PATIENT)
    robot.close()


def test_jpeg_keeps_the_order_of_colours_and_quality_costs_bytes():
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    r, g, b = decode_rgb(encode_jpeg(red, 90)).reshape(-1, 3).mean(axis=0)
    assert r > 190 and g < 10 and b < 10
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    assert len(encode_jpeg(noise, 95)) > 2 * len(encode_jpeg(noise, 30))


@pytest.mark.parametrize('shape', [(0, 0, 3), (4, 4, 2)])
def test_an_image_that_cannot_be_encoded_is_an_error(shape):
    with pytest.raises(ValueError, match='could not encode'):
        encode_jpeg(np.zeros(shape, np.uint8), 90)
