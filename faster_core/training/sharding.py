"""Tensors that FSDP has cut up: gathered for a file, and cut up again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.tensor import distribute_tensor, DTensor


def local(value: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor; a plain tensor itself."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(tensors: Mapping[str, torch.Tensor], *, keep: bool = True) -> dict[str, torch.Tensor]:
    """Return copies on the CPU of whole tensors. With FSDP every process must call it.

    One after the other: beside its own parts a device holds the whole of one tensor at a time.

    Args:
        tensors: whole or cut up, the same names in the same order in every process.
        keep: False: help the others to theirs, and return nothing.
    """
    kept = {}
    for name, value in tensors.items():
        full = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            kept[name] = full.detach().to('cpu', copy=True)
        del full
    return kept


def like(value: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor on the device of another, and cut up as it is, if it is."""
    value = value.to(example.device)
    if not isinstance(example, DTensor) or value.shape != example.shape:
        return value
    return distribute_tensor(value, example.device_mesh, example.placements)


@torch.no_grad()
def load_whole(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load a state dict of whole tensors into a module that may be cut up."""
    own = module.state_dict()
    module.load_state_dict({k: like(v, own[k]) for k, v in tensors.items()})
