"""`faster-vla doctor`: faults of our own nodes and of the clock."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from doctor_helpers import (
    changed,
    endpoint,
    healthy,
    only,
    publishers,
    r1_lite,
    rows,
    subscriptions,
)

from faster_vla_msgs.msg import DispatcherState, PolicyStatus
from faster_vla_ros.doctor.report import Verdict

pytestmark = pytest.mark.ros


def test_two_nodes_of_one_name_fail_if_ours_and_are_warned_of_otherwise(r1, fine):
    for name in ('/action_dispatcher', '/policy_node', '/guard'):
        row = only(r1, changed(fine, nodes=(*fine.nodes, name)))
        assert (row.verdict, row.check) == (Verdict.FAIL, 'node')
    row = only(r1, changed(fine, nodes=(*fine.nodes, '/robot')))
    assert (row.verdict, row.found) == (Verdict.WARN, '2 nodes of this name')
    hidden = changed(fine, nodes=(*fine.nodes, '/_cli', '/_cli'))
    assert rows(r1, hidden) == []


def test_our_nodes_that_do_not_run_are_warned_of_and_a_missing_guard_fails(r1, fine, arm):
    graph = changed(
        fine,
        nodes=('/robot', '/guard'),
        parameters={},
        policy_checksum='',
        policy_state=None,
        dispatcher_state=None,
    )
    warned = {'action_dispatcher': Verdict.WARN, 'policy_node': Verdict.WARN}
    assert {f.subject: f.verdict for f in rows(r1, graph)} == warned
    unguarded = changed(fine, nodes=tuple(n for n in fine.nodes if n != '/guard'))
    row = only(r1, unguarded)
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'node', 'guard')
    # No part of a guard in the file: none is missed, and its name is not looked for.
    assert not arm.guarded
    assert '/guard' not in healthy(arm).nodes


def test_a_guard_that_watches_another_topic_fails(tmp_path):
    wrong = r1_lite(
        tmp_path, ('topics: ["/motion_target/target_speed_chassis", ', 'topics: ["/elsewhere", ')
    )
    row = only(wrong, healthy(wrong))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'parameters', 'guard')


def test_services_that_are_missing_or_mistyped_fail(r1, fine):
    services = dict(fine.services) | {'/action_dispatcher/stop': ('std_srvs/srv/Empty', '/x')}
    del services['/action_dispatcher/enable']
    row = only(r1, changed(fine, services=services))
    assert row.verdict is Verdict.FAIL
    assert row.found == 'not offered: /action_dispatcher/enable, /action_dispatcher/stop'


def test_a_latched_stop_and_enabled_motion_are_warned_of(r1, fine):
    stopped = DispatcherState(action=DispatcherState.ACTION_STOP, message='feedback_stale')
    row = only(r1, changed(fine, dispatcher_state=stopped))
    assert (row.verdict, row.found) == (Verdict.WARN, 'stopped: feedback_stale')
    row = only(r1, changed(fine, dispatcher_state=DispatcherState(enabled=True)))
    assert (row.verdict, row.advice) == (Verdict.WARN, 'faster-vla disable')
    assert only(r1, changed(fine, dispatcher_state=None)).verdict is Verdict.FAIL
    rival = DispatcherState(message='disabled; teleop, which publishes on /x')
    said = rows(r1, changed(fine, dispatcher_state=rival), Verdict.OK, 'state')
    assert said[0].found == 'motion is disabled (teleop, which publishes on /x)'


def test_a_fault_of_the_policy_fails(r1, fine):
    fault = PolicyStatus(state=PolicyStatus.STATE_FAULT, message='out of memory')
    row = only(r1, changed(fine, policy_state=fault))
    assert (row.verdict, row.found) == (Verdict.FAIL, 'fault: out of memory')


def test_a_policy_that_says_nothing_or_gets_no_observation_fails(r1, fine):
    row = only(r1, changed(fine, policy_state=None))
    assert (row.verdict, row.subject) == (Verdict.FAIL, 'policy_node')
    assert row.found == 'says nothing on ~/status'
    stale = PolicyStatus(state=PolicyStatus.STATE_STALE_OBSERVATION, message='head: 0.4 s old')
    row = only(r1, changed(fine, policy_state=stale))
    assert (row.verdict, row.found) == (Verdict.FAIL, 'no chunk: head: 0.4 s old')
    warming = PolicyStatus(state=PolicyStatus.STATE_WARMING_UP)
    assert only(r1, changed(fine, policy_state=warming)).verdict is Verdict.WARN


def test_a_policy_of_another_embodiment_fails(r1, fine):
    row = only(r1, changed(fine, policy_checksum='0' * 64))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'embodiment', 'policy_node')


def test_a_dispatcher_with_another_embodiment_file_fails(r1, fine, tmp_path):
    other = tmp_path / 'other.yaml'
    other.write_text(r1.embodiment.source + '# another\n')

    def running(path):
        own = fine.parameters['/action_dispatcher'] | {'embodiment': str(path)}
        return changed(fine, parameters=fine.parameters | {'/action_dispatcher': own})

    row = only(r1, running(other))
    assert (row.verdict, row.subject) == (Verdict.FAIL, 'action_dispatcher')
    assert only(r1, running(tmp_path / 'elsewhere')).verdict is Verdict.WARN
    other.write_text(r1.embodiment.source)
    assert rows(r1, running(other)) == []


def test_nodes_started_with_other_parameters_are_warned_of(r1, fine):
    own = fine.parameters['/action_dispatcher'] | {'left_arm.on_stale': 'stop'}
    graph = changed(fine, parameters=fine.parameters | {'/action_dispatcher': own})
    row = only(r1, graph)
    assert (row.verdict, row.check) == (Verdict.WARN, 'running')
    assert row.found == 'left_arm.on_stale is stop, in the file hold'


def test_chunks_that_the_dispatcher_does_not_hear_fail(r1, fine):
    row = only(r1, subscriptions(fine, '/policy_node/action_chunk'))
    assert (row.verdict, row.check) == (Verdict.FAIL, 'chunks')


@pytest.mark.parametrize(
    ('using', 'clocks', 'verdict', 'text'),
    [
        ((True, True), 1, None, ''),
        ((False, False), 0, None, ''),
        ((True, True), 0, Verdict.FAIL, 'nobody publishes it'),
        ((True, False), 1, Verdict.FAIL, 'does not'),
        ((False, False), 1, Verdict.WARN, 'our nodes do not use it'),
        ((True, True), 2, Verdict.FAIL, 'published by'),
    ],
)
def test_use_sim_time_and_clock_must_agree(r1, fine, using, clocks, verdict, text):
    parameters = {
        n: p | {'use_sim_time': u}
        for (n, p), u in zip(fine.parameters.items(), using, strict=True)
    }
    graph = changed(fine, parameters=parameters)
    kind = 'rosgraph_msgs/msg/Clock'
    graph = publishers(graph, '/clock', *[endpoint(f'/sim{i}', kind) for i in range(clocks)])
    found = rows(r1, graph, check='clock')
    assert [f.verdict for f in found] == ([verdict] if verdict else [])
    assert all(text in f.found for f in found)
