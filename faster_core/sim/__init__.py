"""The built-in simulated robots: models, scenes, tasks, expert and demonstrations.

Importing this package chooses a headless renderer unless `MUJOCO_GL` already says which; MuJoCo
itself is imported when the simulator is first named, so that the controller models
(`faster_core.sim.controllers`) need numpy alone.
"""

import ctypes.util
import importlib
import os

if 'MUJOCO_GL' not in os.environ:
    os.environ['MUJOCO_GL'] = 'egl' if ctypes.util.find_library('EGL') else 'osmesa'

_HOMES = {
    'R1LiteSim': 'faster_core.sim.r1_lite',
    'TASKS': 'faster_core.sim.tasks',
    'Task': 'faster_core.sim.tasks',
}
__all__ = ['TASKS', 'R1LiteSim', 'Task']


def __getattr__(name: str):
    """Import the simulator when one of its public names is asked for."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(_HOMES[name]), name)
