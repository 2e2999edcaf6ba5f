"""Limits that may be made stricter while the robot runs, and rules that may be changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.execution.config import DispatcherConfig

RULES = (
    'min_lead',
    'blend_steps',
    'max_chunk_age',
    'stop_pub_timeout',
    'consecutive_violation_threshold',
)
LIMITS = ('max_velocity', 'max_acceleration', 'position_limits')
_OTHERS = ('max_start_offset',)
# A lower limit on acceleration must not keep the robot from stopping: from full speed it takes no
# longer than this (s), or than it takes as configured.
_LONGEST_STOP = 2.0


class LiveLimits:
    """Takes changes of parameters; limits never beyond those that were configured."""

    def __init__(
        self,
        node: Node,
        parameters: Mapping[str, Any],
        embodiment: Embodiment,
        apply: Callable[[DispatcherConfig], None],
    ) -> None:
        """Take over all changes of the node's parameters.

        Args:
            node: whose parameters may change.
            parameters: flat, as they were configured.
            embodiment: the robot's.
            apply: called with the new configuration; a ConfigError refuses it.
        """
        self._embodiment, self._apply = embodiment, apply
        self._now = dict(parameters)
        self._configured = DispatcherConfig.from_parameters(parameters, embodiment)
        names = [c.name for c in embodiment.action]
        self._changeable = {
            *RULES,
            *(f'{name}.{key}' for name in names for key in (*LIMITS, *_OTHERS)),
        }
        node.add_on_set_parameters_callback(self._set)

    def _set(self, changes: list[Parameter]) -> SetParametersResult:
        wanted = {p.name: _plain(p.value) for p in changes if p.name != 'use_sim_time'}
        if fixed := sorted(set(wanted) - self._changeable):
            return SetParametersResult(
                successful=False, reason=f'{", ".join(fixed)}: fixed while configured'
            )
        try:
            config = DispatcherConfig.from_parameters(self._now | wanted, self._embodiment)
            self._refuse_wider(config)
            self._apply(config)
        except ConfigError as e:
            return SetParametersResult(successful=False, reason=str(e))
        self._now |= wanted
        return SetParametersResult(successful=True)

    def _refuse_wider(self, config: DispatcherConfig) -> None:
        for name, new in config.components.items():
            old = self._configured.components[name]
            stops = [(old.max_velocity / c.max_acceleration).max() for c in (old, new)]
            if stops[1] > max(stops[0], _LONGEST_STOP):
                raise ConfigError(
                    f'{name}.max_acceleration: found {_shown(new, "max_acceleration")}, a stop '
                    f'would take up to {stops[1]:.3g} s, expected at most '
                    f'{max(stops[0], _LONGEST_STOP):.3g} s'
                )
            for key, wider, found, most in (
                ('max_velocity', new.max_velocity > old.max_velocity, new, old),
                ('max_acceleration', new.max_acceleration > old.max_acceleration, new, old),
                ('position_limits', (new.lower < old.lower) | (new.upper > old.upper), new, old),
            ):
                if np.any(wider):
                    raise ConfigError(
                        f'{name}.{key}: found {_shown(found, key)}, expected at most '
                        f'{_shown(most, key)}, as configured; a limit may be lowered while the '
                        'robot runs, not raised'
                    )


def _shown(config: Any, key: str) -> list:
    if key == 'position_limits':
        return np.stack([config.lower, config.upper], axis=1).ravel().tolist()
    return getattr(config, key).tolist()


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, '__iter__') and not isinstance(value, str) else value
