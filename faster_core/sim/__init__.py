"""The built-in simulated Galaxea R1 Lite: model, scene, tasks, expert and demonstrations."""

from faster_core.sim.r1_lite import R1LiteSim
from faster_core.sim.tasks import TASKS, Task

__all__ = ['TASKS', 'R1LiteSim', 'Task']
