"""Configurations are read from mappings; a wrong key is an error, never ignored."""

import dataclasses

import pytest

from faster_core import errors
from faster_core.config import from_mapping
from faster_core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    steps: int
    rate: float = 0.1
    stages: tuple[str, ...] = dataclasses.field(default_factory=tuple)

    def __post_init__(self):
        if self.steps < 1:
            raise ConfigError(f'steps: expected >= 1, found {self.steps}')


def test_values_given_replace_defaults_and_the_rest_is_kept():
    assert from_mapping(Recipe, {'steps': 3, 'rate': 0.5}, source='x') == Recipe(steps=3, rate=0.5)


def test_unknown_keys_are_all_named_with_source_and_known_keys():
    with pytest.raises(ConfigError) as caught:
        from_mapping(Recipe, {'steps': 3, 'ratee': 1, 'colour': 2}, source='recipe.yaml')
    message = 'recipe.yaml: unknown keys colour, ratee; known: steps, rate, stages'
    assert str(caught.value) == message


def test_key_that_is_no_text_is_unknown_and_not_a_crash():
    with pytest.raises(ConfigError, match='unknown keys 7'):
        from_mapping(Recipe, {7: 1}, source='recipe.yaml')


def test_missing_required_key_is_named():
    with pytest.raises(ConfigError, match=r'recipe\.yaml: missing keys steps$'):
        from_mapping(Recipe, {'rate': 0.5}, source='recipe.yaml')


@pytest.mark.parametrize('values', [None, [1, 2], 'steps: 3'])
def test_anything_but_a_mapping_is_refused(values):
    with pytest.raises(ConfigError, match=r'recipe\.yaml: expected a mapping, found'):
        from_mapping(Recipe, values, source='recipe.yaml')


def test_refusals_of_the_dataclass_itself_come_through():
    with pytest.raises(ConfigError, match='expected >= 1, found 0'):
        from_mapping(Recipe, {'steps': 0}, source='recipe.yaml')


def test_every_error_of_the_core_is_caught_by_the_common_base():
    kinds = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(kinds) >= 7
    assert all(issubclass(kind, errors.FasterVlaError) for kind in kinds)


def test_bad_input_is_a_value_error_too_and_a_failed_decode_a_runtime_error():
    for kind in (errors.EmbodimentError, errors.ObservationError, errors.InstructionError):
        assert issubclass(kind, ValueError)
    assert issubclass(errors.DecodeError, RuntimeError)
