"""One process of test_sharding.py: gathers tensors that are cut up, and writes what it saw."""

import gc
import json
import os
import pathlib
import sys
import weakref

from safetensors.torch import save_file
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor, DTensor, Shard

from faster_core.training.sharding import whole

SHAPES = {'even': (4, 3), 'uneven': (5, 2), 'fewer_rows_than_processes': (1, 7)}


def tensors():
    """Return the whole tensors; the same in every process."""
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return made | {'step': torch.tensor(3.0), 'half': torch.full((6,), 1.5, dtype=torch.bfloat16)}


def _watched(gathered):
    """Return `DTensor.full_tensor`, noting how many of its results were still there before."""
    original, results = DTensor.full_tensor, []

    def full_tensor(self, **options):
        gc.collect()
        gathered.append(sum(result() is not None for result in results))
        full = original(self, **options)
        results.append(weakref.ref(full))
        return full

    return full_tensor


def main():
    """Gather everything, and keep it in the first process only."""
    out, rank = pathlib.Path(sys.argv[1]), int(os.environ['RANK'])
    distributed.init_process_group('gloo')
    mesh = init_device_mesh('cpu', (distributed.get_world_size(),))
    cut = {
        name: distribute_tensor(value, mesh, [Shard(0)]) if value.ndim else value
        for name, value in tensors().items()
    }
    gathered = []
    DTensor.full_tensor = _watched(gathered)
    found = whole(cut, keep=rank == 0)
    save_file(found, out / f'{rank}.safetensors')
    (out / f'{rank}.json').write_text(json.dumps(gathered))
    distributed.destroy_process_group()


if __name__ == '__main__':
    main()
