"""What several training processes must agree on. Without a process group all of it is identity."""

from __future__ import annotations

import torch
from torch import distributed


def are_many() -> bool:
    """Whether this is one of several processes of a group."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def sum_of(values: torch.Tensor) -> torch.Tensor:
    """Return the sum over all processes."""
    if are_many():
        values = values.contiguous()
        distributed.all_reduce(values)
    return values


def rows_of_all(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows [M, d] of every process, in the order of ranks: [processes * M, d].

    All processes must hold the same number of rows.
    """
    if not are_many():
        return rows
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def from_first(values: torch.Tensor) -> torch.Tensor:
    """Return what the first process holds."""
    if are_many():
        values = values.contiguous()
        distributed.broadcast(values, src=0)
    return values
