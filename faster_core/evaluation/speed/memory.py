"""How much of a GPU's memory one policy has, while others are there too."""

from __future__ import annotations

import gc

import torch

from faster_core.policy.checkpoint import PolicyParts

MEMORY_IS = {
    'cpu': 'weights of policy and tokenizer',
    'cuda': 'weights of policy and tokenizer, and the most that it took or keeps beside them',
}


def weight_bytes(parts: PolicyParts) -> int:
    """Return the bytes of parameters and buffers of a policy and of its tokenizer."""
    modules = [parts.model]
    if isinstance(model := getattr(parts.tokenizer, 'model', None), torch.nn.Module):
        modules.append(model)
    return sum(
        tensor.numel() * tensor.element_size()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    )


class MemoryGauge:
    """What a policy takes of a device beside its weights, from here on; 0 on a CPU.

    Policies share weights (backbone, tokenizer) and an allocator, so what the process holds says
    nothing of one of them. Two differences do: the peak of what is allocated (activations, while
    it runs or is captured), and the growth of what is reserved once all that is unused was given
    back (caches, and the pools of CUDA graphs, of which nothing counts as allocated). The larger
    one counts.
    """

    def __init__(self, device: torch.device) -> None:
        """Begin; the policy's weights must be on the device."""
        self._device = device
        if device.type == 'cuda':
            self._reserved = self._settled()
            torch.cuda.reset_peak_memory_stats(device)
            self._allocated = torch.cuda.memory_allocated(device)

    def taken(self) -> int:
        """Return the bytes since the beginning."""
        if self._device.type != 'cuda':
            return 0
        peak = torch.cuda.max_memory_allocated(self._device) - self._allocated
        return max(0, peak, self._settled() - self._reserved)

    def _settled(self) -> int:
        torch.cuda.synchronize(self._device)
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(self._device)
