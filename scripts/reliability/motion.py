"""What the measurements let the robot do: every component moves, as a function of absolute time.

Chunks of different observations agree, as those of a good policy do, and whoever continues after
a pause finds the robot within reach.
"""

from __future__ import annotations

import numpy as np

from faster_core.embodiment import Embodiment

ARM = (0.1, 0.5, -0.5, 0.0, 0.2, 0.0)  # rad
REACH = 0.12  # rad; its double is less than an arm may be away from where it starts
PACE = 3.0  # rad/s of the phase
GRIPPER = (0.03, 0.07)  # m, open and shut every second
BASE_SPEED = 0.1  # m/s
TORSO_SPEED = 0.05  # m/s


def moving_rows(times: np.ndarray, embodiment: Embodiment) -> np.ndarray:
    """Return rows [H, D] due at `times` [H] (s) for the R1 Lite."""
    times = np.asarray(times, dtype=float)
    values = np.zeros((len(times), embodiment.action_dim), np.float32)
    at = embodiment.action_slices
    for arm, shift in (('left_arm', 0.0), ('right_arm', np.pi / 2)):
        values[:, at[arm]] = ARM
        values[:, at[arm].start] += REACH * np.sin(PACE * times + shift)
        values[:, at[arm].start + 3] += REACH * np.cos(PACE * times + shift)
    shut = (np.floor(times) % 2).astype(int)
    values[:, at['left_gripper']] = np.array(GRIPPER)[shut][:, None]
    values[:, at['right_gripper']] = np.array(GRIPPER)[1 - shut][:, None]
    values[:, at['torso'].start] = TORSO_SPEED
    values[:, at['base'].start] = BASE_SPEED
    return values
