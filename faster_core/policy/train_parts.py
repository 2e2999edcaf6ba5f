"""What a training starts from: configuration, text, statistics and the untrained model."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import torch

from faster_core.config import from_mapping
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.policy import checkpoint
from faster_core.policy.auxiliary import Auxiliary, AuxiliaryWeights
from faster_core.policy.backbones.pretrained import read_pretrained
from faster_core.policy.config import PolicyConfig, SMALL
from faster_core.policy.dataset import Samples
from faster_core.policy.prompt import PromptEncoder
from faster_core.policy.state import StateNormalizer
from faster_core.policy.text import TextEncoder
from faster_core.policy.train_config import PolicyTrainConfig
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.registry import load_tokenizer


def read_model_config(config: PolicyTrainConfig) -> PolicyConfig:
    """Return the architecture, with what a pretrained model decides.

    Raises:
        ConfigError: unknown fields, or a family without `pretrained`.
        CheckpointError: the pretrained model cannot be read.
    """
    values = dict(config.model)
    if pretrained := values.get('pretrained'):
        values |= read_pretrained(pretrained)
    if config.camera_dropout:
        values['missing_cameras'] = max(1, values.get('missing_cameras', 0))
    model = from_mapping(PolicyConfig, values, source='model')
    if model.backbone != SMALL and not model.pretrained:
        raise ConfigError(f'model: backbone {model.backbone}: training needs pretrained')
    if config.lora is not None and not model.pretrained:
        raise ConfigError('lora: adapters need a model: pretrained, which they adapt')
    return model


def read_tokenizer(path: str | pathlib.Path, embodiment: Embodiment) -> ActionTokenizer:
    """Read a tokenizer, or the result of its run folder.

    Raises:
        ConfigError: it is for chunks of another shape.
        CheckpointError: it cannot be read.
    """
    path = pathlib.Path(path)
    if (path / 'checkpoint').is_dir():
        path = path / 'checkpoint'
    tokenizer = load_tokenizer(path)
    found = (tokenizer.horizon, tokenizer.action_dim)
    expected = (embodiment.action_horizon, embodiment.action_dim)
    if found != expected:
        raise ConfigError(
            f'tokenizer {path}: made for chunks {list(found)}, the embodiment '
            f'{embodiment.name} has {list(expected)}'
        )
    return tokenizer


def make_parts(
    config: PolicyTrainConfig,
    model: PolicyConfig,
    tokenizer: ActionTokenizer,
    samples: Samples,
    pool: np.ndarray,
) -> checkpoint.PolicyParts:
    """Build the policy before its training; the same in every process.

    Args:
        config: its seed decides the random weights.
        model: of `read_model_config`.
        tokenizer: of the actions.
        samples: demonstrations.
        pool: indices of the samples to train on.

    Raises:
        InstructionError: an instruction or a paraphrase is too long.
        ConfigError: parts that do not fit each other.
    """
    embodiment = Embodiment.load(config.embodiment)
    if config.camera_dropout and len(embodiment.cameras) < 2:
        raise ConfigError('camera_dropout: the embodiment has one camera')
    texts = [*samples.texts, *(t for others in config.paraphrases.values() for t in others)]
    if model.backbone == SMALL:
        text = TextEncoder.train(texts, model.max_text_tokens)
    else:
        text = PromptEncoder.from_pretrained(model.pretrained, model.max_text_tokens)
    for instruction in texts:
        text.check(instruction)
    if model.head == 'codes' and tokenizer.num_tokens is None:
        model = _with_room(model, samples)
    torch.manual_seed(config.seed)
    try:
        network = checkpoint.build_model(
            model, embodiment, tokenizer, text, pretrained=bool(model.pretrained)
        )
    except ValueError as e:
        raise ConfigError(f'model: {e}') from e
    return checkpoint.PolicyParts(
        config=model,
        embodiment=embodiment,
        tokenizer=tokenizer,
        text=text,
        state=StateNormalizer.fit(samples.state[pool]),
        model=network,
    )


def make_auxiliary(
    config: PolicyTrainConfig, parts: checkpoint.PolicyParts, samples: Samples
) -> Auxiliary:
    """Build the auxiliary heads of a policy; the same in every process."""
    backbone = parts.model.backbone
    num_states = len(parts.embodiment.state)
    if parts.config.state_encoding == 'text':
        bins = np.zeros((1, parts.embodiment.state_dim), np.int64)
        num_states = parts.text.state_tokens(bins).shape[-1]
    torch.manual_seed(config.seed)
    return Auxiliary(
        from_mapping(AuxiliaryWeights, config.auxiliary, source='auxiliary'),
        samples,
        width=backbone.width,
        num_image_tokens=backbone.tokens_per_image * len(parts.embodiment.cameras),
        num_state_tokens=num_states,
    )


def _with_room(model: PolicyConfig, samples: Samples) -> PolicyConfig:
    """Return the configuration with room for the longest chunk and its end, in whole blocks."""
    longest = samples.tokens.shape[1] - 1
    if model.max_action_tokens:
        if model.max_action_tokens < longest:
            raise ConfigError(
                f'max_action_tokens {model.max_action_tokens}: a chunk has {longest}'
            )
        return model
    blocks = -(-(longest + 1) // model.block_size)
    return dataclasses.replace(model, max_action_tokens=blocks * model.block_size - 1)
