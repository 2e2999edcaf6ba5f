"""Which parameters a stage of the training changes."""

from __future__ import annotations

from collections.abc import Iterable
import fnmatch

from torch import nn

from faster_core.errors import ConfigError
from faster_core.policy.train_config import StageConfig

# Parts of names that adapters bring (`lora.add_adapters`).
ADAPTER, UNDER_ADAPTER = '.lora_', '.base_layer.'
# What adapters adapt: nothing else of it is trained beside them.
PRETRAINED = 'backbone.vlm.'


def choose_parameters(model: nn.Module, stage: StageConfig, *, lora: bool = False) -> list[str]:
    """Let only the parameters require a gradient that a stage trains; return their names.

    Args:
        model: its parameters' names are what the patterns are for.
        stage: `freeze` wins over `train`.
        lora: whether the model has adapters.

    Raises:
        ConfigError: patterns that match nothing, or nothing is left to train.
    """
    check_patterns((name for name, _ in model.named_parameters()), stage)
    chosen = []
    for name, parameter in model.named_parameters():
        known = name.replace(UNDER_ADAPTER, '.')
        wanted = _any(known, stage.train) and not _any(known, stage.freeze)
        if lora and ADAPTER not in name:
            wanted = wanted and not (name.startswith(PRETRAINED) or UNDER_ADAPTER in name)
        parameter.requires_grad_(wanted)
        if wanted:
            chosen.append(name)
    if not chosen:
        raise ConfigError(
            f'stages: train {list(stage.train)} without {list(stage.freeze)} leaves no parameter'
        )
    return chosen


def check_patterns(names: Iterable[str], stage: StageConfig) -> None:
    """Refuse a stage that names what is not there (ConfigError)."""
    plain = [name.replace(UNDER_ADAPTER, '.') for name in names]
    patterns = (*stage.train, *stage.freeze)
    if idle := [p for p in patterns if not any(matches(name, p) for name in plain)]:
        raise ConfigError(f'stages: no parameter is called {", ".join(idle)}')


def matches(name: str, pattern: str) -> bool:
    """Whether a parameter's name begins with a pattern, up to a dot, or fits its wildcards."""
    return name == pattern or name.startswith(f'{pattern}.') or fnmatch.fnmatch(name, pattern)


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)
