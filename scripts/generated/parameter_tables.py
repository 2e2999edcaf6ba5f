"""Tables of the parameters that the nodes declare."""

from __future__ import annotations

from collections.abc import Mapping
import types
from typing import Any


def parameter_table(table: Mapping[str, Any], prefix: str = '') -> str:
    """Return a Markdown table of `parameters.Spec` entries."""
    from faster_vla_ros.parameters import REQUIRED

    names = {tuple: 'list', str: 'string', float: 'double', int: 'int', bool: 'bool'}
    lines = ['| parameter | type | default | meaning |', '|---|---|---|---|']
    for name, spec in table.items():
        default = '**required**' if spec.default is REQUIRED else _shown(spec.default)
        choices = [str(c) for c in spec.one_of if c != '']
        allowed = f' ({", ".join(choices)})' if len(choices) > 1 else ''
        lines.append(
            f'| `{prefix}{name}` | {names[spec.type]} | {default} | {spec.help}{allowed} |'
        )
    return '\n'.join(lines)


def _shown(default: Any) -> str:
    if default is None or default == '':
        return '–'
    return f'`{str(default).lower() if isinstance(default, bool) else default}`'


def guard_parameters() -> str:
    """Return those of the guard."""
    from faster_vla_ros.guard import PARAMETERS

    return parameter_table(PARAMETERS)


def simulated_robot_parameters() -> str:
    """Return those of `mujoco_robot`, by what has them; names of joints and topics left out."""
    from faster_vla_ros import mujoco_robot as m

    nothing = types.SimpleNamespace(parts=(), cameras=())
    control = m.Ros2ControlDialect.parameters(nothing, {'robot': '', 'arm_model': ''})
    tables = {
        'Always:': m.CHOICES | m.PARAMETERS,
        'Of `r1_lite`:': m.R1_LITE_PARAMETERS,
        'Of the other robots:': m.OTHER_ROBOTS_PARAMETERS,
        'With the dialect `vendor`:': m.VENDOR_PARAMETERS,
        'With the dialect `ros2_control`:': control,
    }
    return '\n\n'.join(f'{text}\n\n{parameter_table(table)}' for text, table in tables.items())


def policy_parameters() -> str:
    """Return those of the policy node, of its cameras and of its state sources."""
    from faster_vla_ros import policy_parameters as p

    return '\n\n'.join(
        (
            parameter_table(p.TABLE),
            parameter_table(p.CAMERA_TABLE, '<camera>.'),
            parameter_table(p.SOURCE_TABLE, '<source>.'),
        )
    )


def dispatcher_parameters() -> str:
    """Return those of the dispatcher and of its components."""
    from faster_vla_ros import dispatcher_parameters as p

    component = p.COMPONENT_TABLE | p.LIMIT_TABLE | p.POSITION_TABLE | p.OUTPUT_TABLE
    feedback = {f'feedback.{k}': spec for k, spec in p.FEEDBACK_TABLE.items()}
    return '\n\n'.join(
        (
            parameter_table(p.NODE_TABLE | p.RULES_TABLE),
            parameter_table(component | feedback, '<component>.'),
        )
    )
