"""Chunks a policy might send, and chunks nobody should: what fuzzing sends to the dispatcher."""

from __future__ import annotations

from collections.abc import Mapping
import copy
from typing import Any

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment, Kind
from faster_vla_ros.conversions import chunk_to_message
from scripts.reliability.observer import Limits

# Shares of what is sent; the first two are chunks a policy might send. The last three are valid
# and come when they must not be followed: whoever sends them brings that about before.
KINDS = (
    ('smooth', 0.40),
    ('wild', 0.15),
    ('late', 0.08),
    ('not_finite', 0.05),
    ('huge', 0.05),
    ('far', 0.05),
    ('shape', 0.05),
    ('names', 0.04),
    ('kind', 0.01),
    ('frame', 0.02),
    ('checksum', 0.02),
    ('timing', 0.05),
    ('order', 0.03),
    ('empty', 0.01),
    ('stopped', 0.003),
    ('disabled', 0.003),
    ('old', 0.006),
)
# Before a chunk of kind `old` nothing is sent for so long (s): it is older than the dispatcher's
# `max_chunk_age` (1 s) and newer than the chunk before.
SILENCE = 1.3
OLD = (1.05, 1.25)


class HostileChunks:
    """Draws kinds and makes messages of them; the same seed gives the same ones."""

    def __init__(
        self,
        rng: np.random.Generator,
        embodiment: Embodiment,
        limits: Mapping[str, Limits],
        joints: tuple[str, ...],
    ) -> None:
        """Take what chunks depend on.

        Args:
            rng: where the chance comes from.
            embodiment: layout of the chunks.
            limits: of every component.
            joints: components that kind `far` may start away from where they are.
        """
        self.rng, self.embodiment, self.limits = rng, embodiment, limits
        self._joints, self._slices = joints, embodiment.action_slices
        self.sequence_id = 0

    def draw(self) -> str:
        """Return a kind."""
        names, shares = zip(*KINDS, strict=True)
        return str(self.rng.choice(names, p=np.array(shares) / sum(shares)))

    def message(self, kind: str, now: float, measured: Mapping[str, np.ndarray]) -> Any:
        """Return a message of a kind, for a robot that is at `measured` (component -> [d])."""
        e, rng = self.embodiment, self.rng
        self.sequence_id += 1
        age = float(rng.uniform(0.0, 0.3))
        if kind == 'late':
            age = float(rng.uniform(0.3, 4.0))
        if kind == 'old':
            age = float(rng.uniform(*OLD))
        fields = {
            'values': self._rows(kind, measured),
            'stamp': now - age,
            'first_step_offset': e.step_period,
            'step_period': e.step_period,
            'sequence_id': self.sequence_id,
            'embodiment_checksum': e.checksum,
        }
        if kind == 'empty':
            fields['values'] = np.zeros((0, e.action_dim), np.float32)
        if kind == 'order':
            fields['stamp'] = now - 0.9
        if kind == 'timing':
            which = rng.choice(['stamp', 'first_step_offset', 'step_period'])
            fields[str(which)] = float(
                rng.choice([0.0, 1e-9, 2.0e6, -1.0, now + 5.0, e.step_period * 2])
            )
        message = chunk_to_message(ActionChunk(**fields), e)
        self._spoil(kind, message)
        return message

    def _rows(self, kind: str, measured: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return rows [H, D] that start where the robot is and go somewhere."""
        e, rng = self.embodiment, self.rng
        horizon = (
            int(rng.integers(1, e.action_horizon + 1)) if kind == 'wild' else (e.action_horizon)
        )
        values = np.zeros((horizon, e.action_dim), np.float32)
        t = np.arange(1, horizon + 1) * e.step_period
        for c in e.action:
            limit, at = self.limits[c.name], self._slices[c.name]
            pace = {'smooth': 0.5, 'wild': 1.05}.get(kind, 0.5) * limit.speed
            if not limit.position:
                wave = np.sin(rng.uniform(0.5, 3.0) * t + rng.uniform(0, 6))[:, None]
                values[:, at] = wave * pace * rng.uniform(-1, 1, c.size)
                continue
            place = measured[c.name]
            if c.kind is Kind.GRIPPER_POSITION:
                values[:, at] = rng.uniform(limit.lower, limit.upper)
                continue
            if kind == 'smooth':
                omega = rng.uniform(0.5, 3.0, c.size)
                phase = rng.uniform(0, 2 * np.pi, c.size)
                wave = np.sin(omega * t[:, None] + phase) - np.sin(phase)
                way = place + wave * pace / omega * rng.uniform(-1, 1, c.size)
            else:
                steps = rng.uniform(-1, 1, (horizon, c.size)) * pace * e.step_period
                way = place + np.cumsum(steps, axis=0)
            reach = 0.05 if kind == 'wild' else 0.0
            width = limit.upper - limit.lower
            values[:, at] = np.clip(way, limit.lower - reach * width, limit.upper + reach * width)
        if kind == 'huge':
            values[rng.integers(horizon), rng.integers(e.action_dim)] = rng.choice(
                [1e3, -1e6, 3e38, -3e38]
            )
        if kind == 'far':
            at = self._slices[str(rng.choice(self._joints))]
            values[:, at] += rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 2.0)
        return values

    def _spoil(self, kind: str, message: Any) -> None:
        """Break a message in a way no chunk can express."""
        rng = self.rng
        if kind == 'checksum':
            known = message.embodiment_checksum
            message.embodiment_checksum = str(rng.choice(['', 'x' * 64, known[:-1]]))
        if not message.components:
            return
        part = message.components[int(rng.integers(len(message.components)))]
        if kind == 'not_finite':
            data = np.array(part.data, np.float32)
            data[rng.integers(data.size)] = rng.choice([np.nan, np.inf, -np.inf])
            part.data = data.tolist()
        elif kind == 'shape':
            choice = rng.integers(4)
            if choice == 0:
                part.data = list(part.data)[: int(rng.integers(len(part.data)))]
            elif choice == 1:
                message.num_steps = int(rng.choice([1, 31, 33, 2**31, 2**32 - 1]))
            elif choice == 2:
                message.components = message.components[:-1]
            else:
                message.components = [*message.components, copy.deepcopy(part)]
        elif kind == 'names':
            if rng.random() < 0.5:
                part.names = [*list(part.names)[::-1], 'x']
            else:
                part.name = str(rng.choice(['', 'left_leg', part.name.upper()]))
        elif kind == 'kind':
            part.kind = (part.kind + int(rng.integers(1, 256))) % 256
        elif kind == 'frame':
            part.frame_id = str(rng.choice(['odom', 'map', 'x' * 500]))
