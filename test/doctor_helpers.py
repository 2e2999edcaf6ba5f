"""A healthy graph as data, for two robots, and ways to spoil it."""

import dataclasses
import textwrap
import types

import control_msgs_stand_in
import cv2
import numpy as np
from project_files import ROOT
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from faster_core import paths
from faster_vla_msgs.msg import DispatcherState, GuardState, PolicyStatus
from faster_vla_ros.doctor import expected as files
from faster_vla_ros.doctor.checks import examine
from faster_vla_ros.doctor.report import Verdict
from faster_vla_ros.doctor.snapshot import (
    Arrival,
    Endpoint,
    Heard,
    message_type,
    Snapshot,
    Spoken,
)
from faster_vla_ros.outputs.protocol import is_action

ROBOT_FILE = ROOT / 'config' / 'robots' / 'r1_lite.yaml'
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
START = 1_700_000_000.0
# When listening ends.
END = START + 60.0

ARM_EMBODIMENT = """
name: small_arm
action_frequency: 20.0
action_horizon: 8
cameras: [scene]
state:
  - {component: arm, kind: joint_position, names: [a, b]}
  - {component: gripper, kind: gripper_position, names: [finger]}
action:
  - {component: arm, kind: joint_position, names: [a, b]}
  - {component: gripper, kind: gripper_position, names: [finger]}
  - {component: base, kind: twist, names: [vx, wz]}
tokenizer_groups:
  - [arm]
  - [gripper]
  - [base]
"""
ARM_ROBOT = """
/**:
  policy_node:
    ros__parameters:
      cameras: ["scene"]
      reference_camera: "scene"
      scene.topic: "scene/image"
      scene.transport: "compressed"
      state_sources: ["arm", "gripper"]
      arm.joints: ["a", "b"]
      gripper.joints: ["finger"]
  action_dispatcher:
    ros__parameters:
      components: ["arm", "gripper", "base"]
      arm.output: "joint_trajectory"
      arm.topic: "arm_controller/joint_trajectory"
      arm.joints: ["a", "b"]
      arm.max_velocity: [1.0, 1.0]
      arm.max_acceleration: [2.0, 2.0]
      arm.position_limits: [-1.0, 1.0]
      gripper.output: "joint_state_stream"
      gripper.topic: "gripper"
      gripper.joints: ["finger"]
      gripper.max_velocity: [0.1]
      gripper.position_limits: [0.0, 0.04]
      base.output: "twist"
      base.topic: "cmd_vel"
      base.max_velocity: [0.5, 1.0]
"""
ARM_URDF = """
<robot name="small_arm">
  <joint name="a" type="revolute"><parent link="base"/><child link="one"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/></joint>
  <joint name="b" type="continuous"><parent link="one"/><child link="two"/>
    <limit velocity="2" effort="1"/></joint>
  <joint name="finger" type="prismatic"><parent link="two"/><child link="left"/>
    <limit lower="0" upper="0.04" velocity="0.1"/></joint>
  <joint name="finger2" type="prismatic"><parent link="two"/><child link="right"/>
    <mimic joint="finger"/></joint>
  <joint name="mount" type="fixed"><parent link="two"/><child link="flange"/></joint>
</robot>
"""


def r1_lite(tmp_path=None, *changes):
    """Return what is expected of the R1 Lite; `changes` are (old, new) in its parameter file."""
    return files.load(_changed(tmp_path, ROBOT_FILE.read_text(), changes), paths.demo_checkpoint())


def small_arm(tmp_path, *changes, urdf='', namespace='', embodiment=()):
    """Return what is expected of an arm whose messages carry names.

    `changes` are (old, new) in its parameter file, `embodiment` the same in its embodiment.
    """
    folder = tmp_path / 'checkpoint'
    folder.mkdir(exist_ok=True)
    text = textwrap.dedent(ARM_EMBODIMENT)
    for old, new in embodiment:
        text = text.replace(old, new)
    (folder / 'embodiment.yaml').write_text(text)
    robot = _changed(tmp_path, ARM_ROBOT, changes)
    if urdf:
        (tmp_path / 'robot.urdf').write_text(urdf)
    return files.load(
        robot, folder, urdf=tmp_path / 'robot.urdf' if urdf else None, namespace=namespace
    )


@pytest.fixture(scope='module')
def r1():
    return r1_lite()


@pytest.fixture(scope='module')
def fine(r1):
    return healthy(r1)


@pytest.fixture
def arm(tmp_path):
    return small_arm(tmp_path)


def _changed(tmp_path, text, changes):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    if not changes and text == ROBOT_FILE.read_text():
        return ROBOT_FILE
    path = tmp_path / 'robot.yaml'
    path.write_text(text)
    return path


def endpoint(node, kind, qos=BEST_EFFORT):
    return Endpoint(node=node, type=kind, qos=qos)


def arrivals(rate=30.0, *, number=30, age=0.002, stamps=None):
    """Return arrivals at a rate up to `END`; stamps are `age` s old, or have the values given."""
    times = [END - i / rate for i in reversed(range(number))]
    stamps = [t - age for t in times] if stamps is None else stamps
    pairs = zip(times, stamps, strict=True)
    return [Arrival(wall=t, simulated=t - START, sent_at=s) for t, s in pairs]


def install_control_msgs(monkeypatch):
    """Let control_msgs be found, with action types that say where they come from."""
    control_msgs_stand_in.install(monkeypatch)
    for name in ('FollowJointTrajectory', 'GripperCommand', 'ParallelGripperCommand'):
        kind = getattr(control_msgs_stand_in, name)
        monkeypatch.setattr(kind, '__module__', 'control_msgs.action._stand_in')


def joint_state(names, values, velocities=()):
    return JointState(name=list(names), position=list(values), velocity=list(velocities))


def jpeg(value=0, size=96):
    return cv2.imencode('.jpg', np.full((size, size, 3), value, np.uint8))[1].tobytes()


def healthy(expected):
    """Return a snapshot of a graph in which everything is as expected."""
    publishers, subscriptions, heard, services, spoken = {}, {}, {}, {}, {}
    for i, each in enumerate(expected.inputs):
        publishers[each.topic] = (endpoint('/robot', message_type(each.kind)),)
        h = heard[each.topic] = Heard(arrivals=arrivals(60.0))
        if each.camera:
            h.sizes[(640, 480)] = len(h.arrivals)
            h.pictures |= {i}
        else:
            message = _message(each, expected)
            h.messages[tuple(message.name)] = message
            h.arrivals = _named(h.arrivals, h.messages)
    for output, config in expected.dispatcher.outputs.values():
        if is_action(output):
            name = expected.name(config.action) + '/_action/send_goal'
            services[name] = (f'{message_type(output.action_type)}_SendGoal', '/robot')
        else:
            kind = message_type(output.message_type)
            subscriptions[expected.name(config.topic)] = (endpoint('/robot', kind),)
    for key in ('brake.topic', 'acceleration_limit.topic'):
        if topic := expected.dispatcher[key]:
            subscriptions[expected.name(topic)] = (endpoint('/robot', 'a_msgs/msg/A'),)
    if topic := expected.dispatcher['permit.topic']:
        publishers[expected.name(topic)] = (endpoint('/remote', 'a_msgs/msg/Mode'),)
        mode = expected.dispatcher['permit.value']
        for name in reversed(expected.dispatcher['permit.field'].split('.')):
            mode = types.SimpleNamespace(**{name: mode})
        spoken[expected.name(topic)] = Spoken(at=END, message=mode)
    driving = expected.dispatcher.driving
    if topic := expected.dispatcher['guard.topic']:
        guard = expected.name('guard')
        publishers[expected.name(topic)] = (endpoint(guard, 'faster_vla_msgs/msg/GuardState'),)
        spoken[expected.name(topic)] = Spoken(
            at=END, message=GuardState(topics=[expected.name(t) for t in driving])
        )
    nodes = [expected.name(n) for n in ('action_dispatcher', 'policy_node')]
    chunks = f'{nodes[1]}/action_chunk'
    subscriptions[chunks] = (endpoint(nodes[0], 'faster_vla_msgs/msg/ActionChunk'),)
    for name, kind in (('enable', 'SetBool'), ('stop', 'Trigger'), ('reset', 'Trigger')):
        services[f'{nodes[0]}/{name}'] = (f'std_srvs/srv/{kind}', nodes[0])
    running = {n: dict(expected.raw[n.rpartition('/')[2]]) for n in nodes}
    return Snapshot(
        duration=6.5,
        end=END,
        nodes=('/robot', *nodes, *([expected.name('guard')] if expected.guarded else ())),
        topics={t: (p[0].type,) for t, p in publishers.items()},
        publishers=publishers,
        subscriptions=subscriptions,
        services=services,
        heard=heard,
        spoken=spoken,
        parameters=running,
        policy_checksum=expected.embodiment.checksum,
        policy_state=PolicyStatus(),
        dispatcher_state=DispatcherState(),
    )


def _message(each, expected):
    """Return a message with the state in the middle of the training data, or within limits."""
    statistics = expected.checkpoint.statistics
    names, values = [], []
    for name, source in each.sources.items():
        component = source.component
        middle = np.zeros(component.size)
        if statistics is not None:
            middle = statistics.centre[expected.embodiment.state_slices[name.split()[0]]]
        elif (limits := expected.dispatcher.rules.components.get(component.name)) is not None:
            known = np.isfinite(limits.lower)
            middle[known] = (limits.lower[known] + limits.upper[known]) / 2
        wire = ((middle - source.config.offset) / source.config.scale).tolist()
        new = list(source.config.joints) or [f'joint{i}' for i in range(1, component.size + 1)]
        if not set(new) <= set(names):
            names, values = names + new, values + wire
    return joint_state(names, values, values)


def changed(snapshot, **changes):
    return dataclasses.replace(snapshot, **changes)


def heard(snapshot, topic, **changes):
    """Return a snapshot in which something else came on one topic.

    Unless arrivals say so themselves, each of the messages came at each of their times.
    """
    record = dataclasses.replace(snapshot.of(topic), **changes)
    if 'messages' in changes or not any(a.names for a in record.arrivals):
        record.arrivals = _named(record.arrivals, record.messages)
    return changed(snapshot, heard={**snapshot.heard, topic: record})


def _named(arrivals, messages):
    return [dataclasses.replace(a, names=n) for a in arrivals for n in messages or [()]]


def publishers(snapshot, topic, *endpoints):
    """Return a snapshot in which these publish on one topic."""
    return changed(snapshot, publishers={**snapshot.publishers, topic: endpoints})


def subscriptions(snapshot, topic, *endpoints):
    """Return a snapshot in which these listen to one topic."""
    return changed(snapshot, subscriptions={**snapshot.subscriptions, topic: endpoints})


def topic_of(expected, name):
    """Return the topic of a camera, component or '<component> feedback'."""
    return next(i.topic for i in expected.inputs if name in (i.camera, *i.sources))


def rows(expected, snapshot, verdict=None, check=None):
    """Return the rows of a verdict (all that are not fine by default) and a check."""
    wanted = (Verdict.WARN, Verdict.FAIL) if verdict is None else (verdict,)
    found = [f for f in examine(expected, snapshot) if f.verdict in wanted]
    return [f for f in found if check is None or f.check == check]


def only(expected, snapshot):
    """Return the one row that is not fine."""
    found = rows(expected, snapshot)
    assert len(found) == 1, found
    return found[0]
