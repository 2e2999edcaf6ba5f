"""A graph stays on this machine under Humble and under its successors."""

import pytest

from faster_vla_ros.compat import discovery


@pytest.mark.parametrize('distribution', [None, 'jazzy', 'kilted', 'lyrical'])
def test_newer_distributions_and_wheels_get_the_range(distribution):
    given = {} if distribution is None else {'ROS_DISTRO': distribution}
    wanted = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    assert discovery.local_environment(given) == wanted


@pytest.mark.parametrize(
    ('given', 'local'),
    [
        ({}, False),
        ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}, False),
        ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'localhost'}, True),
        ({'ROS_LOCALHOST_ONLY': '1'}, True),
        ({'ROS_LOCALHOST_ONLY': '0'}, False),
    ],
)
def test_a_graph_that_stays_on_this_machine_is_known_and_can_be_let_go(given, local):
    assert discovery.is_local(given) is local
    assert not discovery.is_local(given | discovery.unlimited_environment(given))


def test_what_lets_a_graph_go_is_what_the_distribution_reads():
    wide = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SYSTEM_DEFAULT'}
    assert discovery.unlimited_environment({}) == wide
    old = {'ROS_LOCALHOST_ONLY': '1'}
    assert discovery.unlimited_environment(old) == wide | {'ROS_LOCALHOST_ONLY': '0'}
    humble = {'ROS_DISTRO': 'humble'}
    assert discovery.unlimited_environment(humble | old) == {'ROS_LOCALHOST_ONLY': '0'}


def test_humble_gets_the_variable_it_knows():
    assert discovery.local_environment({'ROS_DISTRO': 'humble'}) == {'ROS_LOCALHOST_ONLY': '1'}
