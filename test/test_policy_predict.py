"""The policy as a user sees it: an observation in, a chunk in SI units out."""

import dataclasses
import time

import numpy as np
import pytest
from tiny_checkpoint import INSTRUCTIONS, make_tiny_checkpoint, tiny_parts
import torch

from faster_core.decoding.sampling import SamplingConfig
from faster_core.errors import ConfigError, DecodeError, InstructionError, ObservationError
from faster_core.policy import Policy
from faster_core.policy.images import to_square


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp('policy') / 'tiny')


@pytest.fixture(scope='module')
def policy(checkpoint):
    return Policy.from_pretrained(checkpoint, device='cpu')


@pytest.fixture(autouse=True)
def _fresh(policy):
    policy.reset()


def _observation(policy, seed=0, size=(96, 96), **changes):
    rng = np.random.default_rng(seed)
    images = {
        c: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for c in policy.embodiment.cameras
    }
    values = {'images': images, 'instruction': INSTRUCTIONS[0], 'stamp': 12.5}
    return dataclasses.replace(policy.make_example(), **{**values, **changes})


def test_the_example_gives_a_chunk_of_the_robots_shape(policy):
    chunk = policy.predict(policy.make_example())
    assert chunk.values.shape == (32, 21)
    assert chunk.values.dtype == np.float32
    assert np.isfinite(chunk.values).all()


def test_values_are_si_units_within_the_bounds_of_the_normaliser(policy):
    normalizer = policy._tokenizer.normalizer
    for seed in range(5):
        values = policy.predict(_observation(policy, seed)).values
        excess = np.abs(values - normalizer.centre) - 1.5 * normalizer.half_range
        assert excess.max() < 1e-5
    # Gripper columns are metres of opening, not normalised values around zero.
    assert (values[:, [6, 13]] > 0.05).all()


def test_rows_are_due_from_one_step_after_the_observation(policy):
    chunk = policy.predict(_observation(policy))
    assert chunk.stamp == 12.5
    assert chunk.first_step_offset == chunk.step_period == pytest.approx(1 / 15)
    assert chunk.row_times[0] == pytest.approx(12.5 + 1 / 15)
    assert chunk.embodiment_checksum == policy.embodiment.checksum


def test_the_codes_decode_to_the_values(policy):
    chunk = policy.predict(_observation(policy))
    assert chunk.codes.shape == (3, 2, 10)
    assert np.issubdtype(chunk.codes.dtype, np.integer)
    assert np.array_equal(policy._tokenizer.decode(chunk.codes), chunk.values)


def test_every_stage_is_timed_and_the_stages_sum_to_the_total(policy):
    accounted = []
    for _ in range(10):
        start = time.perf_counter()
        timing = policy.predict(policy.make_example()).timing
        wall = (time.perf_counter() - start) * 1e3
        stages = (timing.preprocess_ms, timing.vision_ms, timing.prefill_ms, timing.detokenize_ms)
        assert len(timing.decode_block_ms) == 6
        assert all(t > 0 for t in (*stages, *timing.decode_block_ms))
        parts = sum(stages) + sum(timing.decode_block_ms)
        assert parts <= timing.total_ms + 1e-6 <= wall + 1e-3
        accounted.append(parts / timing.total_ms)
    # Only the loop around the blocks belongs to no stage (unless another process cuts in).
    assert max(accounted) > 0.8


def test_chunks_are_numbered_from_one_and_reset_starts_over(policy):
    example = policy.make_example()
    assert [policy.predict(example).sequence_id for _ in range(3)] == [1, 2, 3]
    policy.reset()
    assert policy.predict(example).sequence_id == 1


def test_warm_up_leaves_no_trace(policy):
    policy.warmup(2)
    assert policy.predict(policy.make_example()).sequence_id == 1


def test_greedy_prediction_is_a_function_of_the_observation(policy):
    first = policy.predict(_observation(policy, 1)).codes
    policy.predict(_observation(policy, 2))
    assert np.array_equal(policy.predict(_observation(policy, 1)).codes, first)


def test_image_state_and_instruction_each_change_the_chunk(policy):
    codes = policy.predict(_observation(policy)).codes
    others = {
        'image': _observation(policy, seed=5),
        'state': _observation(policy, state=policy.make_example().state + 0.2),
        'instruction': _observation(policy, instruction=INSTRUCTIONS[-1]),
    }
    for name, other in others.items():
        assert not np.array_equal(policy.predict(other).codes, codes), name


def test_a_failed_prediction_does_not_disturb_the_next_one(policy):
    codes = policy.predict(_observation(policy)).codes
    with pytest.raises(ObservationError):
        policy.predict(_observation(policy, state=np.full(21, np.nan)))
    chunk = policy.predict(_observation(policy))
    assert np.array_equal(chunk.codes, codes)
    assert chunk.sequence_id == 2


def test_prediction_of_the_tiny_policy_is_quick(policy):
    policy.warmup(1)
    times = []
    for _ in range(10):
        start = time.process_time()
        policy.predict(policy.make_example())
        times.append(time.process_time() - start)
    assert min(times) < 0.1


# --- sampling and levels ------------------------------------------------------------------------


def test_sampling_repeats_after_a_reset_and_goes_on_without(checkpoint):
    policy = Policy.from_pretrained(checkpoint, device='cpu', temperature=1.5, seed=3)
    example = policy.make_example()
    first, second = (policy.predict(example).codes for _ in range(2))
    assert not np.array_equal(first, second)
    policy.reset()
    assert np.array_equal(policy.predict(example).codes, first)
    policy.reset(seed=4)
    other = policy.predict(example).codes
    policy.reset(seed=3)
    assert np.array_equal(policy.predict(example).codes, first)
    assert not np.array_equal(other, first)


def test_top_one_sampling_is_the_greedy_policy(checkpoint, policy):
    drawn = Policy.from_pretrained(checkpoint, device='cpu', temperature=2.0, top_k=1)
    observation = _observation(policy)
    assert np.array_equal(drawn.predict(observation).codes, policy.predict(observation).codes)


@pytest.mark.parametrize('levels', [1, 2])
def test_fewer_levels_give_the_first_codes_of_all_in_fewer_passes(policy, levels):
    whole = policy.predict(_observation(policy))
    coarse = policy.predict(_observation(policy), num_levels=levels)
    assert np.array_equal(coarse.codes, whole.codes[:levels])
    assert len(coarse.timing.decode_block_ms) == 2 * levels
    assert coarse.values.shape == (32, 21)
    expected = policy._tokenizer.decode(whole.codes, num_levels=levels)
    assert np.array_equal(coarse.values, expected)


@pytest.mark.parametrize('levels', [0, -1, 4])
def test_a_number_of_levels_that_is_not_there_is_refused(policy, levels):
    with pytest.raises(ValueError, match=r'1\.\.3'):
        policy.predict(policy.make_example(), num_levels=levels)


# --- what is refused ----------------------------------------------------------------------------


def test_a_missing_camera_is_named(policy):
    images = dict(policy.make_example().images)
    del images['wrist_left']
    with pytest.raises(ObservationError, match='wrist_left'):
        policy.predict(_observation(policy, images=images))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_named(policy, value):
    state = policy.make_example().state
    state[8] = value
    with pytest.raises(ObservationError, match='right_arm/joint2'):
        policy.predict(_observation(policy, state=state))


@pytest.mark.parametrize('size', [0, 20, 22])
def test_a_state_of_another_size_is_refused(policy, size):
    with pytest.raises(ObservationError, match=r'expected \[21\]'):
        policy.predict(_observation(policy, state=np.zeros(size)))


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((96, 96, 3), np.float32),
        np.zeros((96, 96), np.uint8),
        np.zeros((96, 96, 4), np.uint8),
        np.zeros((0, 96, 3), np.uint8),
    ],
)
def test_an_image_that_is_not_rgb_bytes_is_refused(policy, image):
    images = dict(policy.make_example().images) | {'head': image}
    with pytest.raises(ObservationError, match='camera head'):
        policy.predict(_observation(policy, images=images))


@pytest.mark.parametrize('text', ['', '  ', 'asdf qwerty', 'red ' * 3000])
def test_an_instruction_that_is_not_understood_is_refused(policy, text):
    with pytest.raises(InstructionError):
        policy.predict(_observation(policy, instruction=text))
    with pytest.raises(InstructionError):
        policy.check_instruction(text)


def test_a_network_that_gives_nan_raises_instead_of_moving_the_robot():
    parts = tiny_parts()
    parts.tokenizer.model.autoencoder.from_latent.weight.data.fill_(float('nan'))
    policy = Policy(parts, device='cpu')
    with pytest.raises(DecodeError):
        policy.predict(policy.make_example())


# --- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(720, 1280), (48, 64), (96, 96), (1, 1), (300, 20)])
def test_images_of_any_size_are_accepted(policy, size):
    chunk = policy.predict(_observation(policy, size=size))
    assert np.isfinite(chunk.values).all()


def test_a_view_with_reversed_channels_is_read_like_its_copy():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    assert np.array_equal(to_square(image[..., ::-1], 32), to_square(image[..., ::-1].copy(), 32))


def test_the_centre_square_is_what_is_seen():
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert (to_square(image, 16) == 200).all()
    assert (to_square(image.transpose(1, 0, 2), 16) == 200).all()


def test_an_image_of_the_right_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert np.array_equal(to_square(image, 96), image)


# --- how it runs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('argument', 'value'),
    [
        ('device', 'abacus'),
        ('device', 'meta'),
        ('device', 'cuda:99'),
        ('device', ''),
        ('dtype', 'float64'),
        ('dtype', 'int8'),
        ('engine', 'steam'),
        ('engine', ''),
        ('temperature', -1.0),
        ('top_k', 0),
    ],
)
def test_an_unknown_way_to_run_is_refused_by_name(checkpoint, argument, value):
    with pytest.raises(ConfigError, match=argument):
        Policy.from_pretrained(checkpoint, **{argument: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_cuda_without_a_device_is_refused(checkpoint):
    with pytest.raises(ConfigError, match='CUDA'):
        Policy.from_pretrained(checkpoint, device='cuda')


def test_bfloat16_on_the_cpu_predicts_in_range(checkpoint, policy):
    half = Policy.from_pretrained(checkpoint, device='cpu', dtype='bfloat16')
    values = half.predict(_observation(policy)).values
    assert values.dtype == np.float32
    normalizer = policy._tokenizer.normalizer
    assert (np.abs(values - normalizer.centre) < 1.51 * normalizer.half_range).all()


def test_images_are_scaled_before_they_are_rounded_to_bfloat16():
    policy = Policy(tiny_parts(), device='cpu', dtype='bfloat16')
    seen, backbone = [], policy.model.backbone
    stem = backbone.vlm.vision_tower.embeddings.patch_embedding
    stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = torch.arange(256, dtype=torch.uint8).repeat(36 * 3).view(1, 96, 96, 3)
    with torch.inference_mode():
        backbone.features(pixels)
    exact = pixels.permute(0, 3, 1, 2).double() / 127.5 - 1.0
    assert torch.equal(seen[0], exact.to(torch.bfloat16))


def test_the_last_observation_can_be_decoded_again(checkpoint):
    policy = Policy.from_pretrained(checkpoint, device='cpu')
    chunk = policy.predict(_observation(policy))
    tokens = policy.decode_again(SamplingConfig())
    assert np.array_equal(policy._codes(tokens), chunk.codes)


def test_a_policy_that_reads_its_state_as_text_predicts_and_sees_it():
    policy = Policy(tiny_parts(state_encoding='text'), device='cpu')
    codes = policy.predict(_observation(policy)).codes
    moved = _observation(policy, state=policy.make_example().state + 0.2)
    assert not np.array_equal(policy.predict(moved).codes, codes)


# --- states that cannot be ----------------------------------------------------------------------


def test_a_state_in_degrees_is_refused_by_name_with_the_range_it_was_trained_on(policy):
    example = policy.make_example()
    state = example.state.copy()
    state[2] = -75.0
    with pytest.raises(ObservationError, match=r'left_arm/joint3 is -75, in the data it was from'):
        policy.predict(dataclasses.replace(example, state=state))


def test_an_unusual_posture_is_clipped_not_refused(policy):
    example, normalizer = policy.make_example(), policy._parts.state
    far = example.state + 10.0 * normalizer.half_range
    edge = example.state + 2.0 * normalizer.half_range
    chunks = [policy.predict(dataclasses.replace(example, state=s)) for s in (far, edge)]
    assert np.array_equal(chunks[0].codes, chunks[1].codes)
