"""What is measured about a tokenizer, against values worked out by hand."""

import numpy as np
import pytest
from small_tokenizers import fitted, H, motions, normalizer

from faster_core.embodiment import Embodiment
from faster_core.tokenizer import metrics
from faster_core.tokenizer.evaluate import decodable_share, evaluate, reconstruct

EMBODIMENT = Embodiment.from_text("""
name: five
action_frequency: 10.0
action_horizon: 16
cameras: [head]
state:
  - {component: arm, kind: joint_position, names: [a, b, c]}
action:
  - {component: arm, kind: joint_position, names: [a, b, c]}
  - {component: gripper, kind: gripper_position, names: [gripper]}
  - {component: base, kind: twist, names: [vx]}
tokenizer_groups: [[arm], [gripper, base]]
""")


# --- valid reconstruction -----------------------------------------------------------------------


def test_vrr_counts_values_or_whole_rows():
    error = np.array([[[0.5, 0.5], [3.0, 0.0]]])
    assert metrics.vrr(error, 1.0, 'dim') == 0.75
    assert metrics.vrr(error, 1.0, 'step_l1') == 0.0  # 0.5 + 0.5 is not below 1
    assert metrics.vrr(error, 1.0, 'step_l2') == 0.5  # but their length is
    with pytest.raises(ValueError, match="found 'max'"):
        metrics.vrr(error, 1.0, 'max')


def test_the_table_has_both_units_all_norms_and_thresholds():
    error = np.full((1, 2, 2), 4e-3)
    table = metrics.vrr_table(error, np.array([1.0, 0.1]))
    assert len(table) == 2 * 3 * 3
    assert table['phys_dim_5e-3'] == 1.0
    assert table['norm_dim_5e-3'] == 0.5
    assert table['phys_step_l1_5e-3'] == 0.0
    assert table['phys_step_l1_1e-2'] == 1.0


def test_sigmas_are_written_as_in_the_paper():
    assert [metrics.sigma_name(s) for s in metrics.SIGMAS] == ['1e-3', '5e-3', '1e-2']


def test_a_dimension_that_hardly_moves_is_left_out():
    chunks = np.random.default_rng(0).normal(size=(20, 8, 3)) * [1.0, 2e-4, 5e-5]
    assert metrics.moving_dimensions(chunks + 7.0).tolist() == [True, True, False]


# --- codes --------------------------------------------------------------------------------------


def test_even_use_is_entropy_one_and_a_single_code_zero():
    even = metrics.code_statistics(np.full(8, 3))
    assert even['code_use'] == 1.0
    assert even['entropy'] == pytest.approx(1.0)
    assert even['perplexity'] == pytest.approx(8.0)
    assert even['largest_code'] == 0.125
    single = metrics.code_statistics(np.array([5, 0, 0, 0]))
    assert (single['code_use'], single['entropy'], single['largest_code']) == (0.25, 0.0, 1.0)


def test_no_code_at_all_is_no_division_by_zero():
    assert metrics.code_statistics(np.zeros(4, int))['code_use'] == 0.0


# --- borders and transitions --------------------------------------------------------------------


def test_the_jump_between_chunks_is_the_error_of_the_step_across():
    truth = [np.array([[[0.0], [1.0]], [[2.0], [3.0]]])]
    decoded = [np.array([[[0.0], [1.5]], [[2.0], [3.0]]])]  # a step of 0.5 instead of 1
    assert metrics.border_jump(truth, decoded, np.array([2.0]), 10.0) == pytest.approx(2.5)
    assert metrics.border_jump(truth, truth, np.array([2.0]), 10.0) == 0.0
    assert metrics.border_jump([t[:1] for t in truth], truth, np.array([2.0]), 10.0) is None


def test_a_gripper_that_closes_late_is_late_by_its_rows():
    truth = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], float)
    late = np.array([[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]], float)
    report = metrics.transition_timing(truth, late, 20.0)
    assert report == {'transitions': 1, 'missed': 0.0, 'error_ms': pytest.approx(100.0)}


def test_a_gripper_that_opens_instead_of_closing_has_missed_it():
    truth = np.array([[1, 1, 0, 0]], float)
    wrong = np.array([[0, 0, 1, 1]], float)
    report = metrics.transition_timing(truth, wrong, 20.0)
    assert report == {'transitions': 1, 'missed': 1.0, 'error_ms': None}


# --- whole reports ------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['faster', 'fast', 'bins', 'minivla', 'vqvla', 'bspline'])
def test_a_report_agrees_with_what_the_tokenizer_does(kind):
    tokenizer, chunks = fitted(kind), motions(40)
    episodes = [motions(3, seed=s) for s in range(4)]
    report = evaluate(tokenizer, EMBODIMENT, chunks, episodes, timing=False)
    decoded = tokenizer.decode(tokenizer.encode(chunks))
    error = np.abs(decoded - chunks)
    assert report['vrr_1e-3'] == pytest.approx((error < 1e-3).mean(), abs=1e-3)
    assert report['l1'] == pytest.approx((error / normalizer().half_range).mean(), rel=1e-4)
    assert report['l1_by_component']['arm'] == pytest.approx(error[..., :3].mean(), rel=1e-4)
    lengths = [len(row) for row in tokenizer(chunks)]
    assert report['tokens_mean'] == pytest.approx(np.mean(lengths))
    assert report['tokens_max'] == max(lengths)
    bits = np.mean(lengths) * np.log2(tokenizer.vocab_size) / (H / 10.0)
    assert report['bits_per_s'] == pytest.approx(bits)
    assert report['vrr_1e-3'] <= report['vrr_5e-3'] <= report['vrr_1e-2']
    assert report['border_jump'] > 0
    assert set(report['gripper']) == {'gripper'}
    assert 0 < report['code_use'] <= 1
    assert report['n_chunks'] == 40


def test_truth_is_not_clipped_when_errors_are_counted():
    chunks = motions(10)
    beyond = 3.0 + 0.1 * np.random.default_rng(0).normal(size=(10, H))
    chunks[:, :, 0] = normalizer().centre[0] + beyond * normalizer().half_range[0]
    report = evaluate(fitted('bins'), EMBODIMENT, chunks, timing=False)
    assert report['clipped'] == pytest.approx(0.2, abs=0.05)
    assert report['l1'] > 0.3


def test_more_levels_are_reported_one_by_one():
    report = evaluate(fitted('faster'), EMBODIMENT, motions(20), timing=False)
    assert len(report['l1_by_levels']) == 3
    assert report['l1_by_levels'][-1] == pytest.approx(report['l1'], rel=1e-3)
    assert len(report['levels']) == 3


def test_every_random_string_of_a_fixed_tokenizer_decodes_and_hardly_any_of_fast():
    for kind, expected in (('faster', 1.0), ('bins', 1.0), ('fast', 0.0)):
        tokens = reconstruct(fitted(kind), motions(20)).tokens
        assert decodable_share(fitted(kind), tokens) == pytest.approx(expected, abs=0.1), kind


def test_times_are_measured_for_one_chunk_and_for_many():
    report = evaluate(fitted('faster'), EMBODIMENT, motions(4))
    for name in ('encode_ms', 'decode_ms', 'encode_ms_256', 'decode_ms_256'):
        assert 0 < report[name]['p50'] <= report[name]['p99']
