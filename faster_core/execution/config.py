"""Configuration of the dispatcher: the `action_dispatcher` part of a robot file, units SI.

The same flat parameter names serve the ROS node and the offline evaluator; keys that only say
where commands go (`WIRE_KEYS`) are known here and judged by the node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import importlib.util
import math
import pathlib
from typing import Any

import numpy as np
import yaml

from faster_core.embodiment import Component, Embodiment, Kind
from faster_core.errors import ConfigError

ON_STALE = ('hold', 'zero', 'stop')
# Keys of a component that say how it is wired, and of the node, that motion does not depend on.
WIRE_KEYS = (
    'output',
    'topic',
    'action',
    'joints',
    'axes',
    'frame_id',
    'deadband',
    'max_effort',
    'scale',
    'offset',
    'feedback.topic',
    'feedback.mapping',
    'feedback.joints',
    'feedback.size',
    'feedback.scale',
    'feedback.offset',
)
NODE_KEYS = (
    'acceleration_limit.topic',
    'acceleration_limit.values',
    'autostart',
    'brake.topic',
    'dry_run',
    'embodiment',
    'estop.enable',
    'estop.timeout',
    'exclusive_topics',
    'guard.timeout',
    'guard.topic',
    'permit.field',
    'permit.timeout',
    'permit.topic',
    'permit.value',
    'takeover.publishers',
    'takeover.timeout',
    'takeover.topics',
    'use_sim_time',
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ComponentConfig:
    """Limits of one action component; arrays are [d], infinite where there is no limit.

    Attributes:
        max_velocity: positions: rad/s or m/s of the set-point; velocities: largest value.
        max_acceleration: rad/s² or m/s² of the set-point.
        max_jerk: rad/s³ or m/s³ of the set-point.
        lower, upper: range of positions.
        max_start_offset: first commanded position against the measured one; beyond, the chunk is
            rejected.
        on_stale: what follows when the plan is used up.
        stop_pub_timeout: seconds the safe command goes on after a stop or disable, then silence;
            0: until deactivated.
    """

    max_velocity: np.ndarray
    max_acceleration: np.ndarray
    max_jerk: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    max_start_offset: float
    on_stale: str
    stop_pub_timeout: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DispatcherConfig:
    """Rules of execution.

    Attributes:
        dispatch_rate: Hz of `tick`.
        min_lead: rows due sooner than this are dropped; 0 = one step period.
        blend_steps: rows over which the old plan fades into the new one; 0 = off.
        max_chunk_age: oldest observation whose chunk is accepted, seconds.
        feedback_timeout: positions measured longer ago stop the robot, seconds.
        excess_tolerance: share of a range or speed limit by which a row may exceed it; such a row
            is clipped (LIMIT), beyond it the chunk is rejected.
        consecutive_violation_threshold: rejected chunks in a row that are tolerated; the next one
            stops.
        require_enable: start disarmed.
        stop_pub_timeout: default of the components'.
        components: per action component.
    """

    dispatch_rate: float = 50.0
    min_lead: float = 0.0
    blend_steps: int = 5
    max_chunk_age: float = 1.0
    feedback_timeout: float = 0.5
    excess_tolerance: float = 0.1
    consecutive_violation_threshold: int = 3
    require_enable: bool = True
    stop_pub_timeout: float = 1.0
    components: Mapping[str, ComponentConfig]

    def __post_init__(self) -> None:
        """Refuse values out of range (ConfigError names value and expectation)."""
        for name in ('dispatch_rate', 'max_chunk_age', 'feedback_timeout'):
            _number(getattr(self, name), name, above=0.0)
        for name in ('min_lead', 'excess_tolerance', 'stop_pub_timeout'):
            _number(getattr(self, name), name)
        for name in ('blend_steps', 'consecutive_violation_threshold'):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f'{name}: expected a whole number >= 0, found {value!r}')
        if not isinstance(self.require_enable, bool):
            raise ConfigError(f'require_enable: expected a bool, found {self.require_enable!r}')

    @classmethod
    def from_parameters(
        cls, parameters: Mapping[str, Any], embodiment: Embodiment
    ) -> DispatcherConfig:
        """Build from flat parameters (`left_arm.max_velocity: [...]`), keys absent = default.

        Raises:
            ConfigError: `components` differ from the embodiment's, an unknown or missing key, or
                a value out of range.
        """
        names = [c.name for c in embodiment.action]
        found = parameters.get('components')
        listed = isinstance(found, Sequence) and not isinstance(found, str)
        if not listed or list(found) != names:
            raise ConfigError(
                f'components: found {found!r}, the embodiment {embodiment.name} has {names}'
            )
        own = {f.name for f in dataclasses.fields(cls)}
        limits = _LIMIT_KEYS + WIRE_KEYS
        known = own | set(NODE_KEYS) | {f'{n}.{key}' for n in names for key in limits}
        if unknown := sorted(set(parameters) - known):
            raise ConfigError(f'unknown parameters: {", ".join(unknown)}')
        general = {k: v for k, v in parameters.items() if k in own and k != 'components'}
        general = {k: _as_float(v) if k in _FLOATS else v for k, v in general.items()}
        timeout = general.get('stop_pub_timeout', cls.stop_pub_timeout)
        _number(timeout, 'stop_pub_timeout')
        components = {c.name: _component_config(c, parameters, timeout) for c in embodiment.action}
        return cls(components=components, **general)

    @classmethod
    def load(cls, path: str | pathlib.Path, embodiment: Embodiment) -> DispatcherConfig:
        """Read the `action_dispatcher` part of a robot file (a ROS parameter file).

        Raises:
            ConfigError: the file is missing, malformed or its values are wrong; names the file.
        """
        try:
            return cls.from_parameters(robot_file_parameters(path), embodiment)
        except ConfigError as e:
            raise ConfigError(f'robot file {path}: {e}') from e


def check_braking(config: DispatcherConfig, trajectories: Sequence[str]) -> None:
    """Refuse a component that goes out as a trajectory and could only stop with a jerk.

    Raises:
        ConfigError: names the component.
    """
    for name in trajectories:
        if not np.isfinite(config.components[name].max_acceleration).all():
            raise ConfigError(
                f'{name}.max_acceleration: missing; a trajectory needs it to be brought to rest'
            )


def robot_file_parameters(
    path: str | pathlib.Path, node: str = 'action_dispatcher'
) -> dict[str, Any]:
    """Return the flat parameters of one node in a robot file.

    Raises:
        ConfigError: the file cannot be read or has no such node.
    """
    try:
        raw = yaml.safe_load(pathlib.Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError, yaml.YAMLError) as e:  # ValueError: encoding, impossible date
        raise ConfigError(f'{path}: {e}') from e
    for key in ('/**', node, 'ros__parameters'):
        if not isinstance(raw, Mapping) or key not in raw:
            raise ConfigError(f'no {key!r} on the way to /**: {node}: ros__parameters')
        raw = raw[key]
    if raw is not None and not isinstance(raw, Mapping):
        raise ConfigError(f'ros__parameters of {node}: expected a mapping, found {raw!r}')
    return _flatten(raw or {})


_LIMIT_KEYS = (
    'max_velocity',
    'max_acceleration',
    'max_jerk',
    'position_limits',
    'max_start_offset',
    'on_stale',
    'stop_pub_timeout',
)
_FLOATS = (
    'dispatch_rate',
    'min_lead',
    'max_chunk_age',
    'feedback_timeout',
    'excess_tolerance',
    'stop_pub_timeout',
)


def _flatten(raw: Any, prefix: str = '') -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f'{prefix}{key}.')
        else:
            flat[f'{prefix}{key}'] = value
    return flat


def _component_config(
    c: Component, parameters: Mapping[str, Any], stop_pub_timeout: float
) -> ComponentConfig:
    def get(key: str, default: Any = None) -> Any:
        return parameters.get(f'{c.name}.{key}', default)

    if c.kind is Kind.EE_POSE:
        raise ConfigError(f'{c.name}: no output takes end-effector poses')
    if c.kind is Kind.EE_DELTA:
        raise ConfigError(f'{c.name}: no output takes end-effector displacements')
    if get('max_velocity') is None:
        raise ConfigError(f'{c.name}.max_velocity: missing')
    on_stale = get('on_stale', 'hold' if c.kind.is_position else 'zero')
    if on_stale not in ON_STALE:
        raise ConfigError(f'{c.name}.on_stale: expected one of {ON_STALE}, found {on_stale!r}')
    if on_stale == 'zero' and c.kind.is_position:
        raise ConfigError(f'{c.name}.on_stale: zero is a place for positions, not rest; use hold')
    if on_stale == 'hold' and not c.kind.is_position:
        raise ConfigError(f'{c.name}.on_stale: a held velocity goes on moving; use zero')
    lower, upper = _ranges(c, get('position_limits'))
    metres = c.kind is Kind.GRIPPER_POSITION
    return ComponentConfig(
        max_velocity=_per_dimension(c, 'max_velocity', get('max_velocity')),
        max_acceleration=_per_dimension(c, 'max_acceleration', get('max_acceleration')),
        max_jerk=_max_jerk(c, get('max_jerk'), get('max_acceleration')),
        lower=lower,
        upper=upper,
        max_start_offset=_number(
            get('max_start_offset', 0.05 if metres else 0.15),
            f'{c.name}.max_start_offset',
            above=0.0,
        ),
        on_stale=on_stale,
        stop_pub_timeout=_number(
            get('stop_pub_timeout', stop_pub_timeout), f'{c.name}.stop_pub_timeout'
        ),
    )


def _per_dimension(c: Component, key: str, values: Any) -> np.ndarray:
    if values is None:
        return np.full(c.size, np.inf)
    if isinstance(values, str) or not hasattr(values, '__len__') or len(values) != c.size:
        raise ConfigError(f'{c.name}.{key}: expected {c.size} numbers, found {values!r}')
    array = [_number(v, f'{c.name}.{key}[{i}]', above=0.0) for i, v in enumerate(values)]
    return np.array(array)


def _max_jerk(c: Component, values: Any, max_acceleration: Any) -> np.ndarray:
    if values is not None and max_acceleration is None:
        raise ConfigError(f'{c.name}.max_jerk: needs max_acceleration beside it')
    if values is not None and importlib.util.find_spec('ruckig') is None:
        raise ConfigError(f"{c.name}.max_jerk: needs ruckig: pip install '.[jerk]' or ruckig")
    return _per_dimension(c, 'max_jerk', values)


def _ranges(c: Component, values: Any) -> tuple[np.ndarray, np.ndarray]:
    if values is None:
        return np.full(c.size, -np.inf), np.full(c.size, np.inf)
    if not c.kind.is_position:
        raise ConfigError(f'{c.name}.position_limits: the component is a velocity')
    sizes = (2, 2 * c.size)
    if isinstance(values, str) or not hasattr(values, '__len__') or len(values) not in sizes:
        raise ConfigError(
            f'{c.name}.position_limits: expected [lower, upper] or one such pair for each of '
            f'{c.size} dimensions, found {values!r}'
        )
    flat = [_as_float(v) for v in values]
    bad = not all(isinstance(v, float) and math.isfinite(v) for v in flat)
    pairs = np.zeros((c.size, 2)) if bad else np.zeros((c.size, 2)) + np.reshape(flat, (-1, 2))
    if bad or (pairs[:, 0] >= pairs[:, 1]).any():
        raise ConfigError(f'{c.name}.position_limits: expected lower < upper, found {values!r}')
    return pairs[:, 0], pairs[:, 1]


def _as_float(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole else value


def _number(value: Any, name: str, *, above: float | None = None) -> float:
    value = _as_float(value)
    fine = isinstance(value, float) and math.isfinite(value) and value >= 0
    if not fine or (above is not None and value <= above):
        wanted = 'a number >= 0' if above is None else f'a number > {above:g}'
        raise ConfigError(f'{name}: expected {wanted}, found {value!r}')
    return value
