"""Normalisation of actions and of the state."""

import json

import numpy as np
import pytest
from tiny_checkpoint import home_action, r1_lite, random_chunks

from faster_core.errors import CheckpointError
from faster_core.policy.state import StateNormalizer
from faster_core.tokenizer.normalizer import ActionNormalizer, MIN_HALF_RANGE

EMBODIMENT = r1_lite()
ACTIONS = random_chunks(200).reshape(-1, 21)


def _fit(actions=ACTIONS):
    return ActionNormalizer.fit(actions[None], EMBODIMENT)


def test_percentiles_map_to_minus_one_and_one():
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 3.0, (20000, 21))
    normal = _fit(actions).normalize(actions)
    low, high = np.percentile(normal, [1, 99], axis=0)
    assert np.allclose(low, -1.0, atol=1e-3)
    assert np.allclose(high, 1.0, atol=1e-3)


def test_outliers_do_not_stretch_the_range():
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (10000, 21))
    clean = _fit(actions).half_range
    actions[:50] = 1e4
    assert np.allclose(_fit(actions).half_range, clean, rtol=0.02)


def test_a_dimension_that_never_moves_keeps_its_value():
    actions = ACTIONS.copy()
    actions[:, 3] = 0.529
    normalizer = _fit(actions)
    normal = normalizer.normalize(actions)
    assert np.isfinite(normal).all()
    assert np.abs(normal[:, 3]).max() < 1e-4
    assert np.allclose(normalizer.denormalize(normal)[:, 3], 0.529, atol=1e-5)


def test_noise_of_a_resting_dimension_is_not_blown_up_to_full_scale():
    rng = np.random.default_rng(0)
    actions = home_action() + rng.normal(0.0, 1e-4, (1000, 21))
    assert np.abs(_fit(actions).normalize(actions)).max() < 0.1


def test_every_kind_of_component_keeps_its_least_range():
    normalizer = _fit(np.tile(home_action(), (10, 1)))
    for c in EMBODIMENT.action:
        half = normalizer.half_range[EMBODIMENT.action_slices[c.name]]
        assert np.allclose(half, MIN_HALF_RANGE[c.kind])


def test_values_in_range_survive_the_round_trip():
    normalizer = _fit()
    chunks = random_chunks(20, seed=1)
    inside = np.abs((chunks - normalizer.centre) / normalizer.half_range) < 1.5
    back = normalizer.denormalize(normalizer.normalize(chunks))
    assert inside.mean() > 0.9
    assert np.allclose(back[inside], chunks[inside], atol=1e-6)
    assert back.dtype == np.float32


def test_both_directions_clip_at_one_and_a_half():
    normalizer = _fit()
    huge = np.full((1, 21), 1e9)
    assert np.allclose(normalizer.normalize(huge), 1.5)
    assert np.allclose(normalizer.normalize(-huge), -1.5)
    top = normalizer.centre + 1.5 * normalizer.half_range
    assert np.allclose(normalizer.denormalize(huge), top)
    assert np.allclose(normalizer.denormalize(np.full((1, 21), np.inf)), top)


def test_statistics_survive_json():
    normalizer = _fit()
    values = json.loads(json.dumps(normalizer.to_dict()))
    loaded = ActionNormalizer.from_dict(values, 21)
    assert np.array_equal(loaded.centre, normalizer.centre)
    assert np.array_equal(loaded.half_range, normalizer.half_range)
    assert np.array_equal(loaded.largest_step, normalizer.largest_step)


# --- steps from row to row --------------------------------------------------------------------


def _ramp(step, rows=32, dims=21):
    return np.arange(rows)[:, None] * np.full(dims, step)


def test_a_jump_between_rows_is_spread_over_the_rows_behind_it():
    normalizer = ActionNormalizer.fit(np.stack([_ramp(0.05), _ramp(-0.02)]), EMBODIMENT)
    assert normalizer.largest_step == pytest.approx(0.05)
    rows = np.zeros((2, 32, 21))
    rows[:, 16:] = 0.18
    limited = normalizer.limit_steps(rows)
    assert np.abs(np.diff(limited, axis=1)).max() == pytest.approx(0.05)
    assert np.array_equal(limited[:, :16], rows[:, :16])
    assert limited[0, 16:20, 3] == pytest.approx([0.05, 0.10, 0.15, 0.18])
    assert limited[:, 20:] == pytest.approx(0.18)


def test_what_is_in_the_data_is_not_changed():
    chunks = random_chunks(50)
    normalizer = ActionNormalizer.fit(chunks, EMBODIMENT)
    assert normalizer.limit_steps(chunks) == pytest.approx(chunks, abs=1e-6)


def test_statistics_of_older_checkpoints_limit_nothing():
    values = _fit().to_dict()
    del values['largest_step']
    normalizer = ActionNormalizer.from_dict(values, 21)
    rows = np.random.default_rng(0).normal(size=(32, 21))
    assert np.array_equal(normalizer.limit_steps(rows), rows)


@pytest.mark.parametrize('value', [-0.1, float('nan'), 'x'])
def test_a_bad_largest_step_is_refused(value):
    values = _fit().to_dict()
    values['largest_step'][3] = value
    with pytest.raises(CheckpointError, match='statistics'):
        ActionNormalizer.from_dict(values, 21)


def _broken(change):
    values = {'centre': [0.0] * 21, 'half_range': [1.0] * 21}
    change(values)
    return values


BAD = [
    None,
    [],
    {},
    'text',
    _broken(lambda v: v.pop('centre')),
    _broken(lambda v: v['centre'].pop()),
    _broken(lambda v: v['half_range'].append(1.0)),
    _broken(lambda v: v['centre'].__setitem__(2, float('nan'))),
    _broken(lambda v: v['half_range'].__setitem__(2, float('inf'))),
    _broken(lambda v: v['half_range'].__setitem__(2, 0.0)),
    _broken(lambda v: v['half_range'].__setitem__(2, -1.0)),
    _broken(lambda v: v['centre'].__setitem__(2, 'x')),
    _broken(lambda v: v['centre'].__setitem__(2, None)),
    _broken(lambda v: v['centre'].__setitem__(2, [1.0])),
]


@pytest.mark.parametrize('values', BAD)
@pytest.mark.parametrize('kind', [ActionNormalizer, StateNormalizer])
def test_bad_statistics_are_refused(kind, values):
    with pytest.raises(CheckpointError, match='statistics'):
        kind.from_dict(values, 21)


def test_a_state_dimension_that_never_moves_does_not_amplify_sensor_noise():
    states = np.random.default_rng(0).uniform(-1, 1, (500, 21))
    states[:, 4] = 0.3
    normalizer = StateNormalizer.fit(states)
    assert abs(normalizer(states[0] + 0.001)[4]) < 0.06


def test_the_state_is_clipped_at_two():
    normalizer = StateNormalizer.fit(np.random.default_rng(0).uniform(-1, 1, (500, 21)))
    assert np.allclose(normalizer(np.full(21, 1e6)), 2.0)
    assert normalizer(np.zeros(21)).dtype == np.float32
