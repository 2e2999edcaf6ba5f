"""Models of diff_drive_controller and mecanum_drive_controller: a speed that is forgotten.

The speed limits and accelerations those controllers can be configured with are off by default and
not modelled; neither are wheels: the speed is the body's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faster_core.errors import ConfigError

# Kind -> indices of the body's speed (vx, vy, wz) it carries out.
KINDS = {'diff_drive': (0, 2), 'mecanum': (0, 1, 2)}


class BaseController:
    """Takes body speeds, gives the speed due in each cycle; zero when nobody repeats it.

    Humble's differential drive takes every message, hands what is not finite to the wheels and
    times out in the cycle; later ones refuse an old stamp when it arrives and skip what is not
    finite. The mecanum controller's parameter is
    `reference_timeout`, and with 0 there a reference counts for one cycle only; the
    differential drive's 0 means never.
    """

    def __init__(self, kind: str, flavour: str, *, cmd_vel_timeout: float = 0.5) -> None:
        """Stand still.

        Args:
            kind: 'diff_drive' or 'mecanum'.
            flavour: 'humble', 'jazzy' or 'lyrical'.
            cmd_vel_timeout: seconds; upstream's default is 0.5 for diff_drive, 0 for mecanum.

        Raises:
            ConfigError: unknown kind or a negative time-out.
        """
        if kind not in KINDS:
            raise ConfigError(f'kind: expected one of {", ".join(KINDS)}, found {kind!r}')
        if cmd_vel_timeout < 0.0:
            raise ConfigError(f'cmd_vel_timeout: expected seconds >= 0, found {cmd_vel_timeout}')
        self._axes = list(KINDS[kind])
        self._mecanum = kind == 'mecanum'
        self._passes_non_finite = flavour == 'humble' and not self._mecanum
        self._timeout = cmd_vel_timeout
        self._reference = np.zeros(3)
        self._command, self._stamp = np.zeros(3), 0.0

    def accept(self, twist: Sequence[float], stamp: float | None, now: float) -> str:
        """Take a speed.

        Args:
            twist: (vx, vy, wz) in m/s and rad/s; axes the base does not have are ignored.
            stamp: of a `TwistStamped`, seconds; 0 is taken as now. None: a `Twist`, which has
                none.
            now: seconds.

        Returns:
            '' or the reason why it is ignored.
        """
        values, stamp = np.array(twist, dtype=float), stamp or now
        age = now - stamp
        too_old = age > self._timeout if self._mecanum else age >= self._timeout
        # Humble's differential drive lets it in and brakes in the next cycle.
        if self._timeout and too_old and not self._passes_non_finite:
            if self._mecanum:
                self._command[:] = np.nan
            return f'header.stamp: {age:.3f} s old, cmd_vel_timeout is {self._timeout} s'
        self._command, self._stamp = values, stamp
        if not self._passes_non_finite and not np.isfinite(values[self._axes]).all():
            return f'twist: expected finite values, found {values[self._axes].tolist()}'
        return ''

    def update(self, now: float) -> np.ndarray:
        """Run one cycle; returns the speed (vx, vy, wz) to be driven at."""
        command = self._command[self._axes]
        if self._timeout and now - self._stamp > self._timeout:
            self._reference[:] = 0.0
            self._command[:] = 0.0
        elif np.isfinite(command).all() or self._passes_non_finite:
            self._reference[self._axes] = command
            if self._mecanum and not self._timeout:
                self._command[:] = np.nan
        elif self._mecanum:
            self._reference[:] = 0.0
        return self._reference.copy()
