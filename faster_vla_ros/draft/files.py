"""The two files of a robot, written from a draft; what nobody can know is marked TODO."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

from faster_vla_ros.draft.layout import Part
from faster_vla_ros.draft.urdf import Joint

# Share of a joint's speed that is allowed, and of its range that is left free at either end.
SPEED_SHARE = 0.3
RANGE_MARGIN = 0.02
# Where the URDF says nothing: slow, and marked.
UNKNOWN_SPEED = {'turning': 0.3, 'sliding': 0.05}
# Likewise, and of joints that turn without end: wide, so that what is wrong by far is refused.
UNKNOWN_RANGE = {'turning': 6.28, 'sliding': 1.0}
# Of a first set-point from the measured position, rad or m.
START_OFFSET = {'turning': 0.15, 'sliding': 0.05}
TODO = 'TODO'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """What is written.

    Attributes:
        name: of the robot.
        parts: arms and grippers.
        cameras: ids; the first is the reference.
        base: whether there is a base that takes twists.
        frequency: Hz of the rows of a chunk.
        horizon: rows of a chunk.
    """

    name: str
    parts: Sequence[Part]
    cameras: Sequence[str]
    base: bool
    frequency: float
    horizon: int


def embodiment_text(draft: Draft) -> str:
    """Return the embodiment file."""
    lines = [
        '# Drafted from a URDF with `faster-vla draft-robot`. Nothing here may change once a',
        '# policy has been trained on it.',
        f'name: {draft.name}',
        f'action_frequency: {draft.frequency}   # {TODO}: Hz of your demonstrations',
        f'action_horizon: {draft.horizon}   # {TODO}: rows of a chunk',
        f'cameras: [{", ".join(draft.cameras)}]   # {TODO}: the first is the reference',
        'state:',
        *_components(draft.parts),
        'action:',
        *_components(draft.parts),
    ]
    if draft.base:
        lines.append('  - {component: base, kind: twist, names: [vx, vy, wz]}')
    names = [p.name for p in draft.parts] + (['base'] if draft.base else [])
    lines += ['tokenizer_groups:', *(f'  - [{name}]' for name in names)]
    return '\n'.join(lines) + '\n'


def _components(parts: Sequence[Part]) -> list[str]:
    return [
        f'  - {{component: {p.name}, '
        f'kind: {"gripper_position" if p.gripper else "joint_position"}, '
        f'names: [{", ".join(_quoted(j.name) for j in p.joints)}]}}'
        for p in parts
    ]


def robot_text(draft: Draft) -> str:
    """Return the robot file."""
    names = [p.name for p in draft.parts]
    lines = [
        '# Drafted from a URDF with `faster-vla draft-robot`. Not run on hardware. Each line',
        f'# marked {TODO} needs an answer that no URDF has; `faster-vla doctor` checks the rest.',
        '/**:',
        '  policy_node:',
        '    ros__parameters:',
        f'      cameras: [{", ".join(map(_quoted, draft.cameras))}]',
        f'      reference_camera: {_quoted(draft.cameras[0])}',
        *(
            f'      {c}.topic: "{c}/image_raw"   # {TODO}: topic of the driver'
            for c in draft.cameras
        ),
        f'      state_sources: [{", ".join(map(_quoted, names))}]',
    ]
    for part in draft.parts:
        lines += [
            f'      {part.name}.topic: "joint_states"',
            f'      {part.name}.joints: {_list(part)}',
        ]
    every = names + (['base'] if draft.base else [])
    lines += [
        '',
        '  action_dispatcher:',
        '    ros__parameters:',
        f'      components: [{", ".join(map(_quoted, every))}]',
    ]
    for part in draft.parts:
        lines += _dispatcher_lines(part)
    if draft.base:
        lines += _base_lines()
    return '\n'.join(lines) + '\n'


def _dispatcher_lines(part: Part) -> list[str]:
    prefix = f'      {part.name}.'
    lines = [
        f'{prefix}output: "joint_trajectory"',
        f'{prefix}topic: "{part.name}_controller/joint_trajectory"   # {TODO}: your controller',
        f'{prefix}joints: {_list(part)}',
        f'{prefix}max_velocity: {_numbers(speed(j) for j in part.joints)}'
        f'   # {_units(part, "/s")}; {_speed_note(part)}',
        f'{prefix}max_acceleration: {_numbers(2 * speed(j) for j in part.joints)}'
        f'   # {_units(part, "/s²")}; {TODO}: no URDF has it, half a second to full speed',
    ]
    ends = [end for j in part.joints for end in free_range(j)]
    lines.append(
        f'{prefix}position_limits: {_numbers(ends)}   # {_units(part)}; {_range_note(part)}'
    )
    start = min(START_OFFSET[_motion(j)] for j in part.joints)
    if part.gripper:
        start = max(round(j.upper - j.lower, 4) for j in part.joints)
        start = start if math.isfinite(start) else 0.1
    lines += [f'{prefix}max_start_offset: {start:g}', f'{prefix}on_stale: "hold"']
    return lines


def _base_lines() -> list[str]:
    return [
        '      base.output: "twist_stamped"',
        f'      base.topic: "cmd_vel"   # {TODO}: and twist_stamped or twist as the base takes it',
        f'      base.max_velocity: [0.2, 0.2, 0.4]   # m/s, m/s, rad/s; {TODO}: no URDF has it',
        f'      base.max_acceleration: [0.5, 0.5, 1.0]   # {TODO}',
        '      base.on_stale: "zero"',
        f'      base.stop_pub_timeout: 0.0   # {TODO}: zeros for ever, unless your base times out',
        '      guard.topic: "guard/state"   # nothing moves unless the guard hears it',
        '',
        '  guard:',
        '    ros__parameters:',
        f'      topics: ["cmd_vel"]   # {TODO}: as base.topic',
        f'      types: ["twist_stamped"]   # {TODO}: as base.output',
    ]


def speed(joint: Joint) -> float:
    """Return the speed that is allowed, rad/s or m/s."""
    if math.isfinite(joint.velocity):
        return _rounded_down(SPEED_SHARE * joint.velocity)
    return UNKNOWN_SPEED[_motion(joint)]


def _motion(joint: Joint) -> str:
    return 'sliding' if joint.kind == 'prismatic' else 'turning'


def free_range(joint: Joint) -> tuple[float, float]:
    """Return the range that is allowed, rad or m."""
    if not math.isfinite(joint.lower):
        unknown = UNKNOWN_RANGE[_motion(joint)]
        return -unknown, unknown
    margin = RANGE_MARGIN * (joint.upper - joint.lower)
    return round(joint.lower + margin, 6), round(joint.upper - margin, 6)


def _rounded_down(value: float) -> float:
    """Return two leading digits of a positive number: a limit must not be rounded up."""
    digits = 1 - math.floor(math.log10(value))
    return math.floor(value * 10**digits) / 10**digits


def _speed_note(part: Part) -> str:
    unknown = [j.name for j in part.joints if not math.isfinite(j.velocity)]
    if unknown:
        return f'{TODO}: the URDF has none for {", ".join(unknown)}'
    return f"{SPEED_SHARE:.0%} of the URDF's"


def _range_note(part: Part) -> str:
    free = f"{RANGE_MARGIN:.0%} of the URDF's range left free at either end"
    endless = [j.name for j in part.joints if not math.isfinite(j.lower)]
    if endless:
        return f'{TODO}: the URDF has no range for {", ".join(endless)}; {free} of the others'
    return free


def _units(part: Part, per: str = '') -> str:
    kinds = dict.fromkeys('m' if j.kind == 'prismatic' else 'rad' for j in part.joints)
    return ' and '.join(f'{unit}{per}' for unit in kinds)


def _list(part: Part) -> str:
    return f'[{", ".join(_quoted(j.name) for j in part.joints)}]'


def _quoted(text: str) -> str:
    escaped = text.replace('\\', '\\\\').replace('"', '\\"')
    return f'"{escaped}"'


def _numbers(values) -> str:
    return f'[{", ".join(repr(float(v)) for v in values)}]'


def todo_lines(text: str) -> list[str]:
    """Return the lines of a file that need an answer, with their numbers."""
    return [
        f'{number}: {line.strip()}'
        for number, line in enumerate(text.splitlines(), start=1)
        if TODO in line and not line.startswith('#')
    ]
