"""Which source a result came from."""

from __future__ import annotations

import os
import pathlib
import subprocess

# Names the commit where a copy of the source tree has no history.
COMMIT = 'FASTER_VLA_COMMIT'


def git_commit() -> str:
    """Return the commit of the source tree, '+changes' if it has any.

    Outside of a repository it is what the environment variable `FASTER_VLA_COMMIT` says, or ''.
    """
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
        return os.environ.get(COMMIT, '')
    return run.stdout.strip()
