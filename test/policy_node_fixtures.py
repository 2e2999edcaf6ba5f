"""Fixtures of every test of the policy node: a context of its own per module, a node per test."""

from goal_helpers import Dispatcher
import policy_node_helpers as h
import pytest


@pytest.fixture(scope='module')
def context():
    """Own ROS context, domain and discovery."""
    with h.own_context() as c:
        yield c


@pytest.fixture
def rig(context):
    """A policy node with a fake policy, its robot and its user."""
    with h.rig(context) as r:
        yield r


@pytest.fixture
def dispatcher(context, rig):
    """The dispatcher's enable service, found by the policy node."""
    d = Dispatcher(context, rig)
    rig.until(rig.node.goals._enable.service_is_ready)
    yield d
    d.close()
