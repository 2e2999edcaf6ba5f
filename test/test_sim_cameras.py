"""What the simulated cameras see, and that a picture needs nothing but the pose."""

import mujoco
import numpy as np
import pytest

from faster_core.sim import R1LiteSim, scene

CAMERAS = ('head', 'wrist_left', 'wrist_right')


@pytest.fixture(scope='module')
def robot():
    sim = R1LiteSim(image_size=96)
    yield sim
    sim.close()


@pytest.fixture
def sim(robot):
    robot.reset(0, 'pick_red')
    return robot


def _share(image, colour):
    """Return the share of pixels in which one channel (or pair) of a colour stands out."""
    pixels = image.astype(int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    masks = {
        'red': red - np.maximum(green, blue) > 60,
        'green': green - np.maximum(red, blue) > 60,
        'blue': blue - np.maximum(red, green) > 60,
        'yellow': np.minimum(red, green) - blue > 110,
        'purple': np.minimum(red, blue) - green > 60,
    }
    return masks[colour].mean()


@pytest.mark.parametrize('camera', [*CAMERAS, 'observer'])
def test_every_camera_gives_a_picture_in_which_something_is_seen(sim, camera):
    image = sim.render(camera)
    assert (image.dtype, image.shape) == (np.uint8, (96, 96, 3))
    assert image.std(axis=(0, 1)).min() > 10


def test_head_camera_renders_the_vendors_size_too(sim):
    image = sim.render('head', (1280, 720))
    assert image.shape == (720, 1280, 3)
    assert image.std() > 10
    assert sim.render('head').shape == (96, 96, 3)


def test_unknown_camera_is_refused(sim):
    with pytest.raises(ValueError, match='chest'):
        sim.render('chest')


@pytest.mark.parametrize('seed', range(0, 40, 4))
def test_head_camera_sees_every_block_and_post_at_the_start(sim, seed):
    sim.reset(seed)
    image = sim.render('head')
    for colour in ('red', 'green', 'blue', 'yellow', 'purple'):
        # A block covers 40 to 60 of 9216 pixels, its dark sides do not count.
        assert _share(image, colour) > 15 / 9216, colour


def test_object_moved_within_view_changes_the_head_image(sim):
    before = sim.render('head')
    sim.data.joint('red_block').qpos[1] *= 0.7
    mujoco.mj_forward(sim.model, sim.data)
    changed = np.abs(sim.render('head').astype(int) - before).max(axis=2) > 40
    assert 20 < changed.sum() < 400


def test_same_scene_is_the_same_picture_whatever_the_task(sim):
    pictures = []
    for task in ('pick_red', 'drive_purple'):
        sim.reset(4, task)
        pictures.append(sim.render('head'))
    assert np.array_equal(*pictures)


def test_wrist_camera_moves_with_its_own_arm(sim):
    before = {camera: sim.render(camera) for camera in CAMERAS}
    sim.set_command('left_arm', scene.ARM_HOME['left'] + [0.15, 0, 0, 0, 0, 0])
    for _ in range(50):
        sim.step(0.02)
    difference = {
        camera: np.abs(sim.render(camera).astype(int) - image).mean()
        for camera, image in before.items()
    }
    assert difference['wrist_left'] > 5.0
    assert difference['wrist_right'] < 1.0


def test_gripper_opening_is_seen_by_its_wrist_camera(sim):
    before = sim.render('wrist_right')
    sim.set_command('right_gripper', [0.0])
    for _ in range(50):
        sim.step(0.02)
    assert np.abs(sim.render('wrist_right').astype(int) - before).mean() > 2.0


def test_pose_shown_by_another_simulator_gives_the_same_picture(sim):
    sim.set_command('torso', [0.0, 0.05, 0.0, 0.0])
    sim.set_command('base', [0.0, 0.1, 0.0])
    for _ in range(25):
        sim.step(0.02)
    eyes = R1LiteSim(image_size=96)
    eyes.reset(8)
    try:
        eyes.show(sim.pose())
        for camera in CAMERAS:
            # mj_step leaves body poses one physics step (2 ms) behind the joints.
            difference = np.abs(eyes.render(camera).astype(int) - sim.render(camera))
            assert (difference.max(axis=2) > 40).mean() < 0.01
    finally:
        eyes.close()


def test_rendering_does_not_move_the_robot(sim):
    before = np.concatenate([sim.data.qpos, sim.data.qvel, [sim.time]])
    for camera in CAMERAS:
        sim.render(camera)
    assert np.array_equal(np.concatenate([sim.data.qpos, sim.data.qvel, [sim.time]]), before)


def test_renderers_come_back_after_close(sim):
    before = sim.render('head')
    sim.close()
    sim.close()
    assert np.array_equal(sim.render('head'), before)
