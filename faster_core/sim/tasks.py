"""Instructions the simulated robot can be given, and when they are done.

Every task lives in the same scenes (`scene.draw_layout`): which block, which hand, which place and
which motion is said by the instruction alone; where it is can only be seen.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from faster_core.sim import scene

if TYPE_CHECKING:
    from faster_core.sim.r1_lite import R1LiteSim

# Lifted block: height of its centre above its resting place, metres.
PICKED = (0.05, 0.17)
RAISED = 0.21
# Base aligned with a post: lateral distance (m) and speed (m/s) below these.
POST_TOLERANCE = 0.07
POST_SPEED = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One instruction.

    Attributes:
        name: key in `TASKS`.
        instruction: the sentence the policy gets.
        motion: 'pick', 'raise' or 'drive': which expert solves it.
        target: body the instruction is about.
        predicate: whether it is done right now; must hold 1 s.
    """

    name: str
    instruction: str
    motion: str
    target: str
    predicate: Callable[[R1LiteSim], bool]


def _lift_height(sim: R1LiteSim, block: str) -> float:
    return float(sim.data.body(block).xpos[2] - scene.TABLE_TOP - scene.BLOCK_HALF[2])


def _held(sim: R1LiteSim, block: str) -> bool:
    """Whether both fingers of one hand touch the block (contact, not distance)."""
    geom = sim.model.geom(block).id
    touching = {g for contact in sim.data.contact if geom in contact.geom for g in contact.geom}
    return any(
        touching >= {sim.model.geom(f'{side}_finger{i}').id for i in (1, 2)}
        for side in ('left', 'right')
    )


def _others_rest(sim: R1LiteSim, block: str) -> bool:
    return all(abs(_lift_height(sim, b)) < 0.03 for b in scene.BLOCKS if b != block)


def _picked(block: str) -> Callable[[R1LiteSim], bool]:
    def predicate(sim: R1LiteSim) -> bool:
        inside = PICKED[0] <= _lift_height(sim, block) <= PICKED[1]
        return inside and _held(sim, block) and _others_rest(sim, block)

    return predicate


def _raised(block: str) -> Callable[[R1LiteSim], bool]:
    def predicate(sim: R1LiteSim) -> bool:
        high = _lift_height(sim, block) >= RAISED
        return high and _held(sim, block) and _others_rest(sim, block)

    return predicate


def _beside(post: str) -> Callable[[R1LiteSim], bool]:
    def predicate(sim: R1LiteSim) -> bool:
        position, velocity = sim.feedback('base')
        distance = abs(position[1] - sim.data.body(post).xpos[1])
        still = np.hypot(velocity[0], velocity[1]) < POST_SPEED
        return bool(distance < POST_TOLERANCE and still) and _others_rest(sim, '')

    return predicate


def _task(name: str, instruction: str, motion: str, target: str) -> Task:
    makers = {'pick': _picked, 'raise': _raised, 'drive': _beside}
    return Task(
        name=name,
        instruction=instruction,
        motion=motion,
        target=target,
        predicate=makers[motion](target),
    )


TASKS: dict[str, Task] = {
    t.name: t
    for t in (
        _task('pick_red', 'pick up the red block', 'pick', 'red_block'),
        _task('pick_blue', 'pick up the blue block', 'pick', 'blue_block'),
        _task(
            'pick_green_left',
            'pick up the green block with the left hand',
            'pick',
            'left_green_block',
        ),
        _task(
            'pick_green_right',
            'pick up the green block with the right hand',
            'pick',
            'right_green_block',
        ),
        _task('raise_red', 'raise the red block high', 'raise', 'red_block'),
        _task('drive_yellow', 'drive to the yellow post', 'drive', 'yellow_post'),
        _task('drive_purple', 'drive to the purple post', 'drive', 'purple_post'),
    )
}


def scene_task(seed: int) -> Task:
    """Return the task a scene gets when none is asked for: round robin by seed."""
    return list(TASKS.values())[seed % len(TASKS)]


def task_of_instruction(instruction: str) -> Task | None:
    """Return the task with this instruction (case and spaces do not matter), if any."""
    wanted = ' '.join(instruction.lower().split())
    return next((t for t in TASKS.values() if t.instruction == wanted), None)
