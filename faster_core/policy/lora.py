"""Low-rank adapters on a policy's linear layers, and plain weights again for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from faster_core.errors import ConfigError
from faster_core.policy.train_config import LoraFields

_BASE, _DOWN, _UP = '.base_layer.', '.lora_A.default.weight', '.lora_B.default.weight'


def add_adapters(model: nn.Module, fields: LoraFields) -> None:
    """Put adapters on the linear layers that `fields.targets` names; the output stays the same.

    Raises:
        ConfigError: `peft` is not installed, or no layer has such a name.
    """
    try:
        from peft import inject_adapter_in_model, LoraConfig
    except ImportError as e:
        raise ConfigError("lora needs peft: pip install 'faster_vla_ros[lora]'") from e
    config = LoraConfig(
        r=fields.rank,
        lora_alpha=fields.alpha,
        lora_dropout=fields.dropout,
        target_modules=list(fields.targets),
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as e:
        raise ConfigError(f'lora: targets {", ".join(fields.targets)}: {e}') from e


def merged(weights: Mapping[str, torch.Tensor], fields: LoraFields) -> dict[str, torch.Tensor]:
    """Return the weights of the model without adapters that computes the same."""
    scale, plain = fields.alpha / fields.rank, {}
    for name, value in weights.items():
        if _DOWN in name or _UP in name:
            continue
        if not name.endswith(f'{_BASE}weight'):
            plain[name.replace(_BASE, '.')] = value
            continue
        layer = name.removesuffix(f'{_BASE}weight')
        up, down = weights[f'{layer}{_UP}'], weights[f'{layer}{_DOWN}']
        plain[f'{layer}.weight'] = value + scale * (up @ down)
    return plain
