"""Ways to run one model: plain torch as the oracle, and faster ones that give the same codes."""

from faster_core.policy.engines.base import Engine, ModelInputs
from faster_core.policy.engines.choose import ENGINES, make_engine

__all__ = ['ENGINES', 'Engine', 'ModelInputs', 'make_engine']
