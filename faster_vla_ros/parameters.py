"""Parameters of a node: a table says what exists; everything else is refused.

The node declares its overrides automatically; `read` checks them against the table, fills in
defaults (declared too, so that `ros2 param dump` shows them) and refuses changes at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from faster_core.errors import ConfigError

REQUIRED = object()
# Parameters of rclpy and of `diagnostic_updater`.
_OF_RCLPY = (
    'use_sim_time',
    'start_type_description_service',
    'qos_overrides.',
    'diagnostic_updater.',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """One parameter: type, default (`REQUIRED`, or None for optional), meaning, allowed values.

    Attributes:
        type: bool, int, float (finite), str, or tuple for a list.
        item: type of a list's items; None takes any.
        at_least: smallest allowed value.
        above: the value must be larger.
    """

    type: type
    default: Any = REQUIRED
    help: str
    item: type | None = None
    one_of: tuple[Any, ...] = ()
    at_least: float | None = None
    above: float | None = None

    def check(self, name: str, value: Any) -> Any:
        """Return the value in the right type; ConfigError names parameter and expectation."""
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if self.type is tuple:
            if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
                value = list(value) if hasattr(value, 'tolist') else value
            if isinstance(value, (str, bytes)) or not hasattr(value, '__iter__'):
                raise ConfigError(f'{name}: expected a list, found {value!r}')
            value = tuple(value)
            if self.item is not None and not all(_is(self.item, v) for v in value):
                raise ConfigError(
                    f'{name}: expected a list of {self.item.__name__}, found {list(value)!r}'
                )
        elif not _is(self.type, value):
            raise ConfigError(f'{name}: expected {self.type.__name__}, found {value!r}')
        if self.type is float and not math.isfinite(value):
            raise ConfigError(f'{name}: expected a finite number, found {value!r}')
        if self.one_of and value not in self.one_of:
            allowed = ', '.join(map(str, self.one_of))
            raise ConfigError(f'{name}: expected one of {allowed}, found {value!r}')
        if self.at_least is not None and not value >= self.at_least:
            raise ConfigError(f'{name}: expected at least {self.at_least}, found {value!r}')
        if self.above is not None and not value > self.above:
            raise ConfigError(f'{name}: expected more than {self.above}, found {value!r}')
        return value


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def overrides(node: Node) -> dict[str, Any]:
    """Return the parameters that were given to a node, flat."""
    values = {name: p.value for name, p in node.get_parameters_by_prefix('').items()}
    return {
        name: value
        for name, value in values.items()
        if not any(name == k or (k.endswith('.') and name.startswith(k)) for k in _OF_RCLPY)
    }


def read(node: Node, table: Mapping[str, Spec]) -> dict[str, Any]:
    """Check a node's parameters against a table and declare the missing ones.

    Raises:
        ConfigError: unknown, missing, of another type or out of range.
    """
    _forget_defaults(node, table)
    given = overrides(node)
    if unknown := sorted(set(given) - set(table)):
        raise ConfigError(f'unknown parameters: {", ".join(unknown)}')
    values = {}
    for name, spec in table.items():
        value = given.get(name)
        if value is None:
            value = spec.default
        if value is REQUIRED:
            raise ConfigError(f'parameter {name} is required ({spec.help})')
        if value is not None:
            value = spec.check(name, value)
        values[name] = value
        if name not in given and value is not None and not node.has_parameter(name):
            plain = list(value) if isinstance(value, tuple) else value
            if plain != []:  # an empty list has no type in ROS
                node.declare_parameter(name, plain, ParameterDescriptor(description=spec.help))
    return values


def _forget_defaults(node: Node, table: Mapping[str, Spec]) -> None:
    """Undeclare what an earlier `read` declared by another table, of a camera that is no more."""
    for name in set(overrides(node)) - set(table):
        # What was given to the node is declared without a description.
        if node.describe_parameter(name).description:
            node.undeclare_parameter(name)


def refuse_changes(
    node: Node,
    changeable: Mapping[str, Spec] | None = None,
    on_change: Callable[[dict[str, Any]], None] | None = None,
) -> Callable[[], None]:
    """Refuse run-time changes: what was configured is what runs until the next configure.

    Args:
        node: whose parameters are guarded.
        changeable: exceptions; a new value must pass its check.
        on_change: called with the checked values of one request; a ConfigError refuses them all.

    Returns:
        Call it to allow changes again.
    """
    exceptions = changeable or {}

    def decide(parameters: list[Parameter]) -> SetParametersResult:
        wanted = {p.name: p.value for p in parameters if p.name != 'use_sim_time'}
        if fixed := [name for name in wanted if name not in exceptions]:
            return SetParametersResult(
                successful=False, reason=f'{", ".join(fixed)}: fixed while configured'
            )
        try:
            values = {name: exceptions[name].check(name, v) for name, v in wanted.items()}
            if values and on_change is not None:
                on_change(values)
        except ConfigError as e:
            return SetParametersResult(successful=False, reason=str(e))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(decide)
    return lambda: node.remove_on_set_parameters_callback(decide)
