"""The embodiment file: the single source of truth for what a policy sees and commands.

Names, order, kinds, sizes, rate, horizon, cameras and tokenizer groups of one robot. It is stored
in the checkpoint with its sha256; policy node and dispatcher refuse to work with different ones.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import enum
import hashlib
import math
import pathlib
import re

import yaml

from faster_core.errors import EmbodimentError

TWIST_NAMES = ('vx', 'vy', 'vz', 'wx', 'wy', 'wz')
EE_POSE_NAMES = ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')
EE_DELTA_NAMES = ('x', 'y', 'z', 'rx', 'ry', 'rz')
_ID = re.compile(r'[a-z][a-z0-9_]*\Z')


class Kind(enum.IntEnum):
    """How the columns of a component are read; the values equal `ActionComponent.KIND_*`."""

    JOINT_POSITION = 0
    JOINT_VELOCITY = 1
    EE_POSE = 2
    TWIST = 3
    GRIPPER_POSITION = 4
    EE_DELTA = 5

    @property
    def is_position(self) -> bool:
        """Whether a held robot repeats the value (positions) or commands zero (all motions)."""
        return self not in (Kind.JOINT_VELOCITY, Kind.TWIST, Kind.EE_DELTA)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """One named group of dimensions, in SI units (REP-103)."""

    name: str
    kind: Kind
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of dimensions."""
        return len(self.names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embodiment:
    """Layout of observations and actions of one robot.

    `source` is the text the checksum was taken over: save it, never a re-serialised copy.
    """

    name: str
    action_frequency: float
    action_horizon: int
    cameras: tuple[str, ...]
    state: tuple[Component, ...]
    action: tuple[Component, ...]
    tokenizer_groups: tuple[tuple[str, ...], ...]
    source: str = dataclasses.field(repr=False)

    @property
    def checksum(self) -> str:
        """sha256 (hex) of the file's text."""
        return hashlib.sha256(self.source.encode('utf-8')).hexdigest()

    @property
    def step_period(self) -> float:
        """Seconds between two rows of a chunk."""
        return 1.0 / self.action_frequency

    @property
    def action_dim(self) -> int:
        """Number of action dimensions D."""
        return sum(c.size for c in self.action)

    @property
    def state_dim(self) -> int:
        """Number of proprioceptive dimensions S."""
        return sum(c.size for c in self.state)

    @property
    def action_slices(self) -> dict[str, slice]:
        """Columns of each action component in a [H, D] chunk, in order."""
        return _slices(self.action)

    @property
    def state_slices(self) -> dict[str, slice]:
        """Columns of each state component in a [S] vector, in order."""
        return _slices(self.state)

    def action_component(self, name: str) -> Component:
        """Return the action component of that name; KeyError if there is none."""
        return {c.name: c for c in self.action}[name]

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Embodiment:
        """Read an embodiment file.

        Raises:
            EmbodimentError: the file is missing or its content is wrong; names file and field.
        """
        path = pathlib.Path(path)
        try:
            text = path.read_text(encoding='utf-8')
        except (OSError, UnicodeDecodeError) as e:
            raise EmbodimentError(f'embodiment file {path}: {e}') from e
        try:
            return cls.from_text(text)
        except EmbodimentError as e:
            raise EmbodimentError(f'embodiment file {path}: {e}') from e

    @classmethod
    def from_text(cls, text: str) -> Embodiment:
        """Parse the text of an embodiment file (YAML)."""
        try:
            raw = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as e:  # ValueError: an impossible date
            raise EmbodimentError(f'not YAML: {e}') from e
        if not isinstance(raw, Mapping):
            raise EmbodimentError(f'expected a mapping at the top, found {type(raw).__name__}')
        expected = {f.name for f in dataclasses.fields(cls)} - {'source'}
        if missing := expected - set(raw):
            raise EmbodimentError(f'missing keys: {", ".join(sorted(missing))}')
        if unknown := set(raw) - expected:
            raise EmbodimentError(
                f'unknown keys: {", ".join(sorted(map(str, unknown)))}; '
                f'known: {", ".join(sorted(expected))}'
            )
        action = _components(raw['action'], 'action')
        return cls(
            name=_identifier(raw['name'], 'name'),
            action_frequency=_positive(raw['action_frequency'], 'action_frequency'),
            action_horizon=_positive_int(raw['action_horizon'], 'action_horizon'),
            cameras=_unique_ids(raw['cameras'], 'cameras'),
            state=_components(raw['state'], 'state'),
            action=action,
            tokenizer_groups=_groups(raw['tokenizer_groups'], action),
            source=text,
        )


def _slices(components: tuple[Component, ...]) -> dict[str, slice]:
    result, start = {}, 0
    for c in components:
        result[c.name] = slice(start, start + c.size)
        start += c.size
    return result


def _identifier(value: object, field: str) -> str:
    if not isinstance(value, str) or not _ID.match(value):
        raise EmbodimentError(
            f'{field}: expected a lower-case identifier (a-z, 0-9, _), found {value!r}'
        )
    return value


def _positive(value: object, field: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise EmbodimentError(f'{field}: expected a positive number, found {value!r}')
    return float(value)


def _positive_int(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise EmbodimentError(f'{field}: expected a positive integer, found {value!r}')
    return value


def _list(value: object, field: str) -> list:
    if not isinstance(value, list) or not value:
        raise EmbodimentError(f'{field}: expected a non-empty list, found {value!r}')
    return value


def _unique_ids(value: object, field: str) -> tuple[str, ...]:
    ids = tuple(_identifier(v, f'{field}[{i}]') for i, v in enumerate(_list(value, field)))
    _refuse_duplicates(ids, field)
    return ids


def _refuse_duplicates(values: tuple[str, ...], field: str) -> None:
    if twice := sorted({v for v in values if values.count(v) > 1}):
        raise EmbodimentError(f'{field}: named twice: {", ".join(twice)}')


def _components(value: object, field: str) -> tuple[Component, ...]:
    components = tuple(_component(v, f'{field}[{i}]') for i, v in enumerate(_list(value, field)))
    _refuse_duplicates(tuple(c.name for c in components), field)
    return components


def _component(value: object, field: str) -> Component:
    if not isinstance(value, Mapping) or set(value) != {'component', 'kind', 'names'}:
        raise EmbodimentError(f'{field}: expected {{component, kind, names}}, found {value!r}')
    kinds = {k.name.lower(): k for k in Kind}
    if not isinstance(value['kind'], str) or value['kind'] not in kinds:
        raise EmbodimentError(
            f'{field}.kind: expected one of {", ".join(kinds)}, found {value["kind"]!r}'
        )
    kind = kinds[value['kind']]
    names = tuple(_list(value['names'], f'{field}.names'))
    if bad := [n for n in names if not isinstance(n, str) or not n]:
        raise EmbodimentError(f'{field}.names: expected strings, found {bad[0]!r}')
    _refuse_duplicates(names, f'{field}.names')
    if kind is Kind.TWIST and not set(names) <= set(TWIST_NAMES):
        raise EmbodimentError(
            f'{field}.names: a twist has axes {", ".join(TWIST_NAMES)}, found {", ".join(names)}'
        )
    if kind is Kind.EE_POSE and names != EE_POSE_NAMES:
        raise EmbodimentError(
            f'{field}.names: an ee_pose has {", ".join(EE_POSE_NAMES)}, found {", ".join(names)}'
        )
    if kind is Kind.EE_DELTA and not set(names) <= set(EE_DELTA_NAMES):
        raise EmbodimentError(
            f'{field}.names: an ee_delta has axes {", ".join(EE_DELTA_NAMES)}, '
            f'found {", ".join(names)}'
        )
    return Component(
        name=_identifier(value['component'], f'{field}.component'), kind=kind, names=names
    )


def _groups(value: object, action: tuple[Component, ...]) -> tuple[tuple[str, ...], ...]:
    groups = tuple(
        _unique_ids(g, f'tokenizer_groups[{i}]')
        for i, g in enumerate(_list(value, 'tokenizer_groups'))
    )
    named = tuple(n for g in groups for n in g)
    _refuse_duplicates(named, 'tokenizer_groups')
    components = tuple(c.name for c in action)
    if named != components:
        raise EmbodimentError(
            'tokenizer_groups: must name every action component once and in order; '
            f'expected {", ".join(components)}, found {", ".join(named)}'
        )
    return groups
