"""The next inference runs while the chunk before is executed, and the plan is entered at now."""

import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import numpy as np
import policy_node_helpers as h
from rclpy.parameter import Parameter

from faster_core.execution.config import DispatcherConfig
from faster_core.execution.dispatcher import Dispatcher
from faster_core.execution.state import Action
from faster_vla_ros import dispatcher_parameters
from faster_vla_ros.conversions import chunk_from_message

pytestmark = pytest.mark.ros

LATENCY = 0.4


@pytest.fixture(scope='module')
def rules(context):
    """The dispatcher's configuration of the R1 Lite."""
    from rclpy.node import Node

    from faster_core import paths

    node = Node(
        'action_dispatcher',
        context=context,
        use_global_arguments=False,
        enable_rosout=False,
        automatically_declare_parameters_from_overrides=True,
        cli_args=h.arguments(),
        parameter_overrides=h.overrides({'embodiment': str(paths.embodiment_file('r1_lite'))}),
    )
    config = dispatcher_parameters.read(node).rules
    node.destroy_node()
    assert isinstance(config, DispatcherConfig)
    return config


def home(embodiment):
    """A place within all limits from which a constant chunk may start."""
    start = np.zeros(embodiment.action_dim)
    for name, place in (
        ('left_arm', [0.0, 1.0, -1.0, 0.0, 0.0, 0.0]),
        ('right_arm', [0.0, 1.0, -1.0, 0.0, 0.0, 0.0]),
        ('left_gripper', [0.05]),
        ('right_gripper', [0.05]),
    ):
        start[embodiment.action_slices[name]] = place
    return start


def test_next_inference_runs_during_the_motion_and_its_chunk_is_entered_late(rig, rules):
    e = rig.policy.embodiment
    dispatcher, place = Dispatcher(e, rules), home(e)
    rig.policy.values = np.tile(place, (e.action_horizon, 1)).astype(np.float32)

    def now():
        return rig.now() / 1e9

    def feed():
        for c in e.action:
            if c.kind.is_position:
                dispatcher.on_feedback(c.name, place[e.action_slices[c.name]], now())

    feed()
    assert dispatcher.enable(True, now()).success
    rig.follow()
    feed()
    report = dispatcher.on_chunk(chunk_from_message(rig.moving_chunks()[0], e), now())
    assert report.accepted, report.detail
    # The second inference takes long; meanwhile the first chunk is executed.
    rig.policy.gate.clear()
    rig.policy.entered.clear()
    seen = rig.sense() / 1e9
    rig.until(rig.policy.entered.is_set)
    while now() < seen + LATENCY:
        feed()
        tick = dispatcher.tick(now())
        assert tick.state.action is Action.FOLLOW
        rig.spin(0.02)
    assert tick.state.remaining > 0.5
    assert len(rig.moving_chunks()) == 1
    rig.policy.gate.set()
    rig.until(lambda: len(rig.moving_chunks()) == 2)
    arrived = now()
    feed()
    report = dispatcher.on_chunk(chunk_from_message(rig.moving_chunks()[1], e), arrived)
    assert report.accepted, report.detail
    # Rows due before now and one step are dropped: no row is played late.
    late = int((arrived - seen) / e.step_period)
    assert late <= report.rows_dropped <= late + 1
    assert report.rows_dropped >= LATENCY // e.step_period
    assert dispatcher.tick(now()).state.action is Action.FOLLOW


def test_observation_that_came_during_an_inference_is_used_right_after_it(rig):
    rig.follow()
    rig.policy.gate.clear()
    rig.policy.entered.clear()
    rig.sense()
    rig.until(rig.policy.entered.is_set)
    newest = rig.sense()
    rig.until(lambda: rig.node.worker._job is not None)
    rig.policy.gate.set()
    rig.until(lambda: len(rig.moving_chunks()) == 3)
    assert rig.policy.observations[-1].stamp == pytest.approx(newest / 1e9)


def test_inferences_begin_at_least_min_replan_period_apart(context):
    with h.rig(context, min_replan_period=0.5) as rig:
        begun, predict = [], rig.policy.predict

        def noted(observation):
            begun.append(time.perf_counter())
            return predict(observation)

        rig.policy.predict = noted
        rig.say('grasp the cup')
        rig.sense()
        rig.until(lambda: len(begun) == 1)
        rig.sense()
        rig.until(lambda: len(begun) == 2)
        assert begun[1] - begun[0] >= 0.49
        assert rig.node.set_parameters([Parameter('min_replan_period', value=0.0)])[0].successful
        rig.spin(0.6)  # the pause that has begun
        for count in (3, 4):
            rig.sense()
            rig.until(lambda count=count: len(begun) == count)
        assert begun[3] - begun[2] < 0.49


def test_chunks_carry_the_frame_that_the_dispatcher_expects(context):
    with h.rig(context, frame_id='base_footprint') as rig:
        rig.say('grasp the cup')
        rig.sense()
        rig.until(rig.moving_chunks)
        base = rig.moving_chunks()[-1].components[-1]
        assert (base.name, base.frame_id) == ('base', 'base_footprint')
