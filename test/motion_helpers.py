"""Shared by the tests of motions: a small robot and episodes of it."""

import numpy as np

from faster_core.data.motions import Motion, MotionSet, TRAIN
from faster_core.embodiment import Embodiment

TEXT = """# kept word for word
name: toy
action_frequency: 10.0
action_horizon: {horizon}
cameras: [head]
state:
  - {{component: arm, kind: joint_position, names: [j1, j2]}}
action:
  - {{component: arm, kind: joint_position, names: [j1, j2]}}
  - {{component: finger, kind: gripper_position, names: [finger]}}
  - {{component: hand, kind: ee_delta, names: [x, rz]}}
tokenizer_groups: [[arm], [finger], [hand]]
"""


def embodiment(horizon=4):
    return Embodiment.from_text(TEXT.format(horizon=horizon))


def motion(length=6, *, number=0, **changes):
    """Return an episode whose every value is different from every other one."""
    rng = np.random.default_rng(1000 * length + number)
    fields = {
        'episode': f'e{number}',
        'task': 'pick',
        'action': rng.normal(size=(length, 5)),
        'state': rng.normal(size=(length, 2)),
    }
    return Motion(**fields | changes)


def motion_set(lengths=(6, 9, 7), splits=None, *, horizon=4, state=True, **changes):
    without = {} if state else {'state': None}
    motions = tuple(motion(n, number=i, **without) for i, n in enumerate(lengths))
    fields = {
        'name': 'toys',
        'embodiment': embodiment(horizon),
        'rate': 10.0,
        'source': 'made up',
        'licence': 'Apache-2.0',
        'rests': False,
        'motions': motions,
        'splits': splits or (TRAIN,) * len(motions),
    }
    return MotionSet(**fields | changes)
