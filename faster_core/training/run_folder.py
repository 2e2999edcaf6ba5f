"""A training run on disk: configuration, metrics, plot, and a state to resume from.

No pickle: tensors go to safetensors, everything else to JSON. Files appear under their final name
only when complete.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
import importlib.util
import json
import os
import pathlib
from typing import Any

from safetensors import safe_open, SafetensorError
from safetensors.torch import save_file
import torch

from faster_core.errors import CheckpointError, ConfigError

# Curves of a panel that are named at most.
_LEGEND = 6


class RunFolder:
    """Folder with config.json, metrics.jsonl, metrics.png and state.safetensors."""

    def __init__(self, path: str | pathlib.Path, config: Mapping[str, Any]) -> None:
        """Create the folder or reopen it.

        Raises:
            ConfigError: it belongs to a run with another configuration.
        """
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        file, text = self.path / 'config.json', json.dumps(config, indent=2, sort_keys=True)
        if not file.exists():
            # Several processes may come here at once, all with the same text.
            partial = file.with_suffix(f'.{os.getpid()}')
            partial.write_text(text, encoding='utf-8')
            partial.replace(file)
        elif file.read_text(encoding='utf-8') != text:
            raise ConfigError(f'{file} is of another configuration: choose an empty folder')
        self._metrics = self.path / 'metrics.jsonl'
        self._board: Any = None

    def log(self, step: int, **metrics: float) -> None:
        """Append one line of metrics; TensorBoard gets the same where it is installed."""
        values = {k: float(f'{float(v):.6g}') for k, v in metrics.items()}
        with self._metrics.open('a', encoding='utf-8') as f:
            f.write(json.dumps({'step': step, **values}) + '\n')
        if _has_tensorboard():
            from torch.utils.tensorboard import SummaryWriter

            self._board = self._board or SummaryWriter(str(self.path / 'tensorboard'))
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def metrics(self) -> list[dict[str, float]]:
        """Return all lines, oldest first; after a resume the newest line of a step wins."""
        if not self._metrics.exists():
            return []
        lines = self._metrics.read_text(encoding='utf-8').splitlines()
        by_step: dict[int, dict[str, float]] = {}
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # the process was killed while it wrote this line
                continue
            by_step[row['step']] = {**by_step.get(row['step'], {}), **row}
        return [by_step[step] for step in sorted(by_step)]

    def plot(self) -> pathlib.Path:
        """Draw every metric over steps into metrics.png; numbered ones share a panel."""
        import matplotlib as mpl

        mpl.use('Agg')
        import matplotlib.pyplot as plt

        rows = self.metrics()
        panels: dict[str, list[str]] = {}
        for name in sorted({k for row in rows for k in row} - {'step'}):
            panels.setdefault(name.rstrip('0123456789'), []).append(name)
        columns = min(3, max(1, len(panels)))
        lines = -(-max(1, len(panels)) // columns)
        figure, axes = plt.subplots(
            lines, columns, figsize=(4.5 * columns, 2.8 * lines), squeeze=False
        )
        for axis in axes.flat[len(panels) :]:
            axis.axis('off')
        for axis, (title, names) in zip(axes.flat, panels.items(), strict=False):
            for name in names:
                points = [(row['step'], row[name]) for row in rows if name in row]
                axis.plot(*zip(*points, strict=True), linewidth=1, label=name)
            if 1 < len(names) <= _LEGEND:
                axis.legend(fontsize=7)
            axis.set_title(names[0] if len(names) == 1 else title)
            axis.set_xlabel('step')
            axis.grid(alpha=0.3)
        figure.tight_layout()
        path = self.path / 'metrics.png'
        figure.savefig(path, dpi=110)
        plt.close(figure)
        return path

    def save_state(
        self, step: int, tensors: Mapping[str, torch.Tensor], extra: Mapping[str, Any] = {}
    ) -> None:
        """Write everything a resume needs; an interrupted write leaves the last state."""
        partial = self.path / 'state.partial'
        metadata = {'step': str(step), 'extra': json.dumps(dict(extra))}
        save_file(_unshared(tensors), str(partial), metadata=metadata)
        partial.replace(self.path / 'state.safetensors')

    def load_state(self) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return step, tensors and extra of the last state; None if there is none.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.path / 'state.safetensors'
        if not path.exists():
            return None
        try:
            with safe_open(str(path), 'pt') as f:
                metadata = f.metadata()
                tensors = {k: f.get_tensor(k) for k in f.keys()}
            return int(metadata['step']), tensors, json.loads(metadata['extra'])
        except (SafetensorError, KeyError, ValueError, TypeError) as e:
            raise CheckpointError(f'state {path}: {e}') from e


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors as safetensors takes them; only those are copied that it would refuse."""
    seen, own = set(), {}
    for name, value in tensors.items():
        storage = value.untyped_storage()
        complete = storage.nbytes() == value.numel() * value.element_size()
        if not complete or not value.is_contiguous() or storage.data_ptr() in seen:
            value = value.detach().clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())
        own[name] = value.detach()
    return own


@functools.cache
def _has_tensorboard() -> bool:
    return importlib.util.find_spec('tensorboard') is not None


def pack(**groups: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Merge named groups of tensors into one mapping: 'group/name'."""
    return {f'{g}/{k}': v for g, values in groups.items() for k, v in values.items()}


def unpack(tensors: Mapping[str, torch.Tensor], group: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one group of `pack`."""
    start = f'{group}/'
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return an optimiser's per-parameter state as named tensors."""
    return {
        f'{index}.{name}': value if torch.is_tensor(value) else torch.tensor(value)
        for index, state in optimizer.state_dict()['state'].items()
        for name, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned; hyper-parameters stay the optimiser's own."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split('.', 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': state, 'param_groups': groups})
