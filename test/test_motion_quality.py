"""A robot behind a controller follows a slow policy closely and smoothly (docs/execution.md)."""

import sys

from project_files import ROOT
import pytest

pytest.importorskip('scipy')
sys.path.insert(0, str(ROOT))

from scripts.reliability import motion_quality as quality

NAMES = (quality.NAIVE, quality.ONE_STEP, quality.OURS)


@pytest.mark.parametrize('flavour', ['humble', 'jazzy'])
def test_an_eighth_of_the_error_and_a_third_of_the_acceleration_of_naive_replay(
    flavour, monkeypatch
):
    monkeypatch.setattr(quality, 'RUNS', 4)
    monkeypatch.setattr(quality, 'SECONDS', 10.0)
    rows = quality.measure((flavour,), NAMES)[flavour]
    assert quality.good(rows), rows


def test_with_every_sample_ours_the_motion_is_as_smooth_as_the_plan(monkeypatch):
    robot, execute = quality.executors('jazzy')[
        'ours, set-points at 200 Hz to a forward_command_controller'
    ]()
    figures = quality.run(robot, execute, seed=0)
    assert figures['rms_error_mrad'] < 12.0
    assert figures['max_speed_step'] < 0.3
    assert figures['rms_acceleration'] < 15.0


def test_naive_replay_is_not_good():
    same = {'rms_error_mrad': 100.0, 'rms_acceleration': 100.0}
    assert not quality.good(dict.fromkeys(NAMES, same))
