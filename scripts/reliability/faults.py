"""Faults on demand: one file, written by the measurement and read by the process that fails."""

from __future__ import annotations

import os
import pathlib

VARIABLE = 'FASTER_VLA_FAULT_FILE'


def command(folder: pathlib.Path, text: str) -> None:
    """Order a fault; empty: none."""
    file, new = folder / 'fault', folder / 'fault.new'
    new.write_text(text, encoding='utf-8')
    new.replace(file)


def environment(folder: pathlib.Path) -> dict[str, str]:
    """Return the variable that tells a process where to look."""
    return {VARIABLE: str(folder / 'fault')}


def ordered() -> tuple[str, ...]:
    """Return the words of the fault ordered now; empty if there is none."""
    try:
        return tuple(pathlib.Path(os.environ[VARIABLE]).read_text(encoding='utf-8').split())
    except (KeyError, FileNotFoundError):
        return ()


def done() -> None:
    """Take note that a fault that happens once has happened."""
    pathlib.Path(os.environ[VARIABLE]).unlink(missing_ok=True)
