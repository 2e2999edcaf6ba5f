"""Batches ahead of time: which samples a process sees at which step, made in the background."""

from __future__ import annotations

from collections.abc import Iterator
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from faster_core.policy.batches import Batches, joint_generator, sample_generator
from faster_core.policy.dataset import NO_TOKEN
from faster_core.policy.train_config import PolicyTrainConfig


class StepBatches(Dataset):
    """What one process computes at every step: a list of parts, each a batch.

    The joint batch is cut into `gradient_accumulation` parts and each of those among the
    processes.
    """

    def __init__(
        self,
        config: PolicyTrainConfig,
        batches: Batches,
        pool: np.ndarray,
        *,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        """Bind to a process; `pool` holds the samples to draw from."""
        self._config, self._batches, self._pool = config, batches, pool
        self._starts = pool[batches.samples.row_in_episode()[pool] < config.start_rows]
        self._rank, self._num_processes = rank, num_processes

    def __len__(self) -> int:
        """Steps of the training."""
        return self._config.total_steps

    def __getitem__(self, step: int) -> list[dict[str, torch.Tensor]]:
        """Return the parts of a step; 'share' corrects means over tokens of unequal number."""
        config = self._config
        rng = joint_generator(config.seed, step)
        rows = rng.choice(self._pool, config.batch_size)
        if config.start_share:
            starts = rng.choice(self._starts, config.batch_size)
            rows = np.where(rng.random(config.batch_size) < config.start_share, starts, rows)
        places = np.arange(config.batch_size).reshape(
            config.gradient_accumulation, self._num_processes, -1
        )
        tokens, parts = self._batches.tokens, []
        for mine in places[:, self._rank]:
            generators = [sample_generator(config.seed, step, int(place)) for place in mine]
            batch = self._batches.make(rows[mine], generators)
            share = 1.0
            if tokens is not None:
                count = (tokens[rows[mine]] != NO_TOKEN).sum()
                share = count * places[:, :, 0].size / (tokens[rows] != NO_TOKEN).sum()
            parts.append(batch | {'share': torch.tensor(share, dtype=torch.float32)})
        return parts


class Prefetched:
    """Iterates over steps and knows how long it was waited for."""

    def __init__(self, data: StepBatches, steps: range, workers: int, device: torch.device):
        """Start `workers` processes that make batches of `steps` (0: none)."""
        self.waited, self._device = 0.0, device
        on_accelerator = device.type != 'cpu'
        self._loader = DataLoader(
            data,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            pin_memory=on_accelerator,
            worker_init_fn=_one_thread,
            # Other ways would copy the frames, which all processes map from the same file.
            multiprocessing_context='fork' if workers else None,
        )

    def __iter__(self) -> Iterator[list[dict[str, torch.Tensor]]]:
        """Yield the parts of every step, on the device."""
        batches = iter(self._loader)
        while True:
            start = time.perf_counter()
            try:
                parts = next(batches)
            except StopIteration:
                return
            parts = [
                {k: v.to(self._device, non_blocking=True) for k, v in part.items()}
                for part in parts
            ]
            self.waited += time.perf_counter() - start
            yield parts


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
