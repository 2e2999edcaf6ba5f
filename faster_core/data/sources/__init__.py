"""Where motions come from; a source is one file and one row of this table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from faster_core.data.sources import aloha, franka, g1, metaworld, r1_lite
from faster_core.data.sources.source import Source

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        'metaworld': metaworld.SOURCE,
        'aloha': aloha.SOURCE,
        'r1_lite': r1_lite.SOURCE,
        'g1': g1.SOURCE,
        'franka': franka.SOURCE,
    }
)
