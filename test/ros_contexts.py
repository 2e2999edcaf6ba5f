"""ROS contexts of tests that outlive them.

With the last node of a context Fast DDS takes down its threads and sockets. A run in CI, in which
hundreds of tests each did so, once hung in C, where no time limit of a test reaches; now one node
per domain stays to the end of the process.
"""

import functools

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
