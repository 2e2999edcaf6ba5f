"""What becomes of motion, in the log: stops, and whatever else nobody asked for."""

from __future__ import annotations

import time
from typing import Any

from faster_core.execution.state import Action, DispatcherSnapshot

# Why the dispatcher stops at its own end.
ENDING = 'the dispatcher ends'
# What somebody asked for: services tell of it themselves, and a policy drops its plan by intent.
ASKED_FOR = ('stop', 'disabled', 'the plan was dropped', ENDING)
# Seconds between two lines about a hold: a policy slower than its plan holds again and again.
HOLD_PERIOD = 10.0


class StateLog:
    """Says once when motion ends: errors for stops, warnings for the rest."""

    def __init__(self, logger: Any) -> None:
        """Take the logger of the node."""
        self._logger = logger
        self._before: DispatcherSnapshot | None = None
        self._told_hold = False
        self._hold_told_at = -float('inf')

    def update(self, now: DispatcherSnapshot) -> None:
        """Take the state of a tick."""
        before, self._before = self._before, now
        if now.action is not Action.HOLD:
            self._told_hold = False
        if before is None or now.message in ASKED_FOR:
            return
        if now.action is Action.STOP:
            if before.action is not Action.STOP:
                self._logger.error(f'stopped: {now.message} ({", ".join(now.components)})')
        elif before.enabled and not now.enabled:
            self._logger.warning(f'motion disabled: {now.message}')
        elif now.action is Action.HOLD and not self._told_hold:
            self._hold(now.message)

    def _hold(self, message: str) -> None:
        if time.perf_counter() - self._hold_told_at >= HOLD_PERIOD:
            self._told_hold, self._hold_told_at = True, time.perf_counter()
            self._logger.warning(f'holding: {message}')
