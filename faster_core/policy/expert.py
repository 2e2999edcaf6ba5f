"""The action expert: layers like the backbone's, narrower, over the backbone's keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModel

from faster_core.errors import ConfigError

# Text models that come with a class for any head size -> the type to build the expert of; with
# positions that are the same in all three directions M-RoPE is the rotary embedding of Qwen2.
_TYPES = {'qwen2_5_vl_text': 'qwen2'}
# As pi0's expert (arXiv 2410.24164).
DEFAULTS = {'hidden_size': 1024, 'intermediate_size': 4096}
# Attention over common keys and values, layer by layer, leaves no choice here.
FOLLOWING = ('num_hidden_layers', 'num_attention_heads', 'num_key_value_heads', 'head_dim')
_NOT_TAKEN = (
    'model_type',
    'vocab_size',
    'architectures',
    'dtype',
    'transformers_version',
    'layer_types',
    'sliding_window',
    'use_sliding_window',
    'max_window_layers',
    '_name_or_path',
    'pad_token_id',
    'bos_token_id',
    'eos_token_id',
)


def build_expert(text: Any, fields: Mapping[str, Any], vocab_size: int) -> nn.Module:
    """Build the expert of a language model, with random weights.

    Args:
        text: configuration of the backbone's language model.
        fields: what differs: width and MLP.
        vocab_size: ids that its embedding knows.

    Raises:
        ConfigError: another number of layers, heads, key-value heads or another head size.
    """
    follow = {name: getattr(text, name, None) for name in FOLLOWING}
    follow['head_dim'] = follow['head_dim'] or text.hidden_size // text.num_attention_heads
    for name, expected in follow.items():
        if (found := fields.get(name, expected)) != expected:
            raise ConfigError(
                f'expert.{name}: the expert attends to the keys and values of the backbone, '
                f'expected {expected}, found {found}'
            )
    values = {k: v for k, v in text.to_dict().items() if k not in _NOT_TAKEN}
    rope = dict(values.get('rope_parameters') or {})
    for name in ('mrope_section', 'type'):
        rope.pop(name, None)
    if rope:
        values['rope_parameters'] = (
            {**rope, 'rope_type': 'default'} if text.model_type in (_TYPES) else rope
        )
    config = AutoConfig.for_model(
        _TYPES.get(text.model_type, text.model_type),
        **{**values, **DEFAULTS, **fields, **follow},
        vocab_size=vocab_size,
        pad_token_id=None,
    )
    if getattr(config, 'layer_types', None):
        config.layer_types = ['full_attention'] * config.num_hidden_layers
    config._attn_implementation = text._attn_implementation
    return AutoModel.from_config(config)
