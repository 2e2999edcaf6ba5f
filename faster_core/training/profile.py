"""A few training steps under torch.profiler."""

from __future__ import annotations

import pathlib

import torch
from torch.profiler import profile, ProfilerActivity

# Steps before the trace: the first ones allocate.
SKIPPED = 2


class StepProfiler:
    """Traces steps into `trace.json` (for a trace viewer) and `operators.txt`."""

    def __init__(self, folder: str | pathlib.Path, steps: int) -> None:
        """Trace `steps` steps after the first `SKIPPED`; 0: none."""
        self._folder, self._steps, self._done = pathlib.Path(folder), steps, 0
        self._profile: profile | None = None

    def step(self) -> None:
        """Tell that a step begins."""
        if self._steps and self._done == SKIPPED:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            self._profile.start()
        if self._done == SKIPPED + self._steps:
            self.stop()
        self._done += 1

    def stop(self) -> None:
        """End the trace, if there is one, and write it."""
        if self._profile is None:
            return
        self._profile.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self._folder / 'trace.json'))
        table = self._profile.key_averages().table(sort_by='self_cpu_time_total', row_limit=40)
        (self._folder / 'operators.txt').write_text(table, encoding='utf-8')
        self._profile = None
