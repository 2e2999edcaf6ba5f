"""Batches of training samples as tensors, with augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from faster_core.policy.augment import augment
from faster_core.policy.checkpoint import PolicyParts
from faster_core.policy.dataset import Samples
from faster_core.policy.inputs import state_input
from faster_core.policy.state import MAX_ABS

# Arrays of `Samples` that are targets.
LABELS = ('tokens', 'chunk', 'goal', 'target', 'places')


class Batches:
    """Turns sample indices into tensors."""

    def __init__(
        self,
        samples: Samples,
        parts: PolicyParts,
        *,
        max_shift: int,
        colour: float,
        state_noise: float,
        paraphrases: Mapping[str, Sequence[str]],
        paraphrase_share: float,
    ) -> None:
        """See `train.PolicyTrainConfig` for how they are augmented."""
        self.samples, self.parts = samples, parts
        self._augmentation = {'max_shift': max_shift, 'colour': colour}
        self._state_noise, self._paraphrase_share = state_noise, paraphrase_share
        self._state = parts.state(samples.state)
        encode = parts.text.encode
        self._texts = [encode(t) for t in samples.texts]
        self._others = [[encode(t) for t in paraphrases.get(text, [])] for text in samples.texts]

    def make(
        self, rows: np.ndarray, rng: np.random.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Return pixels, ids, valid, state, tokens, chunk, goal, target and places.

        Augmented with `rng`.
        """
        samples, parts = self.samples, self.parts
        rows = np.sort(rows)
        images, state = samples.images[rows], self._state[rows]
        texts = [self._texts[i] for i in samples.text[rows]]
        if rng is not None:
            images = augment(images, rng, **self._augmentation)
            noise = rng.normal(0.0, self._state_noise, state.shape)
            state = np.clip(state + noise, -MAX_ABS, MAX_ABS).astype(np.float32)
            for k, index in enumerate(samples.text[rows]):
                others = self._others[index]
                if others and rng.random() < self._paraphrase_share:
                    texts[k] = others[rng.integers(len(others))]
        arrays = {
            'pixels': np.ascontiguousarray(images),
            'ids': np.stack([ids for ids, _ in texts]),
            'valid': np.stack([valid for _, valid in texts]),
        }
        arrays |= {name: getattr(samples, name)[rows] for name in LABELS}
        batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
        return batch | {'state': state_input(state, parts.config, parts.text)}
