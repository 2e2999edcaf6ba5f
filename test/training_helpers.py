"""Small trainings of a policy: configuration, torchrun, what a run left."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

from safetensors.torch import load_file
from tiny_checkpoint import MODEL
import torch
import yaml

from faster_core import paths
from faster_core.policy.train_config import PolicyTrainConfig

STEPS = 6


def small_config(**fields):
    """Return a configuration of 6 steps; `fields` change it."""
    values = {
        'embodiment': str(paths.embodiment_file('r1_lite')),
        'model': MODEL | {'vision': MODEL['vision'] | {'image_size': 48}},
        'steps': 0 if 'stages' in fields else STEPS,
        'batch_size': 4,
        'held_out': 3,
        'data_workers': 0,
        'log_every': 2,
        'save_every': 2,
    }
    return PolicyTrainConfig(**{**values, **fields})


def weights(out):
    """Return the weights of the checkpoint of a run."""
    return load_file(out / 'checkpoint' / 'model.safetensors')


def state(out, group):
    """Return a group of tensors of a run's state."""
    tensors = load_file(out / 'state.safetensors')
    return {k.removeprefix(f'{group}/'): v for k, v in tensors.items() if k.startswith(group)}


def same(a, b):
    """Whether two state dicts are equal to the bit."""
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


def lines(out):
    """Return the lines of metrics.jsonl."""
    return [json.loads(x) for x in (out / 'metrics.jsonl').read_text().splitlines()]


def torchrun(config, demos, tokenizer, out, *, processes, timeout=200):
    """Train with `faster-vla policy train` under torchrun; return stderr."""
    values = {k: v for k, v in dataclasses.asdict(config).items() if v is not None}
    file = out.parent / f'{out.name}.yaml'
    file.write_text(yaml.safe_dump(json.loads(json.dumps(values))))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    command = [sys.executable, '-m', 'torch.distributed.run', '--nnodes', '1']
    command += ['--nproc-per-node', str(processes), '--master-addr', '127.0.0.1']
    command += ['--master-port', str(port), '--no-python', sys.executable]
    command += ['-m', 'faster_vla_ros.cli', 'policy', 'train', str(file)]
    command += ['--demos', str(demos), '--tokenizer', str(tokenizer), '--out', str(out)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo'}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr
