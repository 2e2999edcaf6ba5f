"""Whether a position goes on from its set-point, or begins anew from what is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from faster_core.execution.config import DispatcherConfig
from faster_core.execution.motion import Motion


class Continuity:
    """Remembers who may have moved the robot meanwhile.

    Where commands still go out the set-point stays: feedback lags behind it, and a jump back would
    be one of the robot. Not where others may have moved it: we were silent, nothing was measured
    for a while, or it is found too far away. Nothing goes out either when a trajectory is at its
    end: it goes on from there if it is found near, after an enable only as long as feedback may
    lag.
    """

    def __init__(self, positions: Iterable[str], trajectories: Iterable[str]) -> None:
        """Take the position components, and those of them that go out as trajectories."""
        self._positions, self._trajectories = tuple(positions), tuple(trajectories)
        # Not commanded now: only a chunk is told again.
        self._silent = set(self._positions)
        self._lost: set[str] = set()  # not measured for too long since the last plan

    def is_silent(self, name: str) -> bool:
        """Whether a position component is not commanded any more, or not yet."""
        return name in self._silent

    def sent(self, commands: Mapping[str, np.ndarray | None]) -> None:
        """Take what was commanded in a tick, component -> [d] or None."""
        self._silent = {n for n in self._positions if commands[n] is None}

    def lost(self, names: Iterable[str]) -> None:
        """Take that these were not measured for too long: the robot may have restarted."""
        self._lost.update(names)

    def yielded(self) -> None:
        """Take that somebody else commands."""
        self._silent = set(self._positions)

    def anew(
        self,
        motion: Motion,
        measured: Mapping[str, np.ndarray],
        config: DispatcherConfig,
        *,
        going: bool,
    ) -> dict[str, np.ndarray]:
        """Return the measured positions that motion has to begin anew from, component -> [d].

        Args:
            motion: what was commanded.
            measured: component -> [d].
            config: how far away is too far, and how old feedback may be.
            going: a plan was followed before, and motion was not disabled since.
        """
        is_elsewhere = self._left_its_end if going else self._is_elsewhere
        return {n: v for n, v in measured.items() if is_elsewhere(n, v, motion, config)}

    def planned(self) -> None:
        """Take that a plan began from what was measured."""
        self._lost.clear()

    def _is_elsewhere(
        self, name: str, measured: np.ndarray, motion: Motion, config: DispatcherConfig
    ) -> bool:
        if name in self._lost or name in self._silent:
            return True
        if not motion.at_rest(name):
            return False
        if name in self._trajectories and motion.stood_for(name) > config.feedback_timeout:
            return True
        return _away(name, measured, motion, config)

    def _left_its_end(
        self, name: str, measured: np.ndarray, motion: Motion, config: DispatcherConfig
    ) -> bool:
        if name not in self._trajectories or motion.stood_for(name) < 0.0:
            return False
        return name in self._lost or _away(name, measured, motion, config)


def _away(name: str, measured: np.ndarray, motion: Motion, config: DispatcherConfig) -> bool:
    limit = config.components[name].max_start_offset
    return bool((np.abs(motion.place(name) - measured) > limit).any())
