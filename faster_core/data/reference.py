"""What the positions of a chunk are relative to.

Joint positions may be taken relative to the measured ones at the observation, as pi0 does (Black
et al. 2024, appendix): a code then says how to move, not where in the room the robot is.
"""

from __future__ import annotations

import numpy as np

from faster_core.embodiment import Embodiment, Kind

ABSOLUTE, STATE = 'absolute', 'state'
REFERENCES = (ABSOLUTE, STATE)


def reference_of(state: np.ndarray, embodiment: Embodiment, reference: str) -> np.ndarray:
    """Return what is subtracted from every row of a chunk, and added again after decoding.

    Args:
        state: [..., S] measured, SI units.
        embodiment: layout of state and action.
        reference: 'state': joint positions that are also measured, under the same name; all other
            columns, and 'absolute': zero.

    Returns:
        float32 [..., D].
    """
    state = np.asarray(state, dtype=np.float32)
    result = np.zeros((*state.shape[:-1], embodiment.action_dim), dtype=np.float32)
    if reference == ABSOLUTE:
        return result
    measured = {c.name: c for c in embodiment.state}
    for c in embodiment.action:
        if c.kind is Kind.JOINT_POSITION and measured.get(c.name) == c:
            columns = embodiment.action_slices[c.name]
            result[..., columns] = state[..., embodiment.state_slices[c.name]]
    return result
