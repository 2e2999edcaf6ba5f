"""Engines by name."""

from __future__ import annotations

from collections.abc import Mapping

from faster_core.errors import ConfigError
from faster_core.policy.engines.base import Engine
from faster_core.policy.engines.compiled import CompileEngine
from faster_core.policy.engines.cuda_graph import CudaGraphEngine
from faster_core.policy.engines.openvino import OpenVinoEngine
from faster_core.policy.engines.plain import EagerEngine, StaticEngine
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla
from faster_core.tokenizer.interface import ActionTokenizer

ENGINES: Mapping[str, type[Engine]] = {
    cls.name: cls
    for cls in (EagerEngine, StaticEngine, CompileEngine, CudaGraphEngine, OpenVinoEngine)
}


def make_engine(name: str, model: FasterVla | FlowVla, tokenizer: ActionTokenizer) -> Engine:
    """Return an engine for a model.

    Raises:
        ConfigError: an unknown name, or an engine that this device or installation lacks.
    """
    if name == 'auto':
        on_gpu = model.device.type == 'cuda'
        name = CudaGraphEngine.name if on_gpu else StaticEngine.name
    if name not in ENGINES:
        raise ConfigError(f'engine: expected auto or {", ".join(ENGINES)}, found {name!r}')
    return ENGINES[name](model, tokenizer)
