"""A small tokenizer of every kind, fitted or with random weights, for chunks of 16 x 5."""

import functools

import numpy as np
import torch

from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.registry import TOKENIZERS

H, D = 16, 5
KINDS = tuple(TOKENIZERS)
FIELDS = {
    'faster': {
        'group_sizes': (3, 2),
        'slots_per_group': (2, 1),
        'width': 16,
        'depth': 1,
        'heads': 2,
        'latent_dim': 8,
        'codebook_size': 32,
    },
    'minivla': {'width': 32, 'latent_dim': 8, 'codebook_size': 32},
    'vqvla': {'width': 16, 'latent_dim': 8, 'codebook_size': 32, 'time_slots': 2},
    'fast': {},
    'bins': {},
    'bspline': {'num_points': 8},
}


def motions(count, seed=0):
    """Return smooth chunks [count, 16, 5]: sums of two sines, the last column a velocity."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, H)[None, :, None]
    slow, fast = (rng.normal(size=(count, 1, D)) for _ in range(2))
    phase = rng.uniform(0, 6, (count, 1, D))
    chunks = slow + 0.5 * fast * np.sin(6 * t + phase)
    return (chunks * [0.1, 1.0, 0.5, 2.0, 0.3]).astype(np.float32)


@functools.cache
def normalizer():
    """Return statistics of many such chunks."""
    rows = motions(2000, seed=9).reshape(-1, D)
    low, high = np.percentile(rows, [1, 99], axis=0)
    return ActionNormalizer(
        centre=((low + high) / 2).astype(np.float32),
        half_range=((high - low) / 2).astype(np.float32),
    )


def config_of(kind, **changes):
    """Return the small configuration of a kind, with changes."""
    fields = {'horizon': H, 'velocity_dims': (D - 1,), **FIELDS[kind], **changes}
    if kind != 'faster':
        fields['action_dim'] = D
    return TOKENIZERS[kind].config_class(**fields)


@functools.cache
def fitted(kind):
    """Return a tokenizer; learned ones have random weights and codebooks that fit."""
    cls, config = TOKENIZERS[kind], config_of(kind)
    if hasattr(cls, 'fit'):
        return cls.fit(config, normalizer(), normalizer().normalize(motions(2000, seed=9)))
    torch.manual_seed(0)
    tokenizer = cls(config, normalizer())
    tokenizer.model.train()
    with torch.no_grad():
        tokenizer.model(torch.from_numpy(normalizer().normalize(motions(200, seed=9))))
    tokenizer.model.eval()
    return tokenizer
