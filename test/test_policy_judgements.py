"""Levels of the policy node's diagnostics, from numbers alone."""

import pytest

pytest.importorskip('rclpy')

from diagnostic_msgs.msg import DiagnosticStatus

from faster_vla_ros import policy_judgements as judge

pytestmark = pytest.mark.ros

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE
STEP = 1 / 15


def judge_input(**changes):
    good = {
        'problem': '',
        'seen': True,
        'age': 0.02,
        'rate': 15.0,
        'expected': 15.0,
        'warn_ratio': 0.7,
    }
    return judge.judge_input(**good | changes)


@pytest.mark.parametrize(
    ('changes', 'level', 'message'),
    [
        ({}, OK, 'ok'),
        ({'rate': 500.0}, OK, 'ok'),
        ({'rate': 10.6}, OK, 'ok'),
        ({'rate': 10.4}, WARN, '10.4 Hz, expected at least 10.5 Hz'),
        ({'rate': 10.4, 'warn_ratio': 0.5}, OK, 'ok'),
        ({'rate': 0.0}, WARN, '0.0 Hz, expected at least 10.5 Hz'),
        ({'rate': None}, OK, 'ok'),
        ({'problem': 'head: no message for 0.2 s', 'rate': 0.0}, ERROR, 'no message for 0.2 s'),
        ({'problem': 'no message yet', 'seen': False, 'age': None}, STALE, 'no message yet'),
    ],
)
def test_input_is_judged_by_age_and_rate(changes, level, message):
    found = judge_input(**changes)
    assert found.level == level
    assert message in found.message


def test_input_shows_rate_and_age():
    assert judge_input().values == {'expected_hz': '15.0', 'rate_hz': '15.0', 'age_ms': '20'}
    unknown = judge_input(rate=None, age=None).values
    assert unknown == {'expected_hz': '15.0'}


def judge_inference(durations, fault=''):
    counts = {'decode_failures': 2, 'observations_dropped': 3}
    return judge.judge_inference(durations, warn=0.3, error=0.6, fault=fault, counts=counts)


@pytest.mark.parametrize(
    ('durations', 'level', 'message'),
    [
        ([], OK, 'ok'),
        ([237.0] * 100, OK, 'ok'),
        ([310.0] * 100, WARN, 'p99 310 ms is above latency.warn (300 ms)'),
        ([237.0] * 90 + [400.0] * 10, WARN, 'p99 400 ms is above latency.warn'),
        ([237.0] * 90 + [700.0] * 10, ERROR, 'p99 700 ms is above latency.error (600 ms)'),
    ],
)
def test_inference_is_judged_by_its_99th_percentile(durations, level, message):
    found = judge_inference(durations)
    assert found.level == level
    assert message in found.message
    assert found.values['decode_failures'] == '2'
    assert found.values['observations_dropped'] == '3'


def test_inference_shows_mean_99th_percentile_and_maximum():
    values = judge_inference([100.0, 200.0]).values
    assert (values['mean_ms'], values['p99_ms'], values['max_ms']) == ('150.0', '199.0', '200.0')


def test_inference_thread_that_has_ended_is_an_error_whatever_its_speed():
    found = judge_inference([1.0], fault='MemoryError()')
    assert (found.level, found.message) == (ERROR, 'MemoryError()')


@pytest.mark.parametrize(
    ('left', 'level', 'message'),
    [
        ([], OK, 'no chunk has followed'),
        ([1.8, 1.7], OK, 'ok'),
        ([2 * STEP + 0.001], OK, 'ok'),
        ([1.8, 2 * STEP - 0.001, 1.8], WARN, '0.132 s of the plan were left, expected 2 steps'),
        ([0.0], WARN, '0.000 s of the plan were left'),
        ([0.5, -0.2, 0.5], ERROR, 'the plan had run out for 0.200 s'),
    ],
)
def test_coverage_is_judged_by_the_least_that_was_left(left, level, message):
    found = judge.judge_coverage(left, STEP)
    assert found.level == level
    assert message in found.message
    assert not left or found.values['newest_s'] == f'{left[-1]:.3f}'


@pytest.mark.parametrize(('used', 'level'), [(0.5, OK), (0.9, OK), (0.91, WARN)])
def test_device_is_judged_by_its_memory(used, level):
    found = judge.judge_device('cuda:0 (X)', allocated=1000.4, reserved=2000.0, used=used)
    assert found.level == level
    assert found.values['device'] == 'cuda:0 (X)'
    assert (found.values['allocated_mib'], found.values['reserved_mib']) == ('1000', '2000')
    assert level == OK or found.message == '91% of the memory of cuda:0 (X) is used'
