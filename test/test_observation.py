"""An observation is checked whole before anything is computed from it."""

import dataclasses

import numpy as np
import pytest

from faster_core.embodiment import Embodiment
from faster_core.errors import InstructionError, ObservationError
from faster_core.observation import check_instruction, MAX_INSTRUCTION_CHARS, Observation
from faster_core.paths import embodiment_file


@pytest.fixture(scope='module')
def embodiment():
    return Embodiment.load(embodiment_file('r1_lite'))


@pytest.fixture
def observation(embodiment):
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    return Observation(
        images=dict.fromkeys(embodiment.cameras, image),
        state=np.zeros(embodiment.state_dim),
        instruction='pick up the red block',
        stamp=1.5,
    )


def _with(observation, **changes):
    return dataclasses.replace(observation, **changes)


def _with_image(observation, image, camera='head'):
    return _with(observation, images={**observation.images, camera: image})


def test_complete_observation_passes_with_images_of_any_size(observation, embodiment):
    observation.validate(embodiment)
    large = np.zeros((720, 1280, 3), dtype=np.uint8)
    _with_image(observation, large).validate(embodiment)


def test_missing_cameras_are_all_named(observation, embodiment):
    images = {'head': observation.images['head']}
    with pytest.raises(ObservationError, match='no image of camera wrist_left, wrist_right'):
        _with(observation, images=images).validate(embodiment)


def test_unknown_camera_is_refused_with_the_known_ones(observation, embodiment):
    image = observation.images['head']
    with pytest.raises(ObservationError, match=r'unknown camera chest.*head, wrist_left'):
        _with_image(observation, image, 'chest').validate(embodiment)


@pytest.mark.parametrize(
    ('image', 'found'),
    [
        (np.zeros((48, 64, 3), dtype=np.float32), r'float32 \[48, 64, 3\]'),
        (np.zeros((48, 64), dtype=np.uint8), r'uint8 \[48, 64\]'),
        (np.zeros((48, 64, 4), dtype=np.uint8), r'uint8 \[48, 64, 4\]'),
        (np.zeros((3, 48, 64), dtype=np.uint8), r'uint8 \[3, 48, 64\]'),
        (np.zeros((0, 64, 3), dtype=np.uint8), r'uint8 \[0, 64, 3\]'),
        (None, r'object \[\]'),
    ],
)
def test_image_of_wrong_type_or_shape_is_refused(observation, embodiment, image, found):
    with pytest.raises(ObservationError, match=f'camera wrist_left: expected uint8.*{found}'):
        _with_image(observation, image, 'wrist_left').validate(embodiment)


@pytest.mark.parametrize('shape', [(20,), (22,), (1, 21), ()])
def test_state_of_wrong_length_is_refused(observation, embodiment, shape):
    with pytest.raises(ObservationError, match=r'state: expected \[21\], found'):
        _with(observation, state=np.zeros(shape)).validate(embodiment)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_state_that_is_not_finite_names_the_joint(observation, embodiment, value):
    state = np.zeros(21)
    state[[8, 19]] = value
    with pytest.raises(ObservationError, match='not finite: right_arm/joint2, base/chassis2'):
        _with(observation, state=state).validate(embodiment)


@pytest.mark.parametrize('state', [['0'] * 21, [None] * 21, [False] * 21])
def test_state_that_is_no_numbers_is_refused(observation, embodiment, state):
    with pytest.raises(ObservationError, match='state: expected numbers'):
        _with(observation, state=state).validate(embodiment)


@pytest.mark.parametrize('text', ['', '   ', '\n\t'])
def test_empty_instruction_is_refused(observation, embodiment, text):
    with pytest.raises(InstructionError, match='empty'):
        _with(observation, instruction=text).validate(embodiment)


def test_instruction_of_10_kb_is_refused_with_both_lengths():
    with pytest.raises(InstructionError, match=f'10240 char.* at most {MAX_INSTRUCTION_CHARS}'):
        check_instruction('a' * 10240)


def test_longest_instruction_is_accepted_and_one_character_more_is_not():
    check_instruction('a' * MAX_INSTRUCTION_CHARS)
    with pytest.raises(InstructionError):
        check_instruction('a' * (MAX_INSTRUCTION_CHARS + 1))


@pytest.mark.parametrize('text', [None, b'pick', 7])
def test_instruction_that_is_no_text_is_refused(text):
    with pytest.raises(InstructionError, match='not a text'):
        check_instruction(text)


def test_observation_cannot_be_changed_after_it_was_checked(observation):
    with pytest.raises(dataclasses.FrozenInstanceError):
        observation.instruction = 'another'
