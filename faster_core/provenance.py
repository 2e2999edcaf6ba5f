"""Which source a result came from."""

from __future__ import annotations

import pathlib
import subprocess


def git_commit() -> str:
    """Return the commit of the source tree, '+changes' if it has any; '' outside of one."""
    folder = pathlib.Path(__file__).resolve().parent
    try:
        run = subprocess.run(
            ['git', 'describe', '--always', '--abbrev=40', '--dirty=+changes'],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ''
    return run.stdout.strip()
