"""A simulated robot in this process, and what another process would do with it over DDS."""

import contextlib
import threading

from geometry_msgs.msg import TwistStamped
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from faster_vla_ros.mujoco_robot import MujocoRobot, spin
from faster_vla_ros.session import Session

DOMAIN = 43
PATIENT = 30.0
SENSOR_QOS = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)


def make_robot(context, *, namespace='', **values):
    """Parameters whose names have dots are written with two underscores."""
    values = {name.replace('__', '.'): value for name, value in values.items()}
    return MujocoRobot(
        context=context,
        namespace=namespace,
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )


@contextlib.contextmanager
def running(**values):
    """Yield a robot that spins in a thread of a context of its own; it must end with status 0."""
    context, stop, status = Context(), threading.Event(), []
    context.init(domain_id=DOMAIN)
    try:
        node = make_robot(context, **values)
        thread = threading.Thread(target=lambda: status.append(spin(node, stop)))
        thread.start()
        try:
            yield node
        finally:
            stop.set()
            thread.join(PATIENT)
        assert status == [0]
    finally:
        context.shutdown()


class Wire:
    """What another process does with the robot: listen, and send commands."""

    def __init__(self, session):
        self.session, self.node = session, session.node
        self._publishers = {}

    def collect(self, kind, topic, count=1, qos=SENSOR_QOS, timeout=PATIENT):
        """Return the next `count` messages of a topic."""
        found = []
        subscription = self.node.create_subscription(kind, topic, found.append, qos)
        done = self.session.spin_until(lambda: len(found) >= count, timeout)
        self.node.destroy_subscription(subscription)
        assert done, f'{len(found)} of {count} messages on {topic}'
        return found[:count]

    def feedback(self, topic):
        return self.collect(JointState, topic)[0]

    def stream_until(self, topic, msg, condition, timeout=PATIENT):
        """Send a command at 10 Hz until `condition` holds; False after `timeout` seconds."""
        self._wait_for_listener(topic, type(msg))
        return self.session.spin_until(
            condition, timeout, check=lambda: self._publishers[topic].publish(msg)
        )

    def send(self, topic, msg):
        self._wait_for_listener(topic, type(msg))
        self._publishers[topic].publish(msg)

    def _wait_for_listener(self, topic, kind):
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(kind, topic, 1)
        publisher = self._publishers[topic]
        assert self.session.spin_until(lambda: publisher.get_subscription_count() > 0, PATIENT)


@contextlib.contextmanager
def connected(**values):
    """Yield (robot node, wire)."""
    with Session(domain=DOMAIN, name='test') as session, running(**values) as node:
        assert session.spin_until(lambda: node.robot.num_slices > 0, PATIENT)
        yield node, Wire(session)


def twist(*, vx=0.0, vy=0.0, vz=0.0, wy=0.0, wz=0.0):
    msg = TwistStamped()
    msg.twist.linear.x, msg.twist.linear.y, msg.twist.linear.z = vx, vy, vz
    msg.twist.angular.y, msg.twist.angular.z = wy, wz
    return msg
