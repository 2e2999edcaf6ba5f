"""Low-rank adapters on a policy's linear layers, and plain weights again for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from faster_core.errors import ConfigError
from faster_core.policy.train_config import LoraFields

_BASE, _DOWN, _UP = '.base_layer.', '.lora_A.default.weight', '.lora_B.default.weight'


def add_adapters(model: nn.Module, fields: LoraFields) -> None:
    """Put adapters on linear layers of a policy's pretrained part; the output stays the same.

    Args:
        model: a policy around a pretrained vision-language model. What is not pretrained (the
            expert) is trained as a whole and gets none.
        fields: `targets` are the last names of the layers.

    Raises:
        ConfigError: `peft` is not installed, no layer has such a name, or it is not linear.
    """
    try:
        from peft import inject_adapter_in_model, LoraConfig
    except ImportError as e:
        raise ConfigError("lora needs peft: pip install '.[lora]'") from e
    pretrained = model.backbone.vlm
    _check_targets(pretrained, fields.targets)
    config = LoraConfig(
        r=fields.rank,
        lora_alpha=fields.alpha,
        lora_dropout=fields.dropout,
        target_modules=list(fields.targets),
    )
    inject_adapter_in_model(config, pretrained)


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    modules = list(model.named_modules())
    for target in targets:
        found = [m for name, m in modules if name == target or name.endswith(f'.{target}')]
        if not found:
            raise ConfigError(
                f'lora: targets: no layer of the pretrained model is called {target}'
            )
        if other := [m for m in found if not isinstance(m, nn.Linear)]:
            raise ConfigError(
                f'lora: targets: {target} is a {type(other[0]).__name__}, expected a linear layer'
            )


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
