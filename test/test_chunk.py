"""A chunk says when its rows are due and which columns belong to which component."""

import dataclasses

import numpy as np
import pytest

from faster_core.chunk import ActionChunk, StageTiming
from faster_core.embodiment import Embodiment
from faster_core.paths import embodiment_file


@pytest.fixture(scope='module')
def embodiment():
    return Embodiment.load(embodiment_file('r1_lite'))


def _chunk(values, **changes):
    timing = {'stamp': 100.0, 'first_step_offset': 1 / 15, 'step_period': 1 / 15}
    return ActionChunk(values=np.asarray(values, dtype=float), **(timing | changes))


def test_first_row_is_due_one_offset_after_the_observation(embodiment):
    chunk = _chunk(np.zeros((32, 21)), first_step_offset=0.5, step_period=0.25)
    assert chunk.num_steps == 32
    assert chunk.row_times[:3] == pytest.approx([100.5, 100.75, 101.0])
    assert chunk.row_times[-1] == pytest.approx(100.5 + 31 * 0.25)


def test_chunk_without_rows_is_legal_and_due_never():
    chunk = _chunk(np.zeros((0, 21)))
    assert chunk.num_steps == 0
    assert chunk.row_times.shape == (0,)


def test_component_returns_its_own_columns(embodiment):
    values = np.tile(np.arange(21.0), (32, 1))
    chunk = _chunk(values)
    assert chunk.component(embodiment, 'right_gripper').tolist() == [[13.0]] * 32
    assert chunk.component(embodiment, 'base')[0].tolist() == [18.0, 19.0, 20.0]
    together = [chunk.component(embodiment, c.name) for c in embodiment.action]
    assert np.array_equal(np.concatenate(together, axis=1), values)


def test_unknown_component_is_a_key_error(embodiment):
    with pytest.raises(KeyError):
        _chunk(np.zeros((1, 21))).component(embodiment, 'tail')


def test_row_times_keep_microseconds_at_wall_clock_stamps():
    chunk = _chunk(np.zeros((32, 21)), stamp=1.9e9)
    assert np.abs(np.diff(chunk.row_times) - 1 / 15).max() < 1e-6


def test_chunk_and_timing_cannot_be_changed_after_they_were_made():
    chunk = _chunk(np.zeros((1, 21)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        chunk.stamp = 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        chunk.timing.total_ms = 1.0


def test_stages_of_an_inference_have_the_names_used_everywhere():
    assert [f.name for f in dataclasses.fields(StageTiming)] == [
        'preprocess_ms',
        'vision_ms',
        'prefill_ms',
        'decode_block_ms',
        'detokenize_ms',
        'total_ms',
    ]
