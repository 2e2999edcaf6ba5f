"""What the measurements let the robot do: every component moves, as a function of absolute time.

Chunks of different observations agree, as those of a good policy do, and whoever continues after
a pause finds the robot within reach.
"""

from __future__ import annotations

import numpy as np

from faster_core.embodiment import Embodiment

ARM = (0.1, 0.5, -0.5, 0.0, 0.2, 0.0)  # rad
REACH = 0.12  # rad; its double is less than an arm may be away from where it starts
OTHER_REACHES = {'aloha_stationary': 0.06}  # embodiment -> the same where that is less
PACE = 3.0  # rad/s of the phase
GRIPPER = (0.03, 0.07)  # m, open and shut every second
OTHER_GRIPPERS = {'aloha_stationary': (0.03, 0.05)}  # embodiment -> the same of smaller ones
BASE_SPEED = 0.1  # m/s
TORSO_SPEED = 0.05  # m/s


def moving_rows(times: np.ndarray, embodiment: Embodiment) -> np.ndarray:
    """Return rows [H, D] due at `times` [H] (s) for the R1 Lite or two arms."""
    times = np.asarray(times, dtype=float)
    values = np.zeros((len(times), embodiment.action_dim), np.float32)
    at, reach = embodiment.action_slices, OTHER_REACHES.get(embodiment.name, REACH)
    for arm, shift in (('left_arm', 0.0), ('right_arm', np.pi / 2)):
        values[:, at[arm]] = ARM
        values[:, at[arm].start] += reach * np.sin(PACE * times + shift)
        values[:, at[arm].start + 3] += reach * np.cos(PACE * times + shift)
    shut = (np.floor(times) % 2).astype(int)
    gripper = np.array(OTHER_GRIPPERS.get(embodiment.name, GRIPPER))
    values[:, at['left_gripper']] = gripper[shut][:, None]
    values[:, at['right_gripper']] = gripper[1 - shut][:, None]
    for name, speed in (('torso', TORSO_SPEED), ('base', BASE_SPEED)):
        if name in at:
            values[:, at[name].start] = speed
    return values
