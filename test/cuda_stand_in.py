"""CUDA graphs on a CPU: `torch.cuda` as far as the engine `cuda_graph` uses it.

As a real graph, a recording knows addresses, not tensors. What was made before it began it does
not keep alive, and a replay that would read what has been freed raises. Nothing is computed until
the first replay, and every replay writes into the same tensors.
"""

import contextlib
import types

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from faster_core.policy.engines.cuda_graph import CudaGraphEngine
from faster_core.policy.engines.stepwise import StepEngine


class UseAfterFreeError(Exception):
    """A replay reads memory that may belong to another tensor by now."""


class _Place:
    """Where a tensor was, and how it lay there."""

    def __init__(self, tensor, keep):
        storage = tensor.untyped_storage()
        self.key = storage._cdata
        self._kept = storage if keep else None
        self._weak = StorageWeakRef(storage)
        self._layout = tensor.storage_offset(), tensor.shape, tensor.stride()
        self._dtype = tensor.dtype

    def tensor(self):
        storage = torch.UntypedStorage._new_with_weak_ptr(self._weak.cdata)
        if storage is None:
            raise UseAfterFreeError(f'{self._dtype} {list(self._layout[1])}')
        return torch.empty(0, dtype=self._dtype).set_(storage, *self._layout)


def _places(tree, keep):
    return tree_map(lambda x: _Place(x, keep(x)) if isinstance(x, torch.Tensor) else x, tree)


def _tensors(tree):
    return tree_map(lambda x: x.tensor() if isinstance(x, _Place) else x, tree)


class _Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self._operations, self._own = [], set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        # Constants of the host become arguments of kernels.
        constant = function is torch.ops.aten.lift_fresh.default
        given = (arguments, options or {})
        before = _places(given, lambda x: constant or x.untyped_storage()._cdata in self._own)
        made = function(*arguments, **(options or {}))
        keys = {p.key for p in tree_leaves(before) if isinstance(p, _Place)}
        new = {
            x.untyped_storage()._cdata
            for x in tree_leaves(made)
            if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in keys
        }
        self._own |= new
        after = _places(made, lambda x: x.untyped_storage()._cdata in self._own)
        self._operations.append((function, before, after, new))
        return made

    def forget_results(self):
        """Spoil what was computed: a capture computes nothing."""
        for function, _, after, new in self._operations:
            if function is torch.ops.aten.lift_fresh.default:
                continue
            for place in tree_leaves(after):
                if isinstance(place, _Place) and place.key in new:
                    place.tensor().zero_()

    def replay(self):
        for function, before, after, new in self._operations:
            arguments, options = _tensors(before)
            made = function(*arguments, **options)
            for place, value in zip(tree_leaves(after), tree_leaves(made), strict=True):
                if isinstance(place, _Place) and place.key in new:
                    place.tensor().copy_(value)


class Graph:
    """`torch.cuda.CUDAGraph`."""

    def __init__(self):
        self.recorder, self.stream = _Recorder(), None

    def replay(self):
        """Compute again what was recorded, where it was recorded."""
        self.recorder.replay()


def install(monkeypatch):
    """Put the stand-ins in place of `torch.cuda`'s; return the list of graphs as they are made."""
    graphs, capturing = [], []

    @contextlib.contextmanager
    def capture(graph, stream=None):
        graph.stream = stream
        graphs.append(graph)
        capturing.append(graph)
        try:
            with graph.recorder:
                yield
        finally:
            capturing.pop()
        graph.recorder.forget_results()

    def stream(device):
        return types.SimpleNamespace(device=device, wait_stream=lambda other: None)

    for name, stand_in in {
        'CUDAGraph': Graph,
        'Stream': stream,
        'current_stream': stream,
        'device': contextlib.nullcontext,
        'graph': capture,
        'is_current_stream_capturing': lambda: bool(capturing),
        'stream': contextlib.nullcontext,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return graphs


class OnCpu(CudaGraphEngine):
    """The engine, without its check of the device."""

    name = 'cuda_graph_on_cpu'

    def __init__(self, model, tokenizer):
        """Build."""
        StepEngine.__init__(self, model, tokenizer)
        self.whole = self.can_unroll
