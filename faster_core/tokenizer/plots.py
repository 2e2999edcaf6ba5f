"""The picture of how codes are used."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib

import numpy as np


def plot_code_use(counts: Mapping[str, np.ndarray], path: pathlib.Path) -> pathlib.Path:
    """Draw the share of every code, most used first, one panel per name and one line per level.

    Args:
        counts: name -> [levels, K] how often every code was chosen.
        path: file to write.
    """
    import matplotlib as mpl

    mpl.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(counts), figsize=(4.6 * len(counts), 3.4), squeeze=False)
    for axis, (name, levels) in zip(axes[0], counts.items(), strict=True):
        for level, row in enumerate(levels, start=1):
            shares = np.sort(row)[::-1] / max(row.sum(), 1)
            axis.plot(np.arange(1, len(row) + 1), np.where(shares > 0, shares, np.nan))
            axis.lines[-1].set_label(f'level {level}: {(row > 0).mean():.0%} used')
        axis.axhline(1 / levels.shape[1], color='k', linestyle=':', label='even use')
        axis.set(yscale='log', xlabel='codes by use', ylabel='share of tokens', title=name)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
