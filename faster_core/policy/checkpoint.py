"""The checkpoint folder: everything a policy needs, no pickle, every file checked at load."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from faster_core.config import from_mapping
from faster_core.embodiment import Embodiment
from faster_core.errors import CheckpointError, ConfigError, EmbodimentError
from faster_core.policy.backbones import build_backbone
from faster_core.policy.backbones.families import FAMILIES
from faster_core.policy.config import PolicyConfig, SMALL
from faster_core.policy.flow import FlowVla
from faster_core.policy.layout import layout_of
from faster_core.policy.model import FasterVla
from faster_core.policy.prompt import PromptEncoder
from faster_core.policy.state import StateNormalizer
from faster_core.policy.text import TextEncoder
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.registry import load_tokenizer

FORMAT = 1
FILES = (
    'config.json',
    'model.safetensors',
    'embodiment.yaml',
    'normalization.json',
    'text_tokenizer.json',
    'tokenizer/config.json',
    'tokenizer/normalization.json',
)


@dataclasses.dataclass(kw_only=True)
class PolicyParts:
    """What a checkpoint holds."""

    config: PolicyConfig
    embodiment: Embodiment
    tokenizer: ActionTokenizer
    text: TextEncoder | PromptEncoder
    state: StateNormalizer
    model: FasterVla | FlowVla


def build_model(
    config: PolicyConfig,
    embodiment: Embodiment,
    tokenizer: ActionTokenizer,
    text: TextEncoder | PromptEncoder,
    *,
    pretrained: bool = False,
) -> FasterVla | FlowVla:
    """Build FASTerVLA with random weights for a robot and its tokenizer.

    Args:
        config: architecture.
        embodiment: the robot.
        tokenizer: of its actions; of a flow head only the statistics are used.
        text: of the instructions.
        pretrained: take the backbone's weights from `config.pretrained`.
    """
    around = () if config.backbone == SMALL else FAMILIES[config.backbone].around
    backbone = build_backbone(
        config,
        vocab_size=text.vocab_size,
        num_cameras=len(embodiment.cameras),
        state_sizes=tuple(c.size for c in embodiment.state),
        around=text.token_ids(around),
        weights=config.pretrained if pretrained else '',
    )
    if config.head == 'flow':
        return FlowVla(
            config, backbone, horizon=tokenizer.horizon, action_dim=tokenizer.action_dim
        )
    return FasterVla(
        config, layout_of(tokenizer, config.order, config.max_action_tokens), backbone
    )


def save(path: str | pathlib.Path, parts: PolicyParts, metadata: dict[str, Any]) -> None:
    """Write a checkpoint folder; `metadata` tells data, steps and commit."""
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / 'config.json').write_text(json.dumps(parts.config.to_dict(), indent=2) + '\n')
    weights = {k: v.detach().cpu().contiguous() for k, v in parts.model.state_dict().items()}
    save_file(weights, str(path / 'model.safetensors'))
    (path / 'embodiment.yaml').write_text(parts.embodiment.source, encoding='utf-8')
    (path / 'normalization.json').write_text(json.dumps(parts.state.to_dict()) + '\n')
    parts.text.save(path / 'text_tokenizer.json')
    parts.tokenizer.save_pretrained(path / 'tokenizer')
    full = {
        'format': FORMAT,
        **metadata,
        'embodiment': parts.embodiment.name,
        'embodiment_sha256': parts.embodiment.checksum,
        'files': {name: _sha256(path / name) for name in _files(path)},
    }
    (path / 'metadata.json').write_text(json.dumps(full, indent=2) + '\n')


def load(path: str | pathlib.Path) -> PolicyParts:
    """Read a checkpoint folder.

    Raises:
        CheckpointError: the folder or a file is missing, truncated or changed, or the parts do
            not fit each other; the message names the file.
    """
    path = pathlib.Path(path)
    metadata = _metadata(path)
    for name, expected in metadata['files'].items():
        found = _sha256(path / name)
        if found != expected:
            raise CheckpointError(
                f'{path / name}: sha256 {found[:12]}… is not the {str(expected)[:12]}… of '
                'metadata.json: the file is truncated or was changed'
            )
    try:
        config = from_mapping(
            PolicyConfig, _json(path / 'config.json'), source=str(path / 'config.json')
        )
        embodiment = Embodiment.load(path / 'embodiment.yaml')
    except (ConfigError, EmbodimentError) as e:
        raise CheckpointError(str(e)) from e
    if embodiment.checksum != metadata['embodiment_sha256']:
        raise CheckpointError(f'{path / "embodiment.yaml"} is not the one in metadata.json')
    tokenizer = load_tokenizer(path / 'tokenizer')
    expected_shape = (embodiment.action_horizon, embodiment.action_dim)
    if (tokenizer.horizon, tokenizer.action_dim) != expected_shape:
        raise CheckpointError(
            f'{path / "tokenizer"}: made for chunks [{tokenizer.horizon}, '
            f'{tokenizer.action_dim}], the embodiment has {list(expected_shape)}'
        )
    encoder = TextEncoder if config.backbone == SMALL else PromptEncoder
    text = encoder.load(path / 'text_tokenizer.json', config.max_text_tokens)
    state = StateNormalizer.from_dict(_json(path / 'normalization.json'), embodiment.state_dim)
    try:
        model = build_model(config, embodiment, tokenizer, text)
        model.load_state_dict(load_file(path / 'model.safetensors'))
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as e:
        raise CheckpointError(f'{path / "model.safetensors"}: {e}') from e
    return PolicyParts(
        config=config,
        embodiment=embodiment,
        tokenizer=tokenizer,
        text=text,
        state=state,
        model=model.eval(),
    )


def checkpoint_sha256(path: str | pathlib.Path) -> str:
    """Return the sha256 (hex) of metadata.json, which covers every file."""
    return _sha256(pathlib.Path(path) / 'metadata.json')


def _metadata(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_dir():
        raise CheckpointError(f'no checkpoint folder {path}')
    metadata = _json(path / 'metadata.json')
    if not isinstance(metadata, dict) or metadata.get('format') != FORMAT:
        raise CheckpointError(f'{path / "metadata.json"}: expected "format": {FORMAT}')
    files = metadata.get('files')
    if not isinstance(files, dict) or not set(files) >= set(FILES):
        raise CheckpointError(f'{path / "metadata.json"}: "files" must list {", ".join(FILES)}')
    if wrong := set(files) ^ set(_files(path)):
        raise CheckpointError(
            f'{path / "metadata.json"}: missing, or in only one of "files" and the folder: '
            f'{", ".join(sorted(wrong))}'
        )
    if 'embodiment_sha256' not in metadata:
        raise CheckpointError(f'{path / "metadata.json"}: no "embodiment_sha256"')
    return metadata


def _files(path: pathlib.Path) -> list[str]:
    """Return the files of a checkpoint: `FILES`, and what its tokenizer has beside."""
    found = [f for f in (path / 'tokenizer').glob('*') if f.suffix in ('.json', '.safetensors')]
    names = [f.relative_to(path).as_posix() for f in found]
    return [*FILES, *sorted(n for n in names if n not in FILES)]


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as e:
        raise CheckpointError(f'{path}: {e}') from e


def _sha256(path: pathlib.Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as e:
        raise CheckpointError(f'{path}: {e}') from e
