"""The simulated R1 Lite as a ROS node: exactly the vendor's topics, plus what evaluation needs.

Commands and feedback are those of `interfaces.md` 11.3 (HDAS and motion_target topics, joints by
index, grippers in 0..100); the robot is moved through topics only. Evaluation talks to
`~/reset_episode`, `~/task_success`, `~/world_state` and `~/real_time_factor`; policy and
dispatcher use none of them.

Threads: the executor takes commands and services, one thread runs physics and publishes feedback,
one renders. Physics and commands share the simulator under a lock held for one slice at most.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import signal
import sys
import threading
import time

from geometry_msgs.msg import Transform, TwistStamped
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState, MultiDOFJointState
from std_msgs.msg import Bool, Float32

from faster_core.errors import ConfigError, FasterVlaError
from faster_core.sim import R1LiteSim
from faster_core.sim.realtime import RealTimeConfig, RealTimeRobot
from faster_vla_msgs.srv import ResetEpisode
from faster_vla_ros import parameters
from faster_vla_ros.parameters import Spec
from faster_vla_ros.robot_cameras import CameraThread

CAMERA_TOPICS = {
    'head': '/hdas/camera_head/left_raw/image_raw_color/compressed',
    'wrist_left': '/hdas/camera_wrist_left/color/image_raw/compressed',
    'wrist_right': '/hdas/camera_wrist_right/color/image_raw/compressed',
}
FEEDBACK_TOPICS = {
    'left_arm': '/hdas/feedback_arm_left',
    'left_gripper': '/hdas/feedback_gripper_left',
    'right_arm': '/hdas/feedback_arm_right',
    'right_gripper': '/hdas/feedback_gripper_right',
    'torso': '/hdas/feedback_torso',
    'base': '/hdas/feedback_chassis',
}
JOINT_COMMAND_TOPICS = {
    'left_arm': '/motion_target/target_joint_state_arm_left',
    'left_gripper': '/motion_target/target_position_gripper_left',
    'right_arm': '/motion_target/target_joint_state_arm_right',
    'right_gripper': '/motion_target/target_position_gripper_right',
}
SPEED_COMMAND_TOPICS = {
    'torso': '/motion_target/target_speed_torso',
    'base': '/motion_target/target_speed_chassis',
}
BRAKE_TOPIC = '/motion_target/brake_mode'
# Axes of a twist the vendor reads, in the embodiment's order.
SPEED_AXES = {
    'torso': (('linear', 'x'), ('linear', 'z'), ('angular', 'y'), ('angular', 'z')),
    'base': (('linear', 'x'), ('linear', 'y'), ('angular', 'z')),
}
# Vendor unit of gripper topics: 0..100, documented as millimetres of stroke.
GRIPPER_PER_METRE = 1000.0
# The chassis reports six velocities of which three are valid.
CHASSIS_VALUES = 6

SENSOR_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
STATUS_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

_SIZE = 'width, height in pixels'
PARAMETERS = {
    'seed': Spec(type=int, default=0, at_least=0, help='scene at the start'),
    'task': Spec(type=str, default='', help='task at the start; empty: chosen by the seed'),
    'camera_rate': Spec(type=float, default=15.0, at_least=1.0, help='Hz'),
    'feedback_divider': Spec(
        type=int, default=1, at_least=1, help='feedback every n-th physics slice of 10 ms'
    ),
    'jpeg_quality': Spec(type=int, default=90, at_least=1, help='1..100'),
    'head_size': Spec(type=tuple, default=(96, 96), help=f'{_SIZE}; the vendor: 1280 x 720'),
    'wrist_size': Spec(type=tuple, default=(96, 96), help=_SIZE),
    'publish_clock': Spec(
        type=bool, default=False, help='publish /clock; stamps are then simulated time'
    ),
    'base_timeout': Spec(
        type=float, default=0.0, at_least=0.0, help='s; 0: the chassis keeps its last target'
    ),
    'torso_timeout': Spec(
        type=float, default=0.5, at_least=0.0, help='s until a torso speed is forgotten; 0: never'
    ),
}


class RobotError(FasterVlaError, RuntimeError):
    """The simulated robot cannot run on this machine."""


class MujocoRobot(Node):
    """Simulated robot; `start` sets it going, `close` ends its threads."""

    def __init__(self, **kwargs) -> None:
        """Read parameters, build the model and all endpoints.

        Raises:
            ConfigError: a parameter is unknown, of another type or out of range.
        """
        super().__init__(
            'mujoco_robot', automatically_declare_parameters_from_overrides=True, **kwargs
        )
        values = parameters.read(self, PARAMETERS)
        parameters.refuse_changes(self)
        head, wrist = (_size(name, values[name]) for name in ('head_size', 'wrist_size'))
        self._publish_clock = values['publish_clock']
        self._camera_period = 1.0 / values['camera_rate']
        self._feedback_divider = values['feedback_divider']
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.failure: Exception | None = None
        self._physics = threading.Thread(target=self._run_physics, name='physics', daemon=True)
        sim = R1LiteSim()
        try:
            sim.reset(values['seed'], values['task'] or None)
        except KeyError as e:
            raise ConfigError(f'task: {e.args[0]}') from e
        config = RealTimeConfig(
            base_timeout=values['base_timeout'], torso_timeout=values['torso_timeout']
        )
        self.robot = RealTimeRobot(sim, time.monotonic(), config)
        self._success: bool | None = None
        self._create_publishers()
        self._create_subscriptions()
        self.create_service(ResetEpisode, '~/reset_episode', self._on_reset)
        self._warned: set[tuple[str, int, bool]] = set()
        sizes = {camera: head if camera == 'head' else wrist for camera in CAMERA_TOPICS}
        quality = min(values['jpeg_quality'], 100)
        self.cameras = CameraThread(sizes, quality, self._publish_image, self._fail)

    def start(self, timeout: float = 60.0) -> None:
        """Start physics once the renderers exist.

        Raises:
            RobotError: no picture can be rendered on this machine.
        """
        if not self.cameras.wait_until_ready(timeout):
            raise RobotError(f'the cameras could not be set up within {timeout} s')
        if self.failure is not None:
            raise RobotError(f'the cameras could not be set up: {self.failure}')
        with self._lock:
            self.robot.restart(time.monotonic())
        self._physics.start()
        sim = self.robot.sim
        self.get_logger().info(f'ready: seed {sim.seed}, task {sim.task.name}')

    def close(self) -> None:
        """End the threads; publishes nothing afterwards."""
        self._stopping.set()
        if self._physics.is_alive():
            self._physics.join(5.0)
        self.cameras.close()

    def _create_publishers(self) -> None:
        create = self.create_publisher
        self._image_publishers = {
            c: create(CompressedImage, topic, SENSOR_QOS) for c, topic in CAMERA_TOPICS.items()
        }
        self._feedback_publishers = {
            c: create(JointState, topic, SENSOR_QOS) for c, topic in FEEDBACK_TOPICS.items()
        }
        self._feedback_names = {
            c.name: [f'joint{i}' for i in range(1, c.size + 1)]
            for c in self.robot.sim.embodiment.state
        } | {'base': [f'joint{i}' for i in range(1, CHASSIS_VALUES + 1)]}
        self._success_publisher = create(Bool, '~/task_success', STATUS_QOS)
        self._world_publisher = create(MultiDOFJointState, '~/world_state', 1)
        self._factor_publisher = create(Float32, '~/real_time_factor', 1)
        if self._publish_clock:
            self._clock_publisher = create(Clock, '/clock', 1)

    def _create_subscriptions(self) -> None:
        for component, topic in JOINT_COMMAND_TOPICS.items():
            callback = functools.partial(self._on_joints, component)
            self.create_subscription(JointState, topic, callback, COMMAND_QOS)
        for component, topic in SPEED_COMMAND_TOPICS.items():
            callback = functools.partial(self._on_speed, component)
            self.create_subscription(TwistStamped, topic, callback, COMMAND_QOS)
        self.create_subscription(Bool, BRAKE_TOPIC, self._on_brake, COMMAND_QOS)

    # --- commands (executor thread) -------------------------------------------------------------

    def _on_joints(self, component: str, msg: JointState) -> None:
        values = np.asarray(msg.position, dtype=float)
        if component.endswith('_gripper'):
            values = values / GRIPPER_PER_METRE
        self._command(component, values)

    def _on_speed(self, component: str, msg: TwistStamped) -> None:
        axes = SPEED_AXES[component]
        values = [getattr(getattr(msg.twist, part), axis) for part, axis in axes]
        self._command(component, np.array(values))

    def _command(self, component: str, values: np.ndarray) -> None:
        try:
            with self._lock:
                self.robot.command(component, values, time.monotonic())
        except ValueError as e:
            # Once per kind of mistake: it comes again with every command.
            kind = (component, values.size, bool(np.isfinite(values).all()))
            if kind not in self._warned and len(self._warned) < 100:
                self._warned.add(kind)
                self.get_logger().warning(f'command ignored: {e}')

    def _on_brake(self, msg: Bool) -> None:
        with self._lock:
            self.robot.brake(msg.data)

    def _on_reset(
        self, request: ResetEpisode.Request, response: ResetEpisode.Response
    ) -> ResetEpisode.Response:
        try:
            with self._lock:
                self.robot.reset(int(request.seed), request.task or None)
                self._set_success(False)
                response.instruction = self.robot.sim.instruction
        except KeyError as e:
            response.message = str(e.args[0])
            return response
        response.success = True
        return response

    # --- physics thread -------------------------------------------------------------------------

    def _run_physics(self) -> None:
        try:
            self._set_success(False)
            next_image, next_factor = 0.0, 1.0
            while not self._stopping.is_set():
                now = time.monotonic()
                with self._lock:
                    before = self.robot.num_slices
                    wait = self.robot.tick(now)
                    stepped = self.robot.num_slices != before
                    if stepped:
                        next_image = self._publish_slice(next_image)
                if stepped and self.robot.elapsed >= next_factor:
                    next_factor += 1.0
                    self._factor_publisher.publish(Float32(data=self.robot.real_time_factor(now)))
                if wait > 0:
                    self._stopping.wait(wait)
        except Exception as e:  # the executor must end too: no robot without physics
            self._fail(e)

    def _publish_slice(self, next_image: float) -> float:
        """Publish what is due after a slice; returns when (simulated) the next image is due."""
        robot, sim = self.robot, self.robot.sim
        stamp = self._stamp()
        if self._publish_clock:
            self._clock_publisher.publish(Clock(clock=stamp))
        if robot.num_slices % self._feedback_divider == 0:
            for component in self._feedback_publishers:
                self._publish_feedback(component, stamp)
        self._set_success(sim.succeeded())
        if robot.elapsed + 1e-9 >= next_image:
            self.cameras.show(sim.pose(), stamp)
            if self._world_publisher.get_subscription_count():
                self._publish_world(stamp)
            next_image += self._camera_period
        return next_image

    def _stamp(self):
        if self._publish_clock:
            return rclpy.time.Time(nanoseconds=round(self.robot.elapsed * 1e9)).to_msg()
        return self.get_clock().now().to_msg()

    def _publish_feedback(self, component: str, stamp) -> None:
        position, velocity = self.robot.sim.feedback(component)
        if component.endswith('_gripper'):
            position, velocity = position * GRIPPER_PER_METRE, velocity * GRIPPER_PER_METRE
        msg = JointState(name=self._feedback_names[component])
        msg.header.stamp = stamp
        if component == 'base':
            # Odometry is not part of the vendor's feedback: velocities only.
            velocity = np.concatenate([velocity, np.zeros(CHASSIS_VALUES - len(velocity))])
        else:
            msg.position = position.tolist()
        msg.velocity = velocity.tolist()
        self._feedback_publishers[component].publish(msg)

    def _set_success(self, success: bool) -> None:
        if success != self._success:
            self._success = success
            self._success_publisher.publish(Bool(data=success))

    def _publish_world(self, stamp) -> None:
        msg = MultiDOFJointState()
        msg.header.stamp, msg.header.frame_id = stamp, 'world'
        for name, (xyz, wxyz) in self.robot.sim.world_state().items():
            transform = Transform()
            t, r = transform.translation, transform.rotation
            t.x, t.y, t.z = map(float, xyz)
            r.w, r.x, r.y, r.z = map(float, wxyz)
            msg.joint_names.append(name)
            msg.transforms.append(transform)
        self._world_publisher.publish(msg)

    # --- camera thread --------------------------------------------------------------------------

    def _publish_image(self, camera: str, stamp, jpeg: bytes) -> None:
        msg = CompressedImage(format='rgb8; jpeg compressed bgr8')
        msg.header.stamp, msg.header.frame_id = stamp, f'{camera}_optical_frame'
        msg.data.frombytes(jpeg)
        if not self._stopping.is_set():
            self._image_publishers[camera].publish(msg)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._stopping.set()
        if self.context.ok():
            self.get_logger().fatal(f'{type(error).__name__}: {error}')


def _size(name: str, value: tuple) -> tuple[int, int]:
    if len(value) != 2 or not all(isinstance(v, int) and v > 0 for v in value):
        raise ConfigError(f'{name}: expected width and height in pixels, found {list(value)}')
    return value


def spin(node: MujocoRobot, stop: threading.Event) -> int:
    """Run until `stop` is set, the context is shut down or a thread failed; the exit status."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    try:
        node.start()
        while node.failure is None and not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        pass  # asked to end: a simulated robot has nothing to make safe
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
    return 0 if node.failure is None else 1


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of the executable `mujoco_robot`."""
    # Our own handlers: rclpy's would shut the context down while the threads still publish.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        return spin(MujocoRobot(), stop)
    except FasterVlaError as e:
        get_logger('mujoco_robot').fatal(str(e))
        return 1
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
