"""What stands where: drawn by the seed alone, apart, in reach, and on varying sides."""

import itertools

import mujoco
import numpy as np
import pytest

from faster_core.sim import R1LiteSim, scene, TASKS

SEEDS = range(1000)


@pytest.fixture(scope='module')
def sim():
    return R1LiteSim()


@pytest.fixture(scope='module')
def layouts():
    return [scene.draw_layout(seed) for seed in SEEDS]


def _side(layout, name):
    return np.sign(layout.posts[name] if name in layout.posts else layout.blocks[name][1])


@pytest.mark.parametrize('seed', [0, 3, 10001])
def test_same_seed_is_the_same_scene_for_every_task(sim, seed):
    poses = []
    for task in TASKS:
        sim.reset(seed, task)
        poses.append(np.concatenate([sim.data.qpos, sim.data.mocap_pos.ravel()]))
    for pose in poses[1:]:
        assert np.array_equal(pose, poses[0])


def test_scene_does_not_depend_on_what_was_simulated_before(sim):
    fresh = R1LiteSim()
    fresh.reset(5, 'pick_red')
    sim.reset(9, 'drive_yellow')
    sim.set_command('base', [0.2, 0.2, 0.3])
    sim.set_command('torso', [0.0, 0.05, 0.0, 0.0])
    for _ in range(20):
        sim.step(0.02)
    sim.reset(5, 'pick_red')
    for robot in (sim, fresh):
        for _ in range(20):
            robot.step(0.02)
    assert np.array_equal(sim.data.qpos, fresh.data.qpos)
    assert np.array_equal(sim.data.qvel, fresh.data.qvel)


def test_different_seeds_place_every_object_elsewhere(layouts):
    for name in scene.BLOCKS:
        places = np.array([layout.blocks[name][:2] for layout in layouts])
        assert len(np.unique(places, axis=0)) == len(places)
        assert places[:, 0].std() > 0.02
    for name in scene.POSTS:
        assert len({layout.posts[name] for layout in layouts}) == len(layouts)


def test_blocks_and_posts_stay_in_their_ranges(layouts):
    for layout in layouts:
        for x, y, yaw in layout.blocks.values():
            assert scene.BLOCK_X[0] <= x <= scene.BLOCK_X[1]
            assert scene.BLOCK_Y[0] <= abs(y) <= scene.BLOCK_Y[1]
            assert abs(yaw) <= 0.1
        for y in layout.posts.values():
            assert scene.POST_Y[0] <= abs(y) <= scene.POST_Y[1]
        assert (np.abs(layout.base) <= [0.02, 0.03, 0.03]).all()
        assert all(np.abs(noise).max() <= 0.04 for noise in layout.arm_noise.values())


def test_blocks_stand_far_enough_apart_for_an_open_hand(layouts):
    # An open hand's fingers reach 60 mm to each side, a block's corners 31 mm.
    for layout in layouts:
        places = [np.array(place[:2]) for place in layout.blocks.values()]
        for a, b in itertools.combinations(places, 2):
            assert np.linalg.norm(a - b) > 0.060 + 0.031


def test_red_and_blue_are_on_opposite_sides_and_each_side_has_a_green_block(layouts):
    for layout in layouts:
        assert _side(layout, 'red_block') == -_side(layout, 'blue_block')
        assert _side(layout, 'left_green_block') == 1
        assert _side(layout, 'right_green_block') == -1
        assert _side(layout, 'yellow_post') == -_side(layout, 'purple_post')


@pytest.mark.parametrize('name', ['red_block', 'yellow_post'])
def test_sides_change_from_seed_to_seed(layouts, name):
    left = np.mean([_side(layout, name) > 0 for layout in layouts])
    assert 0.45 < left < 0.55


def test_side_of_the_post_says_nothing_about_the_side_of_the_block(layouts):
    pairs = [(_side(layout, 'red_block'), _side(layout, 'yellow_post')) for layout in layouts]
    for pair in itertools.product((1, -1), repeat=2):
        assert 0.2 < pairs.count(pair) / len(pairs) < 0.3


def test_task_picked_for_a_seed_says_nothing_about_sides(layouts):
    for i in range(len(TASKS)):
        sides = [_side(layouts[seed], 'red_block') for seed in SEEDS if seed % len(TASKS) == i]
        assert {1, -1} == set(sides)


def test_nothing_touches_at_the_start_and_blocks_come_to_rest_where_they_stand(sim):
    for seed in range(0, 100, 5):
        sim.reset(seed)
        assert all(contact.dist > -1e-6 for contact in sim.data.contact)
        before = sim.world_state()
        for _ in range(10):
            sim.step(0.02)
        after = sim.world_state()
        for name in scene.BLOCKS:
            assert np.linalg.norm(after[name][0] - before[name][0]) < 2e-3


def test_blocks_can_be_moved_by_contact_only(sim):
    model = sim.model
    for name in scene.BLOCKS:
        body = model.body(name).id
        assert model.body_mocapid[body] == -1
        assert model.body_gravcomp[body] == 0
        joint = model.joint(name)
        assert joint.type[0] == mujoco.mjtJoint.mjJNT_FREE
        assert joint.id not in model.actuator_trnid[:, 0]


def test_scenes_that_are_measured_are_pinned():
    # A change here makes every published success rate a rate on other scenes.
    layout = scene.draw_layout(10000)
    assert layout.blocks['red_block'] == pytest.approx((0.528807, -0.185246, -0.041505), abs=1e-6)
    assert layout.posts['yellow_post'] == pytest.approx(0.263974, abs=1e-6)
    assert layout.base == pytest.approx([-0.006495, -0.017460, 0.008044], abs=1e-6)
