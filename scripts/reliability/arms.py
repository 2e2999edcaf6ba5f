"""Two arms with grippers behind trajectory controllers: the same bench around ALOHA's robot file.

The controllers are played here (`trajectories.Reference`); as those of ros2_control they know
nothing of chunks, of a dispatcher that has gone, or of an e-stop: a trajectory once sent is
followed to its end.
"""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from faster_vla_ros.conversions import seconds_from_stamp
from scripts.reliability.bench import Bench
from scripts.reliability.processes import ROOT
from scripts.reliability.robot import CLOCK_PERIOD, Robot
from scripts.reliability.trajectories import DOUBT, first_safe, Points, Reference, Replacement
from scripts.reliability.witness import FOLLOWING, Witness

SIDES = ('left', 'right')
JOINTS = {
    'arm': ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate'),
    'gripper': ('left_finger',),
}
COMMANDS = {
    f'{side}_{part}': (JointTrajectory, f'/follower_{side}/{part}_controller/joint_trajectory')
    for side in SIDES
    for part in JOINTS
}


class Arms(Robot):
    """Two robots that say where all their joints are, by name, and follow trajectories."""

    def __init__(self, node: Node, *, cameras: bool, sim_time: bool) -> None:
        """Create publishers and timers on the steady clock; without cameras."""
        del cameras
        super().__init__(node, cameras=False, sim_time=sim_time)
        self._references = {n: Reference(place) for n, place in self.place.items()}

    def start_driver(self) -> None:
        """Say where it is measured, as a driver that was just started."""
        speak = self._node.create_publisher
        self._feedback = {
            f'{side}_arm': speak(JointState, f'/follower_{side}/joint_states', 5) for side in SIDES
        }

    def follow(self, name: str, ns: int, points: Points) -> None:
        """Take a trajectory from when it was sent; who does not follow comes back to it."""
        self._references[name].follow(ns, points)

    def _measured(self, name: str) -> JointState:
        message, side = JointState(), name.partition('_')[0]
        for part, joints in JOINTS.items():
            component = f'{side}_{part}'
            if self.follows:
                self.place[component] = self._references[component].at(time.time_ns())[0]
            message.name.extend(joints)
            message.position.extend(float(v) for v in self.place[component])
        return message


class ArmsWitness(Witness):
    """Hears trajectories; `commands` are what replaced what."""

    topics = COMMANDS

    def __init__(self, *args: Any) -> None:
        """Subscribe."""
        self._references: dict[str, Reference] = {}
        super().__init__(*args)
        # Simulated time comes in steps.
        self._doubt = DOUBT + (CLOCK_PERIOD if self._robot.sim_time else 0.0)

    def _ear(self, name: str) -> Callable[[Any, Any], None]:
        def take(message: JointTrajectory, info: Any) -> None:
            at, points = info['source_timestamp'], _points(message)
            anew = Reference(self._robot.place[name])
            reference = self._references.setdefault(name, anew)
            self.commands[name].append(
                Replacement(
                    sent_ns=at,
                    received_ns=info['received_timestamp'],
                    points=points,
                    start=reference.at(at),
                )
            )
            reference.follow(at, points)
            self._robot.follow(name, at, points)

        return take

    def _judge(self) -> None:
        """Hold every trajectory against the limits of the robot file."""
        for name, sent in self.commands.items():
            for each in sent:
                at = each.sent_ns * 1e-9
                self._observer.see_trajectory(name, at, each.points, each.start, self._doubt)
        self.num_judged = self._observer.num_checked

    def expect_dispatcher(self) -> None:
        """A new dispatcher starts: it begins where the robot is measured."""
        super().expect_dispatcher()
        self._references.clear()

    def expect_motion(self) -> None:
        """The dispatcher gets enabled: it begins where the robot is measured."""
        self._references.clear()

    def moving(self) -> bool:
        """Whether chunks are followed, and we hear them and a trajectory of every component."""
        accepted = any(r.accepted for _, r in self.reports)
        heard = all(self.commands[name] for name in self.topics)
        return heard and self.state.action in FOLLOWING and accepted and bool(self.sent_chunks)

    def safe(self, trigger_ns: int, until_ns: int) -> dict[str, Replacement | None]:
        """Return of every component what it was safe by, `received_ns` is when."""
        return {
            name: first_safe(
                [c for c in self.commands[name] if c.sent_ns <= until_ns],
                self._limits[name],
                trigger_ns,
                self._doubt,
            )
            for name in self.topics
        }


class ArmsBench(Bench):
    """Everything around one dispatcher that moves two arms; the source of chunks is the policy."""

    robot_file = ROOT / 'config' / 'robots' / 'aloha.yaml'
    embodiment_file = ROOT / 'config' / 'embodiments' / 'aloha_stationary.yaml'
    # So often that a plan lasts beyond the fourth chunk in a row that is refused.
    policy_arguments = ('--embodiment', 'aloha_stationary', '--period', '0.2')
    make_robot, make_witness = Arms, ArmsWitness


def _points(message: JointTrajectory) -> Points:
    times = [seconds_from_stamp(p.time_from_start) for p in message.points]
    return (
        np.array(times),
        np.array([p.positions for p in message.points]),
        np.array([p.velocities for p in message.points]),
    )
