"""Simulated time that jumps, and several policy nodes in one graph."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from goal_helpers import Client, Result, start
import policy_node_helpers as h
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from faster_vla_msgs.msg import PolicyStatus
from faster_vla_ros.conversions import stamp_from_seconds

pytestmark = pytest.mark.ros


class Simulation:
    """A clock that stands at the time it was set to."""

    def __init__(self, rig):
        self._rig = rig
        self._clock = rig.robot.create_publisher(Clock, '/clock', 10)
        rig.until(self._clock.get_subscription_count)

    def set(self, seconds):
        clock = self._rig.node.get_clock()

        def there():
            self._clock.publish(Clock(clock=stamp_from_seconds(seconds)))
            return abs(clock.now().nanoseconds / 1e9 - seconds) < 1e-6

        self._rig.until(there)

    def sense(self, seconds):
        """Set the clock and publish one set of inputs of that time."""
        self.set(seconds)
        return self._rig.sense(round(seconds * 1e9))


@pytest.fixture
def simulated(context):
    with h.rig(context, use_sim_time=True) as r:
        yield r, Simulation(r)


def jumps(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if 'buffers cleared' in line]


@pytest.mark.parametrize(
    ('start', 'then', 'expected'),
    [(100.0, 3.0, 'jumped back by 97.2'), (100.0, 5000.0, 'jumped forward by 4899.8')],
)
def test_jump_of_the_clock_drops_what_is_under_way_says_so_once_and_work_goes_on(
    simulated, capfd, start, then, expected
):
    rig, simulation = simulated
    simulation.set(start)
    rig.say('grasp the cup')
    simulation.sense(start + 0.1)
    rig.until(rig.moving_chunks)
    capfd.readouterr()
    # An inference that is under way belongs to the old time.
    rig.policy.gate.clear()
    rig.policy.entered.clear()
    simulation.sense(start + 0.2)
    rig.until(rig.policy.entered.is_set)
    simulation.set(then)
    assert not rig.node.inputs._newest
    rig.policy.gate.set()
    rig.spin(0.3)
    assert len(rig.moving_chunks()) == 1
    simulation.sense(then + 0.1)
    rig.until(lambda: len(rig.moving_chunks()) == 2)
    assert rig.policy.observations[-1].stamp == pytest.approx(then + 0.1)
    assert rig.node.instruction == 'grasp the cup'
    found = jumps(capfd)
    assert len(found) == 1
    assert expected in found[0]
    assert '[INFO]' in found[0]


def test_jump_of_the_clock_is_not_taken_for_missing_chunks(simulated):
    rig, simulation = simulated
    simulation.set(100.0)
    handle = start(rig, Client(rig))
    simulation.sense(100.1)
    rig.until(rig.moving_chunks)
    simulation.set(5000.0)
    rig.spin(0.5)
    goal = rig.node.goals._goal
    assert goal is not None
    assert not goal.end.done()
    handle.cancel_goal_async()
    rig.until(goal.end.done)
    assert goal.end.result() == (Result.PREEMPTED, 'cancelled')


def test_steps_of_a_simulation_are_no_jumps(simulated, capfd):
    rig, simulation = simulated
    simulation.set(10.0)
    rig.say('grasp the cup')
    capfd.readouterr()
    for k in range(1, 4):
        simulation.sense(10.0 + 0.5 * k)
        rig.until(lambda k=k: len(rig.moving_chunks()) == k)
    assert not jumps(capfd)


def test_hold_and_status_carry_simulated_time(simulated):
    rig, simulation = simulated
    simulation.set(50.0)
    rig.say('grasp the cup')
    simulation.sense(50.1)
    rig.until(rig.moving_chunks)
    simulation.set(50.2)
    rig.say('')
    rig.until(lambda: rig.chunks[-1].num_steps == 0)
    assert rig.chunks[-1].header.stamp == stamp_from_seconds(50.2)
    assert rig.status.header.stamp.sec == 50


def test_goals_end_by_cancel_and_by_their_time_while_the_clock_stands_still(simulated):
    rig, simulation = simulated
    simulation.set(10.0)
    client = Client(rig)
    handle = start(rig, client)
    handle.cancel_goal_async()
    assert client.result(handle)[1].error_code == Result.PREEMPTED
    assert client.run(limit=0.3)[1].error_code == Result.TIME_LIMIT_REACHED


def test_without_a_clock_inputs_grow_stale_and_a_goal_runs_out_of_chunks(context):
    options = {'use_sim_time': True, 'observation_timeout': 0.5, 'head.timeout': 0.1}
    with h.rig(context, **options) as rig:
        client = Client(rig)
        handle = start(rig, client)
        rig.wait_status(PolicyStatus.STATE_STALE_OBSERVATION, 'head (/head): no message yet')
        assert client.result(handle)[1].error_code == Result.OBSERVATION_TIMEOUT


def test_simulation_slower_than_real_time_makes_nothing_late(context):
    options = {'use_sim_time': True, 'observation_timeout': 0.4, 'head.timeout': 0.2}
    with h.rig(context, **options) as rig:
        simulation = Simulation(rig)
        simulation.set(10.0)
        rig.instruction.publish(String(data='grasp the cup'))
        rig.until(lambda: rig.node.instructions.last)
        simulation.sense(10.05)
        rig.until(rig.moving_chunks)
        assert rig.call(Trigger, 'start_instruction').success
        rig.statuses.clear()
        rig.spin(1.0)
        simulation.set(10.15)
        assert rig.node.goals.running
        stale = PolicyStatus.STATE_STALE_OBSERVATION
        assert stale not in [s.state for s in rig.statuses]
        simulation.set(10.3)
        rig.wait_status(stale, 'head (/head): no message for 0.2 s')


def test_two_policy_nodes_in_two_namespaces_do_not_hear_each_other(context):
    with h.rig(context, namespace='/left') as left, h.rig(context, namespace='/right') as right:
        left.say('grasp the cup')
        left.sense()
        left.until(left.moving_chunks)
        right.spin(0.3)
        assert right.node.instruction == ''
        assert not right.chunks
        assert not right.policy.observations
        right.say('grasp the bowl')
        right.sense()
        right.until(right.moving_chunks)
        left.spin(0.3)
        assert [c.instruction for c in left.chunks] == ['grasp the cup']
        assert [c.instruction for c in right.chunks] == ['grasp the bowl']
        assert left.call(SetBool, 'pause', data=True).success
        assert left.node.instructions.paused
        assert not right.node.instructions.paused
        # Motion is asked of the dispatcher of the same namespace.
        enable = left.node.resolve_service_name(left.node.config['enable_service'])
        assert enable == '/left/action_dispatcher/enable'
        assert left.node.goals._state.topic_name == '/left/action_dispatcher/state'
