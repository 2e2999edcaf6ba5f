"""A simulated robot as a ROS node: its parts under the topics of a dialect, its cameras, physics.

Robots are those of `faster_core/sim/robot.py`, dialects those of `faster_vla_ros/dialects`; the
robot is moved through topics only. Evaluation talks to `~/reset_episode`, `~/task_success`,
`~/world_state` and `~/real_time_factor`, whoever shows the robot to what `robot_description.py`
publishes; policy and dispatcher use none of them.

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
from typing import Any

from geometry_msgs.msg import Transform
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import MultiDOFJointState
from std_msgs.msg import Bool, Float32

from faster_core.errors import ConfigError, FasterVlaError
from faster_core.sim.realtime import RealTimeConfig, RealTimeRobot
from faster_core.sim.robot import DEFAULT_ARMS, make_robot, ROBOTS
from faster_vla_msgs.srv import ResetEpisode
from faster_vla_ros import parameters, services
from faster_vla_ros.dialects.dialect import Dialect
from faster_vla_ros.dialects.isaac import IsaacDialect
from faster_vla_ros.dialects.ros2_control import Ros2ControlDialect
from faster_vla_ros.dialects.vendor import VendorDialect
from faster_vla_ros.parameters import Spec
from faster_vla_ros.robot_cameras import CameraThread
from faster_vla_ros.robot_description import RobotDescription

DIALECTS: dict[str, type[Dialect]] = {
    'vendor': VendorDialect,
    'ros2_control': Ros2ControlDialect,
    'isaac': IsaacDialect,
}
STATUS_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

_SIZE = 'width, height in pixels'
# What decides which other parameters there are.
CHOICES = {
    'robot': Spec(type=str, default='r1_lite', one_of=tuple(ROBOTS), help='which robot'),
    'arm_model': Spec(
        type=str,
        default='',
        help='of single_arm: fr3 (default), ur5e, xarm7; of dual_arm: vx300s (default), wxai',
    ),
    'dialect': Spec(
        type=str,
        default='',
        one_of=('', *DIALECTS),
        help='topics; empty: vendor for r1_lite, ros2_control for the others',
    ),
}
PARAMETERS = {
    'seed': Spec(type=int, default=0, at_least=0, help='scene at the start'),
    'task': Spec(type=str, default='', help='task at the start; empty: chosen by the seed'),
    'camera_rate': Spec(type=float, default=15.0, at_least=1.0, help='Hz'),
    'feedback_divider': Spec(
        type=int,
        default=1,
        at_least=1,
        help='feedback every n-th slice of 10 ms (vendor) or 5 ms (the other dialects)',
    ),
    'publish_clock': Spec(
        type=bool, default=False, help='publish /clock; stamps are then simulated time'
    ),
}
# Of the R1 Lite, and of the vendor's topics.
R1_LITE_PARAMETERS = {
    'head_size': Spec(type=tuple, default=(96, 96), help=f'{_SIZE}; the vendor: 1280 x 720'),
    'wrist_size': Spec(type=tuple, default=(96, 96), help=_SIZE),
}
VENDOR_PARAMETERS = {
    'jpeg_quality': Spec(type=int, default=90, at_least=1, help='1..100'),
    'base_timeout': Spec(
        type=float, default=0.0, at_least=0.0, help='s; 0: the chassis keeps its last target'
    ),
    'torso_timeout': Spec(
        type=float, default=0.5, at_least=0.0, help='s until a torso speed is forgotten; 0: never'
    ),
}
OTHER_ROBOTS_PARAMETERS = {
    'image_size': Spec(type=tuple, default=(320, 240), help=f'{_SIZE}, of every camera'),
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
        choice = _choose(parameters.overrides(self))
        build = functools.partial(make_robot, choice['robot'], arm_model=choice['arm_model'])
        sim = build()
        kind = DIALECTS[choice['dialect']]
        values = parameters.read(self, _table(choice, kind, sim))
        parameters.refuse_changes(self)
        self._sizes = {c: _size_of(c, values) for c in sim.cameras}
        self._publish_clock = values['publish_clock']
        self._camera_period = 1.0 / values['camera_rate']
        self._feedback_divider = values['feedback_divider']
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.failure: Exception | None = None
        self._physics = threading.Thread(target=self._run_physics, name='physics', daemon=True)
        try:
            sim.reset(values['seed'], values['task'] or None)
        except KeyError as e:
            raise ConfigError(f'task: {e.args[0]}') from e
        self.robot = RealTimeRobot(sim, time.monotonic(), _real_time(kind, values))
        self._success: bool | None = None
        self._create_publishers()
        self.dialect = kind(self, self.robot, self._lock, self._seconds, values)
        self._description = RobotDescription(self, sim, choice['robot'], self.dialect.joints)
        self.robot.before_slice = self._before_slice
        services.service(self, ResetEpisode, '~/reset_episode', self._on_reset)
        quality = min(values['jpeg_quality'], 100) if kind.jpeg else None
        self.cameras = CameraThread(
            self._sizes, quality, self._publish_image, self._fail, make_sim=build
        )

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
        self.get_logger().info(f'ready: seed {sim.seed}, task {sim.task_name or "none"}')

    def close(self) -> None:
        """End the threads; publishes nothing afterwards."""
        self._stopping.set()
        if self._physics.is_alive():
            self._physics.join(5.0)
        self.cameras.close()

    def _create_publishers(self) -> None:
        create = self.create_publisher
        self._success_publisher = create(Bool, '~/task_success', STATUS_QOS)
        self._world_publisher = create(MultiDOFJointState, '~/world_state', 1)
        self._factor_publisher = create(Float32, '~/real_time_factor', 1)
        if self._publish_clock:
            self._clock_publisher = create(Clock, '/clock', 1)

    def _on_reset(
        self, request: ResetEpisode.Request, response: ResetEpisode.Response
    ) -> ResetEpisode.Response:
        try:
            with self._lock:
                self.robot.reset(int(request.seed), request.task or None)
                self.dialect.reset()
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

    def _before_slice(self, due: float) -> None:
        """Let the dialect command what is due at the time this slice was due (steady clock)."""
        late = 0.0 if self._publish_clock else time.monotonic() - due
        self.dialect.before_slice(self._seconds() - late)

    def _publish_slice(self, next_image: float) -> float:
        """Publish what is due after a slice; returns when (simulated) the next image is due."""
        robot, sim = self.robot, self.robot.sim
        stamp = self._stamp()
        if self._publish_clock:
            self._clock_publisher.publish(Clock(clock=stamp))
        if robot.num_slices % self._feedback_divider == 0:
            self.dialect.publish_feedback(stamp)
            self._description.publish(stamp)
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

    def _seconds(self) -> float:
        """Time of stamps and controllers."""
        if self._publish_clock:
            return self.robot.elapsed
        return self.get_clock().now().nanoseconds / 1e9

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

    def _publish_image(self, camera: str, stamp: Any, picture: Any) -> None:
        if not self._stopping.is_set():
            self.dialect.publish_image(camera, stamp, picture)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._stopping.set()
        if self.context.ok():
            self.get_logger().fatal(f'{type(error).__name__}: {error}')


def _choose(given: dict[str, Any]) -> dict[str, str]:
    """Return robot, arm and dialect; ConfigError where they do not go together."""
    choice = {n: spec.check(n, given.get(n, spec.default)) for n, spec in CHOICES.items()}
    choice['arm_model'] = choice['arm_model'] or DEFAULT_ARMS.get(choice['robot'], '')
    is_r1 = choice['robot'] == 'r1_lite'
    choice['dialect'] = choice['dialect'] or ('vendor' if is_r1 else 'ros2_control')
    if choice['dialect'] == 'vendor' and not is_r1:
        raise ConfigError(
            f"dialect: vendor is the R1 Lite's, found robot {choice['robot']}; "
            'expected ros2_control or isaac'
        )
    return choice


def _table(choice: dict[str, str], kind: type[Dialect], sim: Any) -> dict[str, Spec]:
    table = CHOICES | PARAMETERS
    table |= R1_LITE_PARAMETERS if choice['robot'] == 'r1_lite' else OTHER_ROBOTS_PARAMETERS
    if kind is VendorDialect:
        table |= VENDOR_PARAMETERS
    return table | kind.parameters(sim, choice)


def _real_time(kind: type[Dialect], values: dict[str, Any]) -> RealTimeConfig:
    if kind is not VendorDialect:
        return RealTimeConfig(slice=kind.slice, torso_timeout=0.0)
    return RealTimeConfig(
        slice=kind.slice,
        base_timeout=values['base_timeout'],
        torso_timeout=values['torso_timeout'],
    )


def _size_of(camera: str, values: dict[str, Any]) -> tuple[int, int]:
    name = 'image_size'
    if name not in values:
        name = 'head_size' if camera == 'head' else 'wrist_size'
    value = values[name]
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
