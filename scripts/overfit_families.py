#!/usr/bin/env python3
"""Trains a tiny policy of every backbone family on 64 fixed chunks until it knows them by heart.

If the wiring were wrong anywhere between pixels and codes, it could not. Prints one JSON object;
the models are those of test/tiny_vlms.py, random weights, built and loaded as a user's are.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
import time

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test')]

from pretrained_parts import pretrained_parts  # noqa: E402
from tiny_checkpoint import home_state, tiny_parts, tiny_tokenizer  # noqa: E402
from tiny_vlms import make_vlm, SPECIAL  # noqa: E402

from faster_core.decoding.blockwise import decode  # noqa: E402
from faster_core.decoding.sampling import SamplingConfig  # noqa: E402
from faster_core.evaluation.machine import describe_machine  # noqa: E402
from faster_core.policy.checkpoint import PolicyParts  # noqa: E402
from faster_core.policy.inputs import state_input  # noqa: E402
from faster_core.provenance import git_commit  # noqa: E402

CHUNKS, BATCH, GOAL = 64, 16, 0.99
MAX_SECONDS = 600.0
LEARNING_RATE = 2e-3
LOOK_EVERY = 20
INSTRUCTIONS = ('pick up the red block', 'pick up the blue block')
EXPERT = {'hidden_size': 64, 'intermediate_size': 128}


def parts_of(family: str, folder: pathlib.Path) -> PolicyParts:
    """Return a policy of a family around a tiny model."""
    if family == 'small':
        return tiny_parts(expert=EXPERT)
    vlm = make_vlm(folder / family, family)
    return pretrained_parts(vlm, expert=EXPERT, tokenizer=tiny_tokenizer())


def overfit(parts: PolicyParts) -> dict[str, float]:
    """Train on 64 observations and chunks; return steps, seconds and the share of right codes.

    The share is of greedily decoded chunks: every block follows from the policy's own codes.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model, size = parts.model, parts.config.image_size
    shape = (CHUNKS, len(parts.embodiment.cameras), size, size, 3)
    pixels = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    texts = [parts.text.encode(INSTRUCTIONS[k % 2]) for k in range(CHUNKS)]
    ids, valid = (torch.from_numpy(np.stack(rows)) for rows in zip(*texts, strict=True))
    states = home_state() + rng.normal(0.0, 0.1, (CHUNKS, parts.embodiment.state_dim))
    state = state_input(parts.state(states), parts.config, parts.text)
    # Codes at random: nothing can be guessed, all must be read off the observation.
    codes = torch.randint(0, model.layout.codebook_size, (CHUNKS, model.num_tokens))
    tokens = codes + model.levels.flatten() * model.layout.codebook_size

    def prefix_of(rows: torch.Tensor) -> object:
        return model.encode(
            model.backbone.vision(pixels[rows]), ids[rows], valid[rows], state[rows]
        )

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    start, step, share = time.perf_counter(), 0, 0.0
    while share < GOAL and time.perf_counter() - start < MAX_SECONDS:
        model.train()
        for rows in torch.randperm(CHUNKS).split(BATCH):
            for group in optimizer.param_groups:
                group['lr'] = LEARNING_RATE * min(1.0, (step + 1) / 100)
            losses = model.loss(prefix_of(rows), tokens[rows])
            total = sum(losses[f'level{i}'] for i in range(model.layout.num_levels))
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
        if step % LOOK_EVERY == 0:
            model.eval()
            with torch.inference_mode():
                prefix = prefix_of(torch.arange(CHUNKS))
                model.prepare(prefix)
                made = decode(model, prefix, sampling=SamplingConfig(), batch=CHUNKS)
            share = float((made == tokens).float().mean())
            print(f'  {step} steps: {share:.3f}', file=sys.stderr)
    return {
        'steps': step,
        'seconds': round(time.perf_counter() - start, 1),
        'accuracy': round(share, 4),
        'different_codes': len(tokens.unique()),
        'parameters': sum(p.numel() for p in model.parameters()),
    }


def main() -> int:
    """Print the report; 1 if a family missed the goal."""
    torch.set_num_threads(1)
    families = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in sys.argv[1:] or ['small', *SPECIAL]:
            print(family, file=sys.stderr)
            families[family] = overfit(parts_of(family, pathlib.Path(folder)))
    report = {
        'chunks': CHUNKS,
        'families': families,
        'machine': describe_machine(),
        'git_sha': git_commit() or None,
    }
    print(json.dumps(report))
    return int(any(row['accuracy'] < GOAL for row in families.values()))


if __name__ == '__main__':
    sys.exit(main())
