"""Reading the measured figures of docs/results."""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]


def read(name: str) -> dict[str, Any]:
    """Return a report."""
    return json.loads((ROOT / 'docs' / 'results' / f'{name}.json').read_text(encoding='utf-8'))


def machine(facts: Mapping[str, Any]) -> str:
    """Return what it ran on."""
    return f'{facts["cores"]} cores of an {facts["cpu"]}, torch {facts["torch"]}'
