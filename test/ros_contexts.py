"""What tests of nodes share: ROS contexts that outlive them, and an executor spun on demand.

With the last node of a context Fast DDS takes down its threads and sockets. A run in CI, in which
hundreds of tests each did so, once hung in C, where no time limit of a test reaches; now one node
per domain stays to the end of the process.
"""

import functools
import time

from rclpy.context import Context
from rclpy.node import Node


@functools.cache
def kept(domain):
    """Return (context, node that keeps it up) of a domain."""
    context = Context()
    context.init(domain_id=domain)
    options = {'use_global_arguments': False, 'enable_rosout': False}
    return context, Node('keeper', context=context, start_parameter_services=False, **options)


def kept_context(domain):
    """Return the context of a domain."""
    return kept(domain)[0]


class Spinning:
    """A rig with an `executor` that spins only while the test waits."""

    patience = 20.0  # seconds until a condition counts as never met

    def spin(self, seconds):
        """Spin for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def until(self, condition, what='', patience=None):
        """Spin until a condition holds; fails the test when it does not."""
        end = time.monotonic() + (self.patience if patience is None else patience)
        while not condition():
            assert time.monotonic() < end, f'never: {what or condition}; {self.situation()}'
            self.executor.spin_once(timeout_sec=0.02)

    def situation(self):
        """Return what helps to understand a wait in vain."""
        return ''
