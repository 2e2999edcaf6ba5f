"""What a source of motions is: a configuration, a function that builds the set, what it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import pathlib
from typing import Any, TypeVar

import numpy as np

from faster_core import paths
from faster_core.data.motions import HELD_OUT, MotionSet, TRAIN
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError

T = TypeVar('T')
# Wraps what is iterated over, to show progress.
Track = Callable[[Sequence[T]], Iterable[T]]


def quietly(items: Sequence[T]) -> Iterable[T]:
    """Show no progress."""
    return items


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One row of the table of sources.

    Attributes:
        about: one line for people.
        version: to be raised when `build` gives another result from the same configuration.
        config: dataclass whose defaults are the published set. `input`, if it has such a field, is
            where the recordings are.
        build: (config, track) -> the set.
        embodiment: name of the shipped embodiment file.
        files: config -> files that are read; None: nothing is read.
        packages: distributions whose versions decide the result; they are part of the recipe.
    """

    about: str
    version: int
    config: type[Any]
    build: Callable[[Any, Track], MotionSet]
    embodiment: str
    files: Callable[[Any], list[pathlib.Path]] | None = None
    packages: tuple[str, ...] = ()


def shipped(name: str) -> Embodiment:
    """Return a shipped embodiment."""
    return Embodiment.load(paths.embodiment_file(name))


def split_at_random(count: int, share: float, seed: int) -> tuple[str, ...]:
    """Return the split of each of `count` episodes; `share` of them, at least one, is held out."""
    held_out = max(1, round(count * share))
    if held_out >= count:
        raise ConfigError(f'held_out_share: {share:g} of {count} episodes leaves none to train on')
    chosen = np.random.default_rng(seed).permutation(count)[:held_out]
    return tuple(HELD_OUT if i in chosen else TRAIN for i in range(count))


def check_share(value: Any, name: str) -> None:
    """Refuse what is no share between 0 and 1, both excluded (ConfigError)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < 1:
        raise ConfigError(f'{name}: expected a number between 0 and 1, found {value!r}')


def check_whole(value: Any, name: str, least: int) -> None:
    """Refuse what is no whole number of at least `least` (ConfigError)."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f'{name}: expected a whole number >= {least}, found {value!r}')


def check_input(value: Any, what: str) -> pathlib.Path:
    """Return the path of the recordings; ConfigError if none is given or it does not exist."""
    if not value:
        raise ConfigError(f'--input is missing: {what}')
    path = pathlib.Path(value)
    if not path.exists():
        raise ConfigError(f'--input {path} does not exist; expected {what}')
    return path
