"""Reading frozen dataclasses from plain mappings: unknown and missing keys are errors."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any, TypeVar

from faster_core.errors import ConfigError

T = TypeVar('T')


def from_mapping(cls: type[T], values: Any, *, source: str) -> T:
    """Build a configuration dataclass.

    Args:
        cls: a dataclass with keyword-only fields.
        values: mapping of field names to values, as read from YAML or JSON.
        source: where the values come from, for messages.

    Raises:
        ConfigError: not a mapping, an unknown key, or a required key is missing.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f'{source}: expected a mapping, found {type(values).__name__}')
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := set(values) - set(fields):
        raise ConfigError(
            f'{source}: unknown keys {", ".join(sorted(map(str, unknown)))}; '
            f'known: {", ".join(fields)}'
        )
    required = {
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if missing := required - set(values):
        raise ConfigError(f'{source}: missing keys {", ".join(sorted(missing))}')
    return cls(**values)


def write_json(path: pathlib.Path, values: Any, indent: int | None = 2) -> None:
    """Write plain values and a newline."""
    path.write_text(json.dumps(values, indent=indent) + '\n', encoding='utf-8')
