"""`ActionChunk` on the wire and in the core: one place turns one into the other.

Physical SI units on both sides. A message that does not say what the embodiment says (names,
kinds, frames, sizes) is refused whole with the key the dispatcher counts by.
"""

from __future__ import annotations

import math

from builtin_interfaces.msg import Duration as DurationMsg
from builtin_interfaces.msg import Time as TimeMsg
import numpy as np
from unique_identifier_msgs.msg import UUID

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Component, Embodiment, Kind
from faster_core.execution.errors import ChunkError
from faster_vla_msgs.msg import ActionChunk as ActionChunkMsg
from faster_vla_msgs.msg import ActionComponent

CARTESIAN = (Kind.EE_POSE, Kind.TWIST, Kind.EE_DELTA)
_NANO = 1_000_000_000


def seconds_from_stamp(stamp: TimeMsg | DurationMsg) -> float:
    """Return a `Time` or `Duration` message as seconds."""
    return stamp.sec + stamp.nanosec / _NANO


def stamp_from_seconds(seconds: float) -> TimeMsg:
    """Return seconds as a `Time` message; ValueError if it does not fit."""
    return TimeMsg(**_split(seconds))


def duration_from_seconds(seconds: float) -> DurationMsg:
    """Return seconds as a `Duration` message; ValueError if it does not fit."""
    return DurationMsg(**_split(seconds))


def _split(seconds: float) -> dict[str, int]:
    if not math.isfinite(seconds) or not -(2**31) <= seconds < 2**31:
        raise ValueError(f'{seconds} s does not fit into a 32-bit count of seconds')
    # The fraction apart: at today's dates the product of seconds and 1e9 is beyond 2**53.
    whole = math.floor(seconds)
    nanosec = round((seconds - whole) * _NANO)
    if nanosec == _NANO:
        whole, nanosec = whole + 1, 0
    return {'sec': whole, 'nanosec': nanosec}


def chunk_to_message(
    chunk: ActionChunk,
    embodiment: Embodiment,
    *,
    frame_id: str = 'base_link',
    instruction: str = '',
    goal_id: UUID | None = None,
) -> ActionChunkMsg:
    """Build the message of a chunk.

    Args:
        chunk: values [H, D]; H = 0 becomes a message without components (drop the plan, hold).
        embodiment: names, kinds and order of the columns; its checksum is written.
        frame_id: frame of the Cartesian components.
        instruction: what the chunk carries out.
        goal_id: the goal that asked for it; zeros in free-running mode.

    Raises:
        ChunkError: the chunk's shape is not [H, D].
    """
    values = np.asarray(chunk.values, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != embodiment.action_dim:
        raise ChunkError(
            'bad_shape', f'values are {list(values.shape)}, expected [H, {embodiment.action_dim}]'
        )
    message = ActionChunkMsg()
    message.header.stamp = stamp_from_seconds(chunk.stamp)
    message.header.frame_id = frame_id
    message.sequence_id = chunk.sequence_id
    message.embodiment_checksum = embodiment.checksum
    if goal_id is not None:
        message.goal_id = goal_id
    message.instruction = instruction
    message.first_step_offset = duration_from_seconds(chunk.first_step_offset)
    message.step_period = duration_from_seconds(chunk.step_period)
    message.num_steps = len(values)
    message.block_log_prob = [float(v) for v in chunk.log_prob]
    message.block_entropy = [float(v) for v in chunk.entropy]
    message.num_levels = chunk.num_levels or 0
    if len(values):
        message.components = [
            _component_message(c, values[:, embodiment.action_slices[c.name]], frame_id)
            for c in embodiment.action
        ]
    return message


def _component_message(c: Component, values: np.ndarray, frame_id: str) -> ActionComponent:
    message = ActionComponent(kind=int(c.kind), name=c.name, names=list(c.names))
    message.frame_id = frame_id if c.kind in CARTESIAN else ''
    message.data.frombytes(np.ascontiguousarray(values).view(np.uint8))
    return message


def chunk_from_message(
    message: ActionChunkMsg, embodiment: Embodiment, *, frame_id: str = 'base_link'
) -> ActionChunk:
    """Return the core's chunk of a message; values are float32 [H, D].

    Everything needed to lay the columns out is judged here; a chunk without a checksum is carried
    over for the dispatcher to judge.

    Raises:
        ChunkError: `embodiment_mismatch`, `bad_names` (components, kinds or column names differ
            from the embodiment), `bad_frame` or `bad_shape`.
    """
    expected = embodiment.action if message.num_steps else ()
    # Another embodiment's chunk is named as such, not by the first name that differs.
    if message.embodiment_checksum and message.embodiment_checksum != embodiment.checksum:
        raise ChunkError('embodiment_mismatch', mismatch(message.embodiment_checksum, embodiment))
    found = [c.name for c in message.components]
    if found != [c.name for c in expected]:
        raise ChunkError(
            'bad_names', f'components are {found}, expected {[c.name for c in expected]}'
        )
    columns = [
        _component_values(c, m, message.num_steps, frame_id)
        for c, m in zip(expected, message.components, strict=True)
    ]
    empty = np.zeros((0, embodiment.action_dim), dtype=np.float32)
    return ActionChunk(
        values=np.concatenate(columns, axis=1) if columns else empty,
        stamp=seconds_from_stamp(message.header.stamp),
        first_step_offset=seconds_from_stamp(message.first_step_offset),
        step_period=seconds_from_stamp(message.step_period),
        sequence_id=message.sequence_id,
        embodiment_checksum=message.embodiment_checksum,
        num_levels=message.num_levels or None,
        log_prob=tuple(message.block_log_prob),
        entropy=tuple(message.block_entropy),
    )


def mismatch(checksum: str, embodiment: Embodiment) -> str:
    """Return the sentence for a chunk of another embodiment."""
    return (
        f'the chunk is for embodiment {checksum[:12] or "(none)"}, this is {embodiment.name} '
        f'{embodiment.checksum[:12]}'
    )


def _component_values(
    c: Component, message: ActionComponent, num_steps: int, frame_id: str
) -> np.ndarray:
    if message.kind != c.kind or tuple(message.names) != c.names:
        raise ChunkError(
            'bad_names',
            f'{c.name}: kind {message.kind} {list(message.names)}, expected kind {int(c.kind)} '
            f'{list(c.names)}',
            c.name,
        )
    if message.frame_id != (expected := frame_id if c.kind in CARTESIAN else ''):
        raise ChunkError(
            'bad_frame', f'{c.name}: frame {message.frame_id!r}, expected {expected!r}', c.name
        )
    if len(message.data) != num_steps * c.size:
        raise ChunkError(
            'bad_shape',
            f'{c.name}: {len(message.data)} values, expected {num_steps} rows of {c.size}',
            c.name,
        )
    return np.asarray(message.data, dtype=np.float32).reshape(num_steps, c.size)
