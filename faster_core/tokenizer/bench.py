"""How fast the presets encode and decode, and how our quantiser compares with a library's."""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import numpy as np
import torch

from faster_core.tokenizer import metrics
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.evaluate import timings
from faster_core.tokenizer.faster_vq import FasterVQ
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.presets import PRESETS
from faster_core.tokenizer.quantizer import ResidualQuantizer

# Rows of latents per step, steps, and rows that are looked at afterwards.
ROWS, STEPS, TRIED = 2048, 150, 16_384


def preset_times(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return tokens, parameters and times of one chunk of every preset, with random weights."""
    report = {}
    for name, preset in PRESETS.items():
        torch.manual_seed(seed)
        config = preset.config()
        ones = np.ones(config.action_dim, np.float32)
        normalizer = ActionNormalizer(centre=0 * ones, half_range=ones, largest_step=ones)
        tokenizer = FasterVQ(config, normalizer)
        for level in tokenizer.model.quantizer.levels:
            level.vectors.normal_()
        shape = (256, config.horizon, config.action_dim)
        chunks = np.random.default_rng(seed).normal(size=shape).clip(-1, 1).astype(np.float32)
        report[name] = {
            'tokens': config.num_tokens,
            'params': tokenizer.num_parameters,
            **timings(tokenizer, chunks, large_batch=False),
        }
    return report


def quantizer_times(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Train the residual quantisers of a small preset on the same latents, step by step.

    The latents are mixtures of 500 Gaussians of different sizes and weights.

    Returns:
        'ours' and, where it is installed, 'vector-quantize-pytorch': 'step_ms' (p50),
        'encode_ms' of 16384 rows, 'error' (mean squared, of the latents' variance), and of every
        level code use, entropy and the largest share.
    """
    config = PRESETS['single_arm_eef_small'].config()
    torch.manual_seed(seed)
    runs: dict[str, _Ours | _Library] = {'ours': _Ours(config)}
    if importlib.util.find_spec('vector_quantize_pytorch'):
        runs['vector-quantize-pytorch'] = _Library(config)
    tried = _latents(TRIED, config.latent_dim, seed, part=1)
    report = {}
    for name, run in runs.items():
        spent = []
        for step in range(STEPS):
            rows = _latents(ROWS, config.latent_dim, seed, part=2 + step)
            start = time.perf_counter()
            run.train(rows)
            spent.append(1e3 * (time.perf_counter() - start))
        start = time.perf_counter()
        quantised, codes = run.encode(tried)
        report[name] = {
            'step_ms': round(float(np.median(spent)), 2),
            'encode_ms': round(1e3 * (time.perf_counter() - start), 1),
            'error': float((quantised - tried).square().mean() / tried.var()),
            'levels': [
                metrics.code_statistics(np.bincount(level, minlength=config.codebook_size))
                for level in codes
            ],
        }
    return report


class _Ours:
    def __init__(self, config: FasterVQConfig) -> None:
        self.quantizer = ResidualQuantizer(config)

    def train(self, rows: torch.Tensor) -> None:
        self.quantizer.train()(rows)

    def encode(self, rows: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
        with torch.inference_mode():
            quantised, codes, _ = self.quantizer.eval()(rows)
        return quantised, codes.numpy()


class _Library:
    """With its own advice for residual quantisers: k-means first, dead codes replaced."""

    def __init__(self, config: FasterVQConfig) -> None:
        from vector_quantize_pytorch import ResidualVQ

        self.quantizer = ResidualVQ(
            dim=config.latent_dim,
            num_quantizers=config.num_levels,
            codebook_size=config.codebook_size,
            decay=config.ema_decay,
            kmeans_init=True,
            kmeans_iters=config.kmeans_iterations,
            threshold_ema_dead_code=2,
        )

    def train(self, rows: torch.Tensor) -> None:
        self.quantizer.train()(rows[None])

    def encode(self, rows: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
        with torch.inference_mode():
            quantised, codes, _ = self.quantizer.eval()(rows[None])
        return quantised[0], codes[0].T.numpy()


def _latents(count: int, dim: int, seed: int, part: int) -> torch.Tensor:
    fixed = np.random.default_rng(seed)
    centres, sizes = fixed.normal(size=(500, dim)), fixed.uniform(0.02, 0.6, size=(500, 1))
    weights = fixed.dirichlet(np.full(500, 0.5))
    draw = np.random.default_rng([seed, part])
    which = draw.choice(500, size=count, p=weights)
    rows = centres[which] + sizes[which] * draw.normal(size=(count, dim))
    return torch.from_numpy(rows.astype(np.float32))
