"""What the policy node adds to an inference, with cameras and feedback at full rate.

    python -m scripts.reliability.overhead --seconds 60 --json FILE

Three cameras (640 x 480 JPEG, 30 Hz) and joint states (`--state-rate`) come from a process of
their own.
The policy sleeps for a fixed time. Per chunk: from the sending of the newest image it was made of
(DDS source timestamp at an observer, so transport counts too), or from the chunk before if that is
later, to its publishing, minus `total_ms` of `~/timing`, which begins with the decoding of the
images. Beside it: the same minus what the policy itself took, so decoding counts as well.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import sys
import time
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, JointState

from faster_core import paths
from faster_core.embodiment import Embodiment
from faster_vla_msgs.msg import ActionChunk, InferenceTiming
from faster_vla_ros import qos
from faster_vla_ros.compat.discovery import local_environment
from faster_vla_ros.compat.fastdds import profile_environment
from faster_vla_ros.graph import fastdds_profile
from scripts.reliability import reporting
from scripts.reliability.bench import ROBOT
from scripts.reliability.motion import ARM, GRIPPER
from scripts.reliability.pictures import jpeg
from scripts.reliability.processes import Processes, take_domain
from scripts.reliability.robot import CAMERAS, FEEDBACK, OTHER_FEEDBACK

DOMAIN = 57
SIZE = (640, 480)
CAMERA_RATE = 30.0  # Hz
INFERENCE = 0.02  # s
ALLOWED = {'p50': 3.0, 'p99': 8.0}  # ms
NANO = 10**9
EARS = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)


class Robot(Node):
    """Sends images and feedback, and nothing else."""

    def __init__(self, state_rate: float) -> None:
        """Create publishers and timers; joint states are sent at a rate (Hz)."""
        super().__init__('robot')
        self._picture = jpeg(*SIZE)
        speak = self.create_publisher
        self._cameras = [speak(CompressedImage, topic, 2) for topic in CAMERAS.values()]
        self._feedback = [
            (speak(JointState, topic, 5), self._message(name)) for name, topic in FEEDBACK.items()
        ]
        self._feedback += [
            (speak(JointState, topic, 5), JointState(**{field: values}))
            for topic, (field, values) in OTHER_FEEDBACK.items()
        ]
        self.create_timer(1 / CAMERA_RATE, self._see)
        self.create_timer(1 / state_rate, self._measure)

    @staticmethod
    def _message(name: str) -> JointState:
        return JointState(position=[GRIPPER[0] * 1e3] if 'gripper' in name else list(ARM))

    def _see(self) -> None:
        message = CompressedImage(format='jpeg', data=self._picture)
        message.header.stamp = self.get_clock().now().to_msg()
        for publisher in self._cameras:
            publisher.publish(message)

    def _measure(self) -> None:
        stamp = self.get_clock().now().to_msg()
        for publisher, message in self._feedback:
            message.header.stamp = stamp
            publisher.publish(message)


class Ears:
    """An observer: when images were sent, and when chunks and timings came of them."""

    def __init__(self, domain: int) -> None:
        """Join the domain."""
        self._context = Context()
        self._context.init(domain_id=domain)
        options = {'use_global_arguments': False, 'enable_rosout': False}
        self.node = Node('observer', context=self._context, **options)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.images: dict[int, int] = {}  # stamp of a set -> when its last image was sent (ns)
        self.chunks: dict[int, tuple[int, int]] = {}  # number -> (stamp, when published) (ns)
        self.timings: dict[int, InferenceTiming] = {}
        listen = self.node.create_subscription
        for topic in CAMERAS.values():
            listen(CompressedImage, topic, self._take_image, EARS)
        listen(ActionChunk, '/policy_node/action_chunk', self._take_chunk, EARS)
        listen(InferenceTiming, '/policy_node/timing', self._take_timing, qos.REPORT)

    def _take_image(self, message: CompressedImage, info: Any) -> None:
        stamp = _ns(message)
        self.images[stamp] = max(self.images.get(stamp, 0), info['source_timestamp'])

    def _take_chunk(self, message: ActionChunk, info: Any) -> None:
        if message.num_steps:
            self.chunks[message.sequence_id] = (_ns(message), info['source_timestamp'])

    def _take_timing(self, message: InferenceTiming) -> None:
        self.timings[message.sequence_id] = message

    def spin(self, seconds: float) -> None:
        """Handle messages for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)

    def forget(self) -> None:
        """Forget what was seen."""
        for seen in (self.images, self.chunks, self.timings):
            seen.clear()

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.shutdown()


def _ns(message: Any) -> int:
    return message.header.stamp.sec * NANO + message.header.stamp.nanosec


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used (s)."""
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text(encoding='ascii').rpartition(')')[2]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures."""
    machine = reporting.machine()
    environment = profile_environment(fastdds_profile()) | local_environment()
    os.environ.update(environment)
    ears = Ears(args.domain)
    with Processes(args.domain, environment) as processes:
        processes.start(
            'robot',
            'scripts.reliability.overhead',
            arguments=['--robot', '--state-rate', str(args.state_rate)],
        )
        node = processes.start(
            'policy_node',
            'scripts.reliability.policy_process',
            files=[ROBOT],
            arguments=['--rows', '32', '--seconds', str(INFERENCE)],
            parameters={'checkpoint_path': 'none', 'default_instruction': 'move'},
        )
        deadline = time.monotonic() + 60
        while len(ears.timings) < 30:
            processes.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f'no chunks:\n{processes.log("policy_node")[-2000:]}')
            ears.spin(0.5)
        ears.forget()
        start, used = time.perf_counter(), cpu_seconds(node.pid)
        ears.spin(args.seconds)
        share = (cpu_seconds(node.pid) - used) / (time.perf_counter() - start)
        ears.spin(0.3)
    ears.close()
    delays, totals, preprocess, waited = [], [], [], 0
    numbers = sorted(ears.chunks)
    for before, number in itertools.pairwise(numbers):
        stamp, published = ears.chunks[number]
        timing, sent = ears.timings.get(number), ears.images.get(stamp)
        if timing is None or sent is None or number != before + 1:
            continue
        ready = max(sent, ears.chunks[before][1])
        waited += ready != sent
        took = (published - ready) / 1e6
        totals.append(took - timing.total_ms)
        delays.append(took - timing.prefill_ms)  # that is how long the policy slept
        preprocess.append(timing.preprocess_ms)
    figures = reporting.percentiles(totals)
    return {
        'seconds': args.seconds,
        'chunks': len(numbers),
        'missing': numbers[-1] - numbers[0] + 1 - len(numbers),
        'compared': len(delays),
        'began_after_the_inference_before': waited,
        'overhead_ms': figures,
        'with_decoding_ms': reporting.percentiles(delays),
        'decoding_ms': reporting.percentiles(preprocess),
        'allowed_ms': ALLOWED,
        'met': all(figures[q] <= ALLOWED[q] for q in ALLOWED),
        'share_of_a_core': round(share, 3),
        'cameras': f'3 x {SIZE[0]} x {SIZE[1]} JPEG of {len(jpeg(*SIZE)) // 1000} kB',
        'state_rate': args.state_rate,
        'inference_ms': INFERENCE * 1e3,
        'action_frequency': Embodiment.load(paths.embodiment_file('r1_lite')).action_frequency,
        'machine': machine,
    }


def main() -> int:
    """Measure and report; 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--state-rate', type=float, default=200.0, help='Hz of joint states')
    parser.add_argument('--domain', type=int, default=DOMAIN)
    parser.add_argument('--json', type=pathlib.Path)
    parser.add_argument('--robot', action='store_true', help='be the robot (started by itself)')
    args = parser.parse_args()
    if args.robot:
        rclpy.init()
        try:
            rclpy.spin(Robot(args.state_rate))
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        return 0
    with take_domain(args.domain):
        result = measure(args)
    reporting.write('overhead', result, args.json)
    return int(not result['met'])


if __name__ == '__main__':
    sys.exit(main())
