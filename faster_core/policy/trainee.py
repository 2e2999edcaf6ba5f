"""The model and what only training has, as one module whose forward pass gives the losses."""

from __future__ import annotations

from collections.abc import Mapping
import copy

import torch
from torch import nn

from faster_core.policy.auxiliary import Auxiliary
from faster_core.policy.flow import FlowVla
from faster_core.policy.lora import add_adapters, merged
from faster_core.policy.model import FasterVla
from faster_core.policy.recompute import recompute_layers
from faster_core.policy.stages import choose_parameters
from faster_core.policy.train_config import PolicyTrainConfig, StageConfig


class Trainee(nn.Module):
    """What is trained; `forward` is the one way in, so that it can be wrapped."""

    def __init__(
        self,
        config: PolicyTrainConfig,
        stage: StageConfig,
        model: FasterVla | FlowVla,
        auxiliary: Auxiliary,
    ) -> None:
        """Copy a model and its auxiliary heads and get them ready for a stage.

        Raises:
            ConfigError: the stage or the adapters name what is not there.
        """
        super().__init__()
        self._config = config
        self.model, self.auxiliary = copy.deepcopy(model), copy.deepcopy(auxiliary)
        if config.lora is not None:
            torch.manual_seed(config.seed)
            add_adapters(self.model, config.lora)
        named = Named(self.model, self.auxiliary)
        self.trained = choose_parameters(named, stage, lora=config.lora is not None)
        if config.gradient_checkpointing:
            recompute_layers(self.model)

    def forward(
        self, batch: Mapping[str, torch.Tensor], with_expert: bool = True
    ) -> dict[str, torch.Tensor]:
        """Return the losses of a batch (`Batches.make`); only 'total' has a gradient.

        Args:
            batch: of this process.
            with_expert: False: only the auxiliary regressions.
        """
        model, config = self.model, self._config
        features = model.backbone.vision(batch['pixels'])
        prefix = model.encode(
            features, batch['ids'], batch['valid'], batch['state'], batch.get('present')
        )
        total, losses = self.auxiliary(
            features,
            prefix.hidden,
            **{name: batch[name] for name in ('chunk', 'goal', 'target', 'places')},
        )
        if losses:
            losses = {'auxiliary': total, **losses}
        if with_expert and isinstance(model, FlowVla):
            found = model.loss(prefix, batch['chunk'], batch['time'], batch['noise'])
            total = total + found['flow']
            losses = found | losses
        elif with_expert:
            found = model.loss(prefix, batch['tokens'])
            for level in range(model.layout.num_levels):
                weight = config.level_weights[min(level, len(config.level_weights) - 1)]
                total = total + weight * found[f'level{level}'] * batch['share']
            total = total + config.end_weight * found['end']
            losses = found | losses
        return {'total': total, **{name: value.detach() for name, value in losses.items()}}

    def plain(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the model's part of a state dict of this module, adapters merged."""
        start = 'model.'
        own = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
        return own if self._config.lora is None else merged(own, self._config.lora)


class Named(nn.Module):
    """Names as a stage's patterns have them: of the model without a prefix, then 'auxiliary'."""

    def __init__(self, model: FasterVla | FlowVla, auxiliary: Auxiliary) -> None:
        """Show both under one roof; nothing is copied."""
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.auxiliary = auxiliary
