"""Several training processes on one machine, started from the one that was called.

What `torchrun` does, for functions that yield rows: on CPUs several processes with one thread each
are faster than one with several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import multiprocessing as mp
import os
import pathlib
import queue as queues
import tempfile
from typing import Any

import torch
from torch import distributed

from faster_core.errors import FasterVlaError


def is_launched() -> bool:
    """Whether `torchrun` or `accelerate launch` started this process as one of a group."""
    return 'WORLD_SIZE' in os.environ


def run_processes(
    function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], count: int
) -> Iterator[Any]:
    """Call `function(*arguments)` in `count` processes of one group; yield the first one's rows.

    Raises:
        FasterVlaError: a process failed; the others are ended.
    """
    context = mp.get_context('spawn')
    rows = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = str(pathlib.Path(folder) / 'rendezvous')
        workers = [
            context.Process(
                target=_worker,
                args=(function, arguments, rank, count, rendezvous, rows),
                # Not daemons: these may not have processes that load data.
                daemon=False,
            )
            for rank in range(count)
        ]
        for worker in workers:
            worker.start()
        try:
            while any(w.is_alive() for w in workers) or not rows.empty():
                try:
                    yield rows.get(timeout=1.0)
                except queues.Empty:
                    _refuse_failed(workers)
            _refuse_failed(workers)
        finally:
            for worker in workers:
                worker.kill()
                worker.join()


def _refuse_failed(workers: list[mp.Process]) -> None:
    if failed := [w.exitcode for w in workers if w.exitcode]:
        raise FasterVlaError(f'a training process ended with {failed[0]}')


def _worker(
    function: Callable[..., Iterator[Any]],
    arguments: tuple[Any, ...],
    rank: int,
    count: int,
    rendezvous: str,
    rows: Any,
) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    os.environ |= {
        'RANK': str(rank),
        'LOCAL_RANK': str(rank),
        'WORLD_SIZE': str(count),
        'LOCAL_WORLD_SIZE': str(count),
        # Not used, but asked for: the group meets in a file.
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': '29500',
    }
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        'nccl' if torch.cuda.is_available() else 'gloo',
        init_method=f'file://{rendezvous}',
        rank=rank,
        world_size=count,
    )
    for row in function(*arguments):
        if rank == 0:
            rows.put(row)
    if distributed.is_initialized():
        distributed.destroy_process_group()
