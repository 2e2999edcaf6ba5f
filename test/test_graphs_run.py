"""The graphs without policy, as processes: a chunk moves the simulated robot, in every dialect."""

import dataclasses
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
FIRST = [
    ('single_arm', {'robot': 'franka_fr3', 'namespace': 'robot1'}),
    ('dual_arm', {'dialect': 'isaac'}),
]
REST = [
    ('single_arm', {'robot': 'ur5e'}),
    ('single_arm', {'robot': 'ur5e', 'dialect': 'isaac'}),
    ('single_arm', {'robot': 'franka_fr3', 'dialect': 'isaac'}),
    ('dual_arm', {}),
]


@dataclasses.dataclass
class Seen:
    """The newest measured positions by joint name."""

    positions: dict = dataclasses.field(default_factory=dict)

    def take(self, message):
        self.positions |= dict(zip(message.name, message.position, strict=True))


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


def moves(name, arguments):
    """Start a graph, send one chunk and wait until all arms have turned."""
    graph = GRAPHS[name](nodes=NODES, **arguments)
    dispatcher = graph.node('action_dispatcher')
    embodiment = Embodiment.load(dispatcher.parameters['embodiment'])
    given = parameters(dispatcher.parameter_files[0], 'action_dispatcher')
    joints = {c.name: given[f'{c.name}.joints'] for c in embodiment.action}
    seen, reports, descriptions = Seen(), [], []
    with (
        Supervisor(graph, environment=isolated_environment(DOMAIN), sink=lambda *_: None) as run,
        Session(domain=DOMAIN, localhost=True) as session,
    ):
        node, space = session.node, graph.namespace
        node.create_subscription(JointState, f'{space}/joint_states', seen.take, 10)
        topic = f'{space}/robot_description'
        node.create_subscription(String, topic, descriptions.append, LATCHED)
        topic = f'{space}/action_dispatcher/chunk_report'
        node.create_subscription(ChunkReport, topic, reports.append, 10)
        chunks = node.create_publisher(ActionChunkMsg, f'{space}/policy_node/action_chunk', 1)
        session.wait_until_ready(graph, PATIENCE, run.check)
        wanted = {j for names in joints.values() for j in names}
        assert session.spin_until(
            lambda: (
                wanted <= set(seen.positions) and chunks.get_subscription_count() and descriptions
            ),
            PATIENCE,
            run.check,
        )
        assert wanted <= set(urdf.parse(descriptions[-1].data).joints)
        start = dict(seen.positions)
        firsts = [joints[c.name][0] for c in embodiment.action if c.kind is Kind.JOINT_POSITION]

        def turned():
            return all(seen.positions[j] > start[j] + 0.8 * TURN for j in firsts)

        began = time.monotonic()
        for sequence in range(1, 50):
            chunk = ActionChunk(
                values=rows(embodiment, joints, start),
                stamp=session.now_ns() * 1e-9 - 0.02,
                first_step_offset=embodiment.step_period,
                step_period=embodiment.step_period,
                sequence_id=sequence,
                embodiment_checksum=embodiment.checksum,
            )
            chunks.publish(chunk_to_message(chunk, embodiment))
            if session.spin_until(turned, 3.0, run.check):
                break
            assert time.monotonic() - began < PATIENCE, (reports[-3:], seen.positions)
        assert reports[-1].accepted, reports[-1]
        others = wanted - set(firsts)
        assert all(abs(seen.positions[j] - start[j]) < 0.05 for j in others)
        endings = run.stop()
    assert all(e.clean for e in endings), endings


@pytest.mark.parametrize(('name', 'arguments'), FIRST, ids=str)
def test_a_chunk_turns_every_arm_of_a_simulated_robot(name, arguments):
    moves(name, arguments)


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'arguments'), REST, ids=str)
def test_a_chunk_turns_every_arm_of_the_other_robots_and_dialects(name, arguments):
    moves(name, arguments)
