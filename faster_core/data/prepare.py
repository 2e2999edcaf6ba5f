"""Preparing a set of motions once: the same recipe is not carried out again."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from typing import Any

from faster_core.config import from_mapping
from faster_core.data.motion_files import read_description
from faster_core.data.motions import MotionError, MotionSet
from faster_core.data.sources import Source, SOURCES
from faster_core.data.sources.source import quietly, shipped, Track
from faster_core.errors import ConfigError


def configuration(name: str, values: Mapping[str, Any], *, source: str) -> Any:
    """Return the configuration of a source.

    Args:
        name: key of `SOURCES`.
        values: fields that differ from the published set.
        source: where the values come from, for messages.

    Raises:
        ConfigError: no such source, an unknown field or a value out of range.
    """
    return from_mapping(_source(name).config, values, source=source)


def prepare(
    name: str, config: Any, out: str | pathlib.Path, track: Track = quietly
) -> tuple[MotionSet, bool]:
    """Write a set of motions, unless the folder has it already.

    Args:
        name: key of `SOURCES`.
        config: of the source's type.
        out: folder of the set; one of another recipe is replaced.
        track: wraps what is iterated over, to show progress.

    Returns:
        The set, and whether it was there already.

    Raises:
        ConfigError, MotionError: the configuration or the recordings are wrong.
    """
    source, out = _source(name), pathlib.Path(out)
    recipe = recipe_of(name, config)
    if (kept := _kept(out, recipe)) is not None:
        return kept, True
    found = source.build(config, track)
    provenance = {**found.provenance, **recipe, 'recipe': _hash(recipe)}
    found = dataclasses.replace(found, provenance=provenance)
    found.save(out)
    return found, False


def recipe_of(name: str, config: Any) -> dict[str, Any]:
    """Return all that decides the result: configuration, version of the source, what it reads.

    Recordings count by name and size, so that a set of many gigabytes need not be read again.
    Where they are does not count.
    """
    source = _source(name)
    # Through JSON, as a folder gives it back: lists, no tuples.
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    values.pop('input', None)
    files = source.files(config) if source.files else []
    return {
        'config': values,
        'source_version': source.version,
        'embodiment': shipped(source.embodiment).checksum,
        'files': [[path.name, path.stat().st_size] for path in files],
        'packages': {package: _version(package) for package in source.packages},
    }


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ConfigError(f'no source {name!r}; known: {", ".join(SOURCES)}')
    return SOURCES[name]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return 'missing'  # the source says so when it needs it


def _hash(recipe: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _kept(out: pathlib.Path, recipe: Mapping[str, Any]) -> MotionSet | None:
    """Return the set of a folder if it is whole and of this recipe."""
    try:
        if read_description(out).get('provenance', {}).get('recipe') != _hash(recipe):
            return None
        return MotionSet.load(out)
    except MotionError:
        return None
