"""Small trainings of a policy: configuration, torchrun, what a run left."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
from safetensors.torch import load_file
from tiny_checkpoint import MODEL, random_chunks, write_demos
import torch
from warm_processes import free_port, group
import yaml

from faster_core import paths
from faster_core.data.episodes import load_episode, save_episode
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


def changed(before, after):
    """Return the names of tensors that are not equal to the bit; both must have the same names."""
    assert set(before) == set(after)
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def lines(out):
    """Return the lines of metrics.jsonl."""
    return [json.loads(x) for x in (out / 'metrics.jsonl').read_text().splitlines()]


def still_demos(folder, seed=3):
    """Write demonstrations that hold one posture; return the folder and their one chunk."""
    write_demos(folder)
    action = random_chunks(1, seed)[0, 0]
    action[14:] = 0.0  # velocities
    for path in sorted(folder.glob('*.npz')):
        episode = load_episode(path)
        still = np.tile(action, (episode.num_steps, 1))
        save_episode(path, dataclasses.replace(episode, action=still))
    return folder, np.tile(action, (32, 1))


def torchrun(config, demos, tokenizer, out, *, processes, timeout=200):
    """Train with `faster-vla policy train` under torchrun; return stderr."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--nnodes', '1']
    command += ['--nproc-per-node', str(processes), '--master-addr', '127.0.0.1']
    command += ['--master-port', str(free_port()), '--no-python', sys.executable]
    command += ['-m', *_command(config, demos, tokenizer, out)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo'}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def train_in_group(config, demos, tokenizer, out, *, processes):
    """Train with the same command in processes that torchrun might have started."""
    group(out.parent, processes, *_command(config, demos, tokenizer, out))


def _command(config, demos, tokenizer, out):
    values = {k: v for k, v in dataclasses.asdict(config).items() if v is not None}
    file = out.parent / f'{out.name}.yaml'
    file.write_text(yaml.safe_dump(json.loads(json.dumps(values))))
    return (
        *('faster_vla_ros.cli', 'policy', 'train', str(file)),
        *('--demos', str(demos), '--tokenizer', str(tokenizer), '--out', str(out)),
    )
