"""scripts/first_way.py: which way a policy sets out to the posts."""

import types

import numpy as np
import pytest

pytest.importorskip('mujoco')

from faster_core.sim.scene import draw_layout
from scripts import first_way


class Looker:
    """Goes to the post of the instruction, whatever its state says."""

    def __init__(self, sides):
        self._sides = iter(sides)

    def predict(self, observation):
        values = np.zeros((4, 21))
        values[:, -2] = 0.1 * next(self._sides)[observation.instruction]
        return types.SimpleNamespace(values=values)


class Sailor:
    """Goes on the way it moves; from rest to the left."""

    def predict(self, observation):
        speed = observation.state[-2]
        values = np.zeros((4, 21))
        values[:, -2] = speed if abs(speed) > 0.05 else 0.1
        return types.SimpleNamespace(values=values)


def test_a_policy_that_looks_goes_the_right_way_whatever_moves(monkeypatch):
    sides = []
    for seed in range(9000, 9003):
        left = draw_layout(seed).posts['yellow_post'] > 0.0
        here = {'drive to the yellow post': 1.0 if left else -1.0}
        here['drive to the purple post'] = -here['drive to the yellow post']
        sides += [here] * 6  # two tasks, three speeds
    looker = Looker(sides)
    monkeypatch.setattr(first_way.Policy, 'from_pretrained', lambda *_, **__: looker)
    found = first_way.measure('anywhere', scenes=3, seed=9000)
    assert (found['chunks'], found['right_way_at_rest']) == (6, 6)
    assert (found['moving'], found['right_way_moving']) == (12, 12)
    assert found['on_the_way_it_moves'] == 6


def test_a_policy_that_goes_on_the_way_it_moves_is_told_from_one_that_looks(monkeypatch):
    monkeypatch.setattr(first_way.Policy, 'from_pretrained', lambda *_, **__: Sailor())
    found = first_way.measure('anywhere', scenes=3, seed=9000)
    # The posts stand on opposite sides: left is right for one of the two.
    assert (found['chunks'], found['right_way_at_rest']) == (6, 3)
    assert (found['moving'], found['on_the_way_it_moves']) == (12, 12)
    assert found['right_way_moving'] == 6
