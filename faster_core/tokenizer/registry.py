"""All tokenizers by name, and reading any of them from a folder."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib

from faster_core.errors import CheckpointError
from faster_core.tokenizer.baselines.bins import Bins
from faster_core.tokenizer.baselines.bspline import BSplineTokenizer
from faster_core.tokenizer.baselines.fast import Fast
from faster_core.tokenizer.baselines.minivla import MiniVla
from faster_core.tokenizer.baselines.vqvla import VqVla
from faster_core.tokenizer.faster_vq import FasterVQ
from faster_core.tokenizer.interface import ActionTokenizer, read_json

TOKENIZERS: Mapping[str, type[ActionTokenizer]] = {
    cls.kind: cls for cls in (FasterVQ, Fast, Bins, MiniVla, VqVla, BSplineTokenizer)
}


def load_tokenizer(path: str | pathlib.Path) -> ActionTokenizer:
    """Read a tokenizer of any kind.

    Raises:
        CheckpointError: no tokenizer there, of an unknown kind, or damaged.
    """
    values = read_json(pathlib.Path(path) / 'config.json')
    kind = values.get('kind', FasterVQ.kind) if isinstance(values, dict) else None
    if kind not in TOKENIZERS:
        raise CheckpointError(
            f'tokenizer {path}: expected kind {", ".join(TOKENIZERS)}, found {kind!r}'
        )
    return TOKENIZERS[kind].from_pretrained(path)
