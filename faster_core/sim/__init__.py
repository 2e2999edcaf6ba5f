"""The built-in simulated Galaxea R1 Lite: model, scene, tasks, expert and demonstrations.

Importing this package chooses a headless renderer unless `MUJOCO_GL` already says which.
"""

import ctypes.util
import os

if 'MUJOCO_GL' not in os.environ:
    os.environ['MUJOCO_GL'] = 'egl' if ctypes.util.find_library('EGL') else 'osmesa'

from faster_core.sim.r1_lite import R1LiteSim
from faster_core.sim.tasks import Task, TASKS

__all__ = ['TASKS', 'R1LiteSim', 'Task']
