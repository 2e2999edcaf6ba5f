"""Batches of training samples as tensors, with augmentation.

Every draw follows from seed, step and the sample's place in the batch of all processes, so any
number of processes and any way to cut the batch sees the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from faster_core.policy.augment import augment
from faster_core.policy.checkpoint import PolicyParts
from faster_core.policy.dataset import NO_TOKEN, Samples
from faster_core.policy.flow import BETA, flow_time
from faster_core.policy.inputs import state_input
from faster_core.policy.model import FasterVla
from faster_core.policy.state import MAX_ABS

# Arrays of `Samples` that are targets.
LABELS = ('tokens', 'chunk', 'goal', 'target', 'places')
# What the policy shows its model in the place of a camera that is missing.
GREY = 127


def joint_generator(seed: int, step: int) -> np.random.Generator:
    """Return the source of what all samples of a step share."""
    return np.random.default_rng([seed, step, 0])


def sample_generator(seed: int, step: int, place: int) -> np.random.Generator:
    """Return the source of what is drawn for the sample at a place of the joint batch."""
    return np.random.default_rng([seed, step, 1 + place])


class Batches:
    """Turns sample indices into tensors."""

    def __init__(
        self,
        samples: Samples,
        parts: PolicyParts,
        *,
        max_shift: int = 0,
        colour: float = 0.0,
        state_noise: float = 0.0,
        camera_dropout: float = 0.0,
        paraphrases: Mapping[str, Sequence[str]] | None = None,
        paraphrase_share: float = 0.0,
    ) -> None:
        """See `PolicyTrainConfig` for how they are augmented."""
        # Not the model: workers would take it along.
        self.samples, self._config, self._text = samples, parts.config, parts.text
        self._augmentation = {'max_shift': max_shift, 'colour': colour}
        self._state_noise, self._paraphrase_share = state_noise, paraphrase_share
        self._camera_dropout = camera_dropout
        self._state = parts.state(samples.state)
        encode, paraphrases = parts.text.encode, paraphrases or {}
        self._texts = [encode(t) for t in samples.texts]
        self._others = [[encode(t) for t in paraphrases.get(text, [])] for text in samples.texts]
        self.tokens = None
        if isinstance(parts.model, FasterVla):
            self.tokens = _in_decoding_order(samples.tokens, parts.model)

    def make(
        self, rows: np.ndarray, generators: Sequence[np.random.Generator] | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the tensors of samples.

        Args:
            rows: which samples, B.
            generators: one per sample, to augment it with; None: as it is.

        Returns:
            pixels, ids, valid, state and what `LABELS` names (tokens only of a head of codes);
            with generators also `present` if cameras may be missing, and `time` and `noise` of a
            flow head.
        """
        samples = self.samples
        images = np.stack([samples.images[row] for row in rows])
        state = self._state[rows]
        texts = [self._texts[i] for i in samples.text[rows]]
        drawn: dict[str, np.ndarray] = {}
        if generators is not None:
            images, state, texts, drawn = self._augment(rows, images, state, texts, generators)
        arrays = {
            'pixels': images,
            'ids': np.stack([ids for ids, _ in texts]),
            'valid': np.stack([valid for _, valid in texts]),
            **drawn,
        }
        arrays |= {name: getattr(samples, name)[rows] for name in LABELS if name != 'tokens'}
        if self.tokens is not None:
            arrays['tokens'] = self.tokens[rows]
        batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
        return batch | {'state': state_input(state, self._config, self._text)}

    def _augment(
        self,
        rows: np.ndarray,
        images: np.ndarray,
        state: np.ndarray,
        texts: list,
        generators: Sequence[np.random.Generator],
    ) -> tuple[np.ndarray, np.ndarray, list, dict[str, np.ndarray]]:
        present = np.ones(images.shape[:2], dtype=bool)
        flows = []
        for k, rng in enumerate(generators):
            images[k] = augment(images[k : k + 1], rng, **self._augmentation)[0]
            noise = rng.normal(0.0, self._state_noise, state.shape[1])
            state[k] = np.clip(state[k] + noise, -MAX_ABS, MAX_ABS)
            others = self._others[self.samples.text[rows[k]]]
            if others and rng.random() < self._paraphrase_share:
                texts[k] = others[rng.integers(len(others))]
            if self._camera_dropout and rng.random() < self._camera_dropout:
                camera = rng.integers(present.shape[1])
                present[k, camera], images[k, camera] = False, GREY
            if self.tokens is None:
                time = flow_time(rng.beta(*BETA))
                flows.append((time, rng.normal(size=self.samples.chunk.shape[1:])))
        drawn = {'present': present} if self._camera_dropout else {}
        if flows:
            drawn['time'] = np.array([time for time, _ in flows], np.float32)
            drawn['noise'] = np.stack([noise for _, noise in flows]).astype(np.float32)
        return images, state, texts, drawn


def _in_decoding_order(tokens: np.ndarray, model: FasterVla) -> np.ndarray:
    """Return ids [M, N] as the model decodes them, padded to its length."""
    missing = model.num_tokens - tokens.shape[1]
    padded = np.pad(tokens, ((0, 0), (0, missing)), constant_values=NO_TOKEN)
    return model.layout.from_level_major(padded)
