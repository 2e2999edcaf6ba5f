"""Which joints of a URDF are arms and which are grippers."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import re

from faster_core.errors import ConfigError
from faster_vla_ros.draft.urdf import Joint, Robot

_SIDES = ('left', 'right')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One component of the draft.

    Attributes:
        name: of the component.
        joints: with motors, in the order of the chain.
        gripper: whether it is one.
    """

    name: str
    joints: tuple[Joint, ...]
    gripper: bool = False


def layout(robot: Robot, arms: Sequence[str] = ()) -> tuple[Part, ...]:
    """Return arms and grippers: per arm its joints from the base outwards, then what grips.

    A gripper is what moves below an arm's last link, or the end of its chain: joints that others
    mimic and, without `arms`, sliding joints. Without `arms` the one chain with most turning
    joints is the arm.

    Args:
        robot: the URDF.
        arms: links at the end of each arm (a flange, a tool frame); joints that slide on the way
            there are the arm's own, as a SCARA's last one.

    Raises:
        ConfigError: no such link, arms that share joints, or a gripper of several motors.
    """
    tips = list(arms) or [_longest(robot)]
    chains = [_without_gripper(robot, robot.chain(tip), sliding=not arms) for tip in tips]
    for tip, chain in zip(tips, chains, strict=True):
        if not chain:
            raise ConfigError(f'--arm {tip}: expected a link that joints turn, found none')
    _refuse_shared(tips, chains)
    names = _names(tips, chains)
    parts: list[Part] = []
    for tip, chain, name in zip(tips, chains, names, strict=True):
        parts.append(Part(name=f'{name}arm', joints=chain))
        fingers = _fingers(robot, chain, [c for c in chains if c is not chain])
        if len(fingers) > 1:
            found = ', '.join(j.name for j in fingers)
            raise ConfigError(
                f'the gripper of {tip} has several motors ({found}): expected one, with mimic '
                'joints for the others; a hand needs files written by hand (docs/robots.md)'
            )
        if fingers:
            parts.append(Part(name=f'{name}gripper', joints=fingers, gripper=True))
    return tuple(parts)


def _without_gripper(
    robot: Robot, chain: tuple[Joint, ...], *, sliding: bool = True
) -> tuple[Joint, ...]:
    """Cut off what grips at the end: the tip may be a finger. `sliding`: whatever slides grips."""
    followers = robot.followers
    while chain and (chain[-1].name in followers or (sliding and chain[-1].kind == 'prismatic')):
        chain = chain[:-1]
    return chain


def _longest(robot: Robot) -> str:
    """Return the end of the chain with most turning joints; ConfigError if there are two."""
    best: dict[tuple[Joint, ...], str] = {}
    for tip in robot.tips:
        chain = _without_gripper(robot, robot.chain(tip))
        best.setdefault(chain, tip)
    most = max(len(chain) for chain in best)
    found = {chain: tip for chain, tip in best.items() if len(chain) == most}
    if most == 0:
        raise ConfigError('expected an arm of turning joints, found none')
    if len(found) > 1:
        raise ConfigError(
            f'several arms of {most} joints, ending in {", ".join(found.values())}: say which '
            'ones with --arm LINK, once per arm'
        )
    return next(iter(found.values()))


def _fingers(
    robot: Robot, chain: Sequence[Joint], others: Sequence[Sequence[Joint]]
) -> tuple[Joint, ...]:
    """Return the motors below the last joint of an arm that belong to no other arm."""
    taken = {j.name for other in others for j in other}
    return tuple(j for j in robot.below(chain[-1].child) if j.moves and j.name not in taken)


def _refuse_shared(tips: Sequence[str], chains: Sequence[Sequence[Joint]]) -> None:
    owner: dict[str, str] = {}
    for tip, chain in zip(tips, chains, strict=True):
        for joint in chain:
            if joint.name in owner:
                raise ConfigError(
                    f'--arm {owner[joint.name]} and --arm {tip} share {joint.name}: expected arms '
                    'with joints of their own (a torso is a component of its own)'
                )
            owner[joint.name] = tip


def _names(tips: Sequence[str], chains: Sequence[Sequence[Joint]]) -> list[str]:
    """Return a prefix per arm: none, left_ and right_, or numbers."""
    if len(tips) == 1:
        return ['']
    sides = [_side([tip, *(j.name for j in c)]) for tip, c in zip(tips, chains, strict=True)]
    if None not in sides and len(set(sides)) == len(sides):
        return [f'{side}_' for side in sides]
    return [f'arm{i}_' for i in range(1, len(tips) + 1)]


def _side(names: Sequence[str]) -> str | None:
    """Return the side that all of these names speak of, None if none does."""
    for side in _SIDES:
        word = re.compile(rf'(^|[^a-z]){side}([^a-z]|$)', re.IGNORECASE)
        if any(word.search(n) for n in names[:1]) or all(word.search(n) for n in names):
            return side
    return None
