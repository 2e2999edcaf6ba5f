"""The graphs without policy, as processes: a chunk moves the simulated robot, in every dialect.

And the robot is at rest by the end of its plan if the dispatcher is killed (docs/execution.md).
"""

import contextlib
import dataclasses
import os
import signal
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('mujoco')
pytest.importorskip('faster_vla_msgs')

from robot_files import parameters
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment, Kind
from faster_vla_msgs.msg import ActionChunk as ActionChunkMsg
from faster_vla_msgs.msg import ChunkReport
from faster_vla_ros.conversions import chunk_to_message
from faster_vla_ros.draft import urdf
from faster_vla_ros.graph import GRAPHS
from faster_vla_ros.session import isolated_environment, LATCHED, Session
from faster_vla_ros.supervisor import Supervisor

pytestmark = pytest.mark.ros
DOMAIN = 55
PATIENCE = 90.0
NODES = ['mujoco_robot', 'action_dispatcher']
TURN = 0.1  # rad, of the first joint of every arm
AT_REST = 1e-3  # rad, how far a joint at rest may move
LOADED = 0.25  # s that a busy machine takes for the simulated robot or for us
FIRST = [('dual_arm', {'dialect': 'isaac'})]
REST = [
    ('single_arm', {'robot': 'franka_fr3'}),
    ('single_arm', {'robot': 'ur5e'}),
    ('single_arm', {'robot': 'ur5e', 'dialect': 'isaac'}),
    ('single_arm', {'robot': 'franka_fr3', 'dialect': 'isaac'}),
    ('single_arm', {'robot': 'xarm7'}),
    ('single_arm', {'robot': 'xarm7', 'dialect': 'isaac'}),
    ('dual_arm', {}),
    ('dual_arm', {'robot': 'trossen'}),
    ('dual_arm', {'robot': 'trossen', 'dialect': 'isaac'}),
]


@dataclasses.dataclass
class Seen:
    """Measured positions by joint name: the newest, and all since `history` was cleared."""

    positions: dict = dataclasses.field(default_factory=dict)
    history: list = dataclasses.field(default_factory=list)

    def take(self, message):
        self.positions |= dict(zip(message.name, message.position, strict=True))
        self.history.append(dict(self.positions))


def rows(embodiment, sources, measured):
    """Return rows [H, D] that turn the first joint of every arm and leave the rest alone."""
    values = np.zeros((embodiment.action_horizon, embodiment.action_dim), np.float32)
    for c in embodiment.action:
        joints = sources[c.name]
        values[:, embodiment.action_slices[c.name]] = [measured[j] for j in joints]
        if c.kind is Kind.JOINT_POSITION:
            ramp = np.linspace(0.0, TURN, len(values) + 1)[1:]
            values[:, embodiment.action_slices[c.name].start] += ramp
    return values


class Running:
    """A graph without policy that has started, and a session in its place.

    Attributes:
        start: measured positions before anything moves.
        firsts: first joint of every arm.
        seen: what is measured.
        reports: on chunks.
        sent: number of chunks.
    """

    def __init__(self, graph, run, session):
        self.run, self.session, self.sent = run, session, 0
        dispatcher = graph.node('action_dispatcher')
        self.embodiment = Embodiment.load(dispatcher.parameters['embodiment'])
        given = parameters(dispatcher.parameter_files[0], 'action_dispatcher')
        action = self.embodiment.action
        self.joints = {c.name: given[f'{c.name}.joints'] for c in action}
        self.wanted = {j for names in self.joints.values() for j in names}
        self.firsts = [self.joints[c.name][0] for c in action if c.kind is Kind.JOINT_POSITION]
        self.seen, self.reports, descriptions = Seen(), [], []
        node, space = session.node, graph.namespace
        node.create_subscription(JointState, f'{space}/joint_states', self.seen.take, 10)
        topic = f'{space}/robot_description'
        node.create_subscription(String, topic, descriptions.append, LATCHED)
        topic = f'{space}/action_dispatcher/chunk_report'
        node.create_subscription(ChunkReport, topic, self.reports.append, 10)
        chunks = node.create_publisher(ActionChunkMsg, f'{space}/policy_node/action_chunk', 1)
        self._chunks = chunks
        session.wait_until_ready(graph, PATIENCE, run.check)
        assert session.spin_until(
            lambda: (
                self.wanted <= set(self.seen.positions)
                and chunks.get_subscription_count()
                and descriptions
            ),
            PATIENCE,
            run.check,
        )
        assert self.wanted <= set(urdf.parse(descriptions[-1].data).joints)
        self.start = dict(self.seen.positions)

    def turned(self, share):
        """Whether all arms have turned by a share of the chunk's way."""
        return all(self.seen.positions[j] > self.start[j] + share * TURN for j in self.firsts)

    def turn(self, share):
        """Send chunks until all arms have turned so far; returns when the last row is due (s)."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            self.sent += 1
            period = self.embodiment.step_period
            chunk = ActionChunk(
                values=rows(self.embodiment, self.joints, self.start),
                stamp=self.session.now_ns() * 1e-9 - 0.02,
                first_step_offset=period,
                step_period=period,
                sequence_id=self.sent,
                embodiment_checksum=self.embodiment.checksum,
            )
            self._chunks.publish(chunk_to_message(chunk, self.embodiment))
            if self.session.spin_until(lambda: self.turned(share), 3.0, self.run.check):
                assert self.reports[-1].accepted, self.reports[-1]
                return chunk.row_times[-1]
        pytest.fail(f'not turned: {self.reports[-3:]}, {self.seen.positions}')


@contextlib.contextmanager
def running(name, arguments):
    graph = GRAPHS[name](nodes=NODES, **arguments)
    with (
        Supervisor(graph, environment=isolated_environment(DOMAIN), sink=lambda *_: None) as run,
        Session(domain=DOMAIN, localhost=True) as session,
    ):
        yield Running(graph, run, session)


def moves(name, arguments):
    """Start a graph, send one chunk and wait until all arms have turned."""
    with running(name, arguments) as up:
        up.turn(0.8)
        others = up.wanted - set(up.firsts)
        assert all(abs(up.seen.positions[j] - up.start[j]) < 0.05 for j in others)
        endings = up.run.stop()
    assert all(e.clean for e in endings), endings


@pytest.mark.parametrize(('name', 'arguments'), FIRST, ids=str)
def test_a_chunk_turns_every_arm_of_a_simulated_robot(name, arguments):
    moves(name, arguments)


def test_of_two_robots_under_namespaces_each_follows_its_own_chunks_only():
    with (
        running('single_arm', {'robot': 'franka_fr3', 'namespace': 'robot1'}) as one,
        running('single_arm', {'robot': 'ur5e', 'namespace': 'robot2'}) as two,
    ):
        one.turn(0.8)
        two.session.spin(0.2)
        assert all(abs(two.seen.positions[j] - at) < 0.01 for j, at in two.start.items())
        assert not two.reports
        two.turn(0.8)
        one.session.spin(0.5)
        assert len(one.reports) == one.sent
        assert all(abs(one.seen.positions[j] - one.start[j] - TURN) < 0.01 for j in one.firsts)
        endings = one.run.stop() + two.run.stop()
    assert all(e.clean for e in endings), endings


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'arguments'), REST, ids=str)
def test_a_chunk_turns_every_arm_of_the_other_robots_and_dialects(name, arguments):
    moves(name, arguments)


def test_joints_come_to_rest_by_the_end_of_the_plan_when_the_dispatcher_is_killed():
    """The controller has a trajectory whose last velocity is zero, and nobody has to end it."""
    with running('single_arm', {'robot': 'franka_fr3'}) as up:
        end = up.turn(0.3)
        os.kill(up.run.pid('action_dispatcher'), signal.SIGKILL)
        at_kill = dict(up.seen.positions)
        assert up.session.spin_until(lambda: up.run.ended() is not None, PATIENCE)
        assert up.session.now_ns() * 1e-9 < end, 'killed when the plan had ended already'
        up.session.spin(end + LOADED - up.session.now_ns() * 1e-9)
        up.seen.history.clear()
        up.session.spin(0.5)
        positions = np.array([[p[j] for j in up.joints['arm']] for p in up.seen.history])
    assert len(positions) > 5
    assert np.ptp(positions, axis=0).max() < AT_REST
    # It went on to the end of the plan, not to where it was killed.
    (first,) = up.firsts
    way = positions[-1, up.joints['arm'].index(first)] - up.start[first]
    assert way == pytest.approx(TURN, abs=0.01)
    assert at_kill[first] < up.start[first] + 0.8 * TURN
