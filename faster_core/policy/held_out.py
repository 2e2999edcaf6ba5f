"""How good a policy is on episodes it was not trained on, without a robot."""

from __future__ import annotations

import numpy as np
import torch

from faster_core.decoding.blockwise import decode
from faster_core.decoding.sampling import SamplingConfig
from faster_core.embodiment import Embodiment, Kind
from faster_core.errors import DecodeError
from faster_core.policy.batches import Batches
from faster_core.policy.checkpoint import PolicyParts
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla, IGNORED

BATCH = 32
_UNITS = {
    Kind.JOINT_POSITION: 'rad',
    Kind.JOINT_VELOCITY: 'rad_s',
    Kind.GRIPPER_POSITION: 'm',
}
# First letters of the names of the others' dimensions.
_UNITS_BY_NAME = {
    Kind.TWIST: {'v': 'm_s', 'w': 'rad_s'},
    Kind.EE_POSE: {'q': 'quaternion'},
    Kind.EE_DELTA: {'r': 'rad'},
}


@torch.inference_mode()
def measure(
    parts: PolicyParts,
    batches: Batches,
    rows: np.ndarray,
    *,
    device: torch.device | str = 'cpu',
    count: int = 256,
) -> dict[str, float]:
    """Decode chunks greedily and compare them with the demonstrations.

    Labels are clipped as the normaliser clips them. Tokens that stand for no chunk (FAST) count
    as the centre of the data.

    Args:
        parts: the policy; its model is on `device`.
        batches: gives the samples.
        rows: which samples; up to `count` of them, evenly spread.
        device: of the model.
        count: at most so many.

    Returns:
        'held_out_error': mean absolute error, normalised; 'held_out_l1.<component>.<unit>':
        likewise in SI units; of a head of codes 'held_out_accuracy<level>' and
        'held_out_accuracy': share of right codes given the right earlier blocks,
        'held_out_decoded': share of right codes in the decoded chunks, and
        'held_out_invalid': share of chunks that cannot be decoded.
    """
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    columns = columns_by_unit(parts.embodiment)
    normalizer, sums = parts.tokenizer.normalizer, {}
    parts.model.eval()
    for group in np.array_split(rows, -(-len(rows) // BATCH)):
        batch = {k: v.to(device) for k, v in batches.make(group).items()}
        features = parts.model.backbone.vision(batch['pixels'])
        prefix = parts.model.encode(features, batch['ids'], batch['valid'], batch['state'])
        if isinstance(parts.model, FlowVla):
            generator = torch.Generator().manual_seed(int(group[0]))
            noise = torch.randn(batch['chunk'].shape, generator=generator).to(device)
            chunk = parts.model.integrate(prefix, noise).float().cpu().numpy()
            actions, found = parts.tokenizer.physical(chunk), {}
        else:
            actions, found = _decoded(parts, prefix, batch['tokens'])
        label = batch['chunk'].cpu().numpy()
        found['held_out_error'] = np.abs(normalizer.normalize(actions) - label).mean()
        error = np.abs(actions - normalizer.denormalize(label))
        for name, indices in columns.items():
            found[f'held_out_l1.{name}'] = error[..., indices].mean()
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(group)
    return {name: value / len(rows) for name, value in sums.items()}


def columns_by_unit(embodiment: Embodiment) -> dict[str, list[int]]:
    """Return the columns of a chunk that may be averaged: '<component>.<unit>'."""
    columns: dict[str, list[int]] = {}
    for c in embodiment.action:
        first = embodiment.action_slices[c.name].start
        for i, name in enumerate(c.names):
            unit = _UNITS.get(c.kind) or _UNITS_BY_NAME[c.kind].get(name[0], 'm')
            columns.setdefault(f'{c.name}.{unit}', []).append(first + i)
    return columns


def _decoded(
    parts: PolicyParts, prefix: object, tokens: torch.Tensor
) -> tuple[np.ndarray, dict[str, float]]:
    """Return decoded chunks in SI units and the shares of right codes."""
    model: FasterVla = parts.model
    losses = model.loss(prefix, tokens)
    levels = model.layout.num_levels
    found = {f'held_out_accuracy{i}': float(losses[f'accuracy{i}']) for i in range(levels)}
    found['held_out_accuracy'] = float(np.mean(list(found.values())))
    model.prepare(prefix)
    decoded = decode(
        model, prefix, sampling=SamplingConfig(), batch=len(tokens), device=tokens.device
    )
    short = tokens.shape[1] - decoded.shape[1]
    decoded = torch.nn.functional.pad(decoded, (0, short), value=IGNORED)
    real = tokens != IGNORED
    found['held_out_decoded'] = float(((decoded == tokens) & real).sum() / real.sum())
    actions, wrong = [], 0
    for codes in model.codes(decoded).cpu().numpy():
        try:
            actions.append(_chunk(parts, codes))
        except DecodeError:
            wrong += 1
            rest = np.zeros((parts.tokenizer.horizon, parts.tokenizer.action_dim))
            actions.append(parts.tokenizer.normalizer.denormalize(rest))
    return np.stack(actions), found | {'held_out_invalid': wrong / len(actions)}


def _chunk(parts: PolicyParts, codes: np.ndarray) -> np.ndarray:
    end = parts.model.end_code
    if end is None:
        return parts.tokenizer.decode(parts.tokenizer.codes(codes[None]))[0]
    ends = np.flatnonzero(codes == end)
    if not len(ends):
        raise DecodeError('no end')
    return parts.tokenizer.decode([codes[: ends[0]]])[0]
