"""Tables of the parameters that the nodes declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def parameter_table(table: Mapping[str, Any], prefix: str = '') -> str:
    """Return a Markdown table of `parameters.Spec` entries."""
    from faster_vla_ros.parameters import REQUIRED

    names = {tuple: 'list', str: 'string', float: 'double', int: 'int', bool: 'bool'}
    lines = ['| parameter | type | default | meaning |', '|---|---|---|---|']
    for name, spec in table.items():
        default = '**required**' if spec.default is REQUIRED else _shown(spec.default)
        allowed = f' ({", ".join(map(str, spec.one_of))})' if len(spec.one_of) > 1 else ''
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

    component = p.LIMIT_TABLE | p.POSITION_TABLE | p.OUTPUT_TABLE
    feedback = {f'feedback.{k}': spec for k, spec in p.FEEDBACK_TABLE.items()}
    return '\n\n'.join(
        (
            parameter_table(p.NODE_TABLE | p.RULES_TABLE),
            parameter_table(component | feedback, '<component>.'),
        )
    )
