"""The robot of the measurements: it is where it was told to be and says so at 50 Hz.

Feedback in the vendor's units; cameras if the policy is the real node; /clock if time is
simulated; a heartbeat of the e-stop.
"""

from __future__ import annotations

import functools
import threading
import time

from builtin_interfaces.msg import Time
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool

from faster_vla_ros.conversions import stamp_from_seconds
from scripts.reliability.motion import ARM, GRIPPER
from scripts.reliability.pictures import jpeg

FEEDBACK = {
    'left_arm': '/hdas/feedback_arm_left',
    'left_gripper': '/hdas/feedback_gripper_left',
    'right_arm': '/hdas/feedback_arm_right',
    'right_gripper': '/hdas/feedback_gripper_right',
}
# What only a policy node listens to: values and the field they are in.
OTHER_FEEDBACK = {
    '/hdas/feedback_torso': ('position', [0.0] * 4),
    '/hdas/feedback_chassis': ('velocity', [0.0] * 6),
}
CAMERAS = {
    'head': '/hdas/camera_head/left_raw/image_raw_color/compressed',
    'wrist_left': '/hdas/camera_wrist_left/color/image_raw/compressed',
    'wrist_right': '/hdas/camera_wrist_right/color/image_raw/compressed',
}
CLOCK_PERIOD = 0.002  # s between two messages of simulated time
PER_METRE = 1000.0  # the vendor's unit of grippers


class Robot:
    """Publishes on a node of somebody else.

    Attributes:
        paused: 'feedback', 'estop', or names of cameras that are silent.
        frozen: 'feedback' or names of cameras that say the same again and again.
        place: position component -> where it is, [d] SI.
        follows: it goes where it is told.
        sim_time: it tells the time, on /clock.
        last: name of a feedback, camera or the e-stop -> when it was published last (ns).
    """

    def __init__(self, node: Node, *, cameras: bool, sim_time: bool) -> None:
        """Create publishers and timers on the steady clock.

        Args:
            node: that publishes.
            cameras: also what only a policy node listens to.
            sim_time: publish /clock, from 1000 s on.
        """
        self.paused: set[str] = set()
        self.frozen: set[str] = set()
        self._stamps: dict[str, Time] = {}
        self.last: dict[str, int] = {}
        self.follows = True
        self.place = {
            name: np.full(1, GRIPPER[0]) if 'gripper' in name else np.array(ARM)
            for name in FEEDBACK
        }
        self._node, self._cameras_on, self.sim_time = node, cameras, sim_time
        self._clock_base = 1000.0 - time.monotonic()
        speak = node.create_publisher
        self._feedback: dict[str, Publisher] = {}
        self.start_driver()
        self._estop = speak(Bool, 'estop', 1)
        timer = functools.partial(node.create_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        timer(0.02, self._measure)
        timer(0.05, self._beat)
        if cameras:
            self._others = {t: speak(JointState, t, 5) for t in OTHER_FEEDBACK}
            self._cameras = {n: speak(CompressedImage, t, 2) for n, t in CAMERAS.items()}
            self._picture = jpeg(96, 96)
            timer(1 / 15, self._see)
        if sim_time:
            self._clock = speak(ClockMsg, '/clock', 10)
            # Not a timer: who is busy with what was heard would hold up time for all.
            self._ended, self._telling = threading.Event(), threading.RLock()
            self._time = threading.Thread(target=self._tell_time_until_the_end, daemon=True)
            self._time.start()

    def close(self) -> None:
        """Tell the time no more."""
        if self.sim_time:
            self._ended.set()
            self._time.join()

    def start_driver(self) -> None:
        """Say where it is measured, as a driver that was just started."""
        speak = self._node.create_publisher
        self._feedback = {n: speak(JointState, t, 5) for n, t in FEEDBACK.items()}

    def end_driver(self) -> None:
        """Say it no more, as a driver that has ended: nobody finds it any more."""
        for publisher in self._feedback.values():
            self._node.destroy_publisher(publisher)
        self._feedback = {}

    @property
    def connected(self) -> bool:
        """Whether somebody listens to all of the feedback."""
        heard = [p.get_subscription_count() for p in self._feedback.values()]
        return bool(heard) and all(heard)

    def go(self, name: str, place: np.ndarray) -> None:
        """Take a position component to a place [d], unless the robot does not follow."""
        if self.follows:
            self.place[name] = place

    def recover(self) -> None:
        """Say everything again, as it is, and go where told."""
        if not self._feedback:
            self.start_driver()
        self.paused.clear()
        self.frozen.clear()
        self.follows = True

    def now(self) -> float:
        """Return the robot's time (s)."""
        if self.sim_time:
            return self._clock_base + time.monotonic()
        return time.time_ns() * 1e-9

    def _stamp(self) -> Time:
        return stamp_from_seconds(self.now())

    def tell_time(self) -> int:
        """Publish /clock; returns when (ns)."""
        with self._telling:
            at = time.time_ns()
            self._clock.publish(ClockMsg(clock=self._stamp()))
        return at

    def _tell_time_until_the_end(self) -> None:
        while not self._ended.wait(CLOCK_PERIOD):
            self.tell_time()

    def jump(self, seconds: float) -> int:
        """Set the simulated clock; returns when it was published (ns)."""
        with self._telling:  # no older time comes after it
            self._clock_base += seconds
            return self.tell_time()

    def _measure(self) -> None:
        if 'feedback' in self.paused:
            return
        stamp = self._stamp()
        for name, publisher in self._feedback.items():
            message = self._measured(name)
            if 'feedback' not in self.frozen:
                self._stamps[name], self.last[name] = stamp, time.time_ns()
            message.header.stamp = self._stamps[name]
            publisher.publish(message)
        if self._cameras_on:
            for topic, (field, values) in OTHER_FEEDBACK.items():
                message = JointState(**{field: values})
                message.header.stamp = stamp
                self._others[topic].publish(message)

    def _measured(self, name: str) -> JointState:
        """Return a message of one driver; its stamp is still to be set."""
        scale = PER_METRE if 'gripper' in name else 1.0
        return JointState(position=[float(v) * scale for v in self.place[name]])

    def _beat(self) -> None:
        if 'estop' not in self.paused:
            self.press(False)

    def press(self, pressed: bool = True) -> int:
        """Publish the e-stop; returns when (ns)."""
        self.last['estop'] = time.time_ns()
        self._estop.publish(Bool(data=pressed))
        return self.last['estop']

    def _see(self) -> None:
        stamp = self._stamp()
        for name, publisher in self._cameras.items():
            if name not in self.paused:
                message = CompressedImage(format='jpeg', data=self._picture)
                if name not in self.frozen:
                    self._stamps[name], self.last[name] = stamp, time.time_ns()
                message.header.stamp = self._stamps[name]
                publisher.publish(message)
