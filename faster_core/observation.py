"""What the policy sees at one instant, in physical units."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

import numpy as np

from faster_core.embodiment import Embodiment
from faster_core.errors import InstructionError, ObservationError

MAX_INSTRUCTION_CHARS = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observation:
    """One synchronised observation.

    Attributes:
        images: camera name -> RGB uint8 [height, width, 3]; any size, all cameras of the
            embodiment.
        state: proprioception [S] in the embodiment's order, SI units.
        instruction: what to do, natural language.
        stamp: exposure time of the reference camera, seconds of the clock the robot uses.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    instruction: str
    stamp: float = 0.0

    def validate(self, embodiment: Embodiment, may_lack: int = 0) -> None:
        """Check against an embodiment.

        Args:
            embodiment: the robot.
            may_lack: how many cameras may be missing; never all.

        Raises:
            ObservationError: a camera is missing or unknown, an image is not uint8 [h, w, 3], the
                state has another length or a value that is not finite.
            InstructionError: the instruction is no text, empty or longer than
                `MAX_INSTRUCTION_CHARS`.
        """
        missing = [c for c in embodiment.cameras if c not in self.images]
        if len(missing) > min(may_lack, len(embodiment.cameras) - 1):
            raise ObservationError(f'no image of camera {", ".join(missing)}')
        if unknown := [c for c in self.images if c not in embodiment.cameras]:
            raise ObservationError(
                f'unknown camera {", ".join(unknown)}; the embodiment {embodiment.name} has '
                f'{", ".join(embodiment.cameras)}'
            )
        for name, image in self.images.items():
            image = np.asarray(image)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise ObservationError(
                    f'camera {name}: expected uint8 [height, width, 3], found {image.dtype} '
                    f'{list(image.shape)}'
                )
        state = np.asarray(self.state)
        if state.shape != (embodiment.state_dim,):
            raise ObservationError(
                f'state: expected [{embodiment.state_dim}], found {list(state.shape)}'
            )
        if state.dtype.kind not in 'fiu':
            raise ObservationError(f'state: expected numbers, found {state.dtype}')
        if not np.isfinite(state).all():
            names = [f'{c.name}/{n}' for c in embodiment.state for n in c.names]
            bad = [n for n, v in zip(names, state, strict=True) if not np.isfinite(v)]
            raise ObservationError(f'state: not finite: {", ".join(bad)}')
        check_instruction(self.instruction)


def check_instruction(text: str) -> None:
    """Refuse an instruction that is no text, empty or over-long (InstructionError)."""
    if not isinstance(text, str):
        raise InstructionError(f'the instruction is a {type(text).__name__}, not a text')
    if not text.strip():
        raise InstructionError('the instruction is empty')
    if len(text) > MAX_INSTRUCTION_CHARS:
        raise InstructionError(
            f'the instruction has {len(text)} characters, at most {MAX_INSTRUCTION_CHARS} are '
            'accepted'
        )
