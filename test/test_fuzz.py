"""Random and hostile chunks: none gets a command beyond the limits out, and the judge can see."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from faster_core.execution.errors import CONTENT_REASONS, STATE_REASONS
from scripts.reliability.fuzz import Fuzz, SABOTAGE, VARIANTS
from scripts.reliability.fuzz_dds import run
from scripts.reliability.hostile import KINDS

pytestmark = pytest.mark.ros

DOMAIN = 45
LEAST_EXECUTED = 0.3  # of the chunks must be valid and move the robot
# Kinds with one reason only.
OF_KIND = {
    'checksum': 'embodiment_mismatch',
    'frame': 'bad_frame',
    'kind': 'bad_names',
    'old': 'too_old',
    'stopped': 'stopped',
    'disabled': 'not_enabled',
}


@pytest.fixture(scope='module')
def fuzz():
    fuzz = Fuzz(seed=1)
    fuzz.run(1000)
    return fuzz


def test_no_command_leaves_the_limits_or_the_blended_plan(fuzz):
    report = fuzz.report()
    assert report['first_violations'] == []
    assert report['commands_checked'] > 10_000
    assert report['rows_compared_with_the_blend'] > 300
    assert report['changes_of_limits'] > 10


@pytest.mark.parametrize('variant', VARIANTS)
def test_nor_with_late_ticks_or_limits_on_jerk(variant):
    if variant == 'limits on jerk':
        pytest.importorskip('ruckig')
    fuzz = Fuzz(seed=1, **VARIANTS[variant])
    fuzz.run(300)
    report = fuzz.report()
    assert report['first_violations'] == []
    assert report['commands_checked'] > 3000


def test_enough_chunks_are_executed_and_every_kind_and_every_reason_occurs(fuzz):
    report = fuzz.report()
    assert report['executed_share'] >= LEAST_EXECUTED
    assert set(report['sent']) == {name for name, _ in KINDS}
    assert set(report['outcomes']) == {'accepted', *STATE_REASONS, *CONTENT_REASONS}
    # Whatever else is wrong with it, if anything.
    for kind, reason in OF_KIND.items():
        assert report['outcomes'][reason] >= report['sent'][kind] > 0, kind


@pytest.mark.parametrize('name', SABOTAGE)
def test_a_limit_or_the_blend_taken_out_of_the_dispatcher_is_noticed(name):
    spoilt = Fuzz(seed=1, changes=SABOTAGE[name])
    for _ in range(20):
        spoilt.run(50)
        if spoilt.limits.violations or spoilt.blend.violations:
            return
    pytest.fail('1000 chunks, and nothing was noticed')


def test_through_dds_no_command_leaves_the_limits_either():
    found = run(DOMAIN, 150, seed=2)
    assert found['first_violations'] == []
    assert found['executed_share'] >= LEAST_EXECUTED
    assert found['without_report'] == 0
    assert found['tracebacks'] == 0
    assert found['process'] == 'ran to the end'
    assert found['rows_compared_with_the_blend'] > 20


def test_through_dds_a_limit_taken_out_of_the_dispatcher_is_noticed():
    found = run(DOMAIN, 60, seed=2, sabotage='acceleration')
    assert found['limit_violations'] > 0
