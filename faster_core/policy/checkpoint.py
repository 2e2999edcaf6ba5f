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
from faster_core.policy.config import PolicyConfig
from faster_core.policy.model import CodeLayout, FasterVla
from faster_core.policy.state import StateNormalizer
from faster_core.policy.text import TextEncoder
from faster_core.tokenizer.faster_vq import FasterVQ

FORMAT = 1
FILES = (
    'config.json',
    'model.safetensors',
    'embodiment.yaml',
    'normalization.json',
    'text_tokenizer.json',
    'tokenizer/config.json',
    'tokenizer/model.safetensors',
    'tokenizer/normalization.json',
)


@dataclasses.dataclass(kw_only=True)
class PolicyParts:
    """What a checkpoint holds."""

    config: PolicyConfig
    embodiment: Embodiment
    tokenizer: FasterVQ
    text: TextEncoder
    state: StateNormalizer
    model: FasterVla


def build_model(
    config: PolicyConfig, embodiment: Embodiment, tokenizer: FasterVQ, text: TextEncoder
) -> FasterVla:
    """Build FASTerVLA with random weights for a robot and its tokenizer."""
    shape = tokenizer.config
    return FasterVla(
        config,
        CodeLayout(
            num_levels=shape.num_levels,
            codebook_size=shape.codebook_size,
            tokens_per_level=shape.latent_shape[0] * shape.latent_shape[1],
        ),
        vocab_size=text.vocab_size,
        num_cameras=len(embodiment.cameras),
        state_sizes=tuple(c.size for c in embodiment.state),
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
        'files': {name: _sha256(path / name) for name in FILES},
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
    tokenizer = FasterVQ.from_pretrained(path / 'tokenizer')
    expected_shape = (embodiment.action_horizon, embodiment.action_dim)
    if (tokenizer.config.horizon, tokenizer.config.action_dim) != expected_shape:
        raise CheckpointError(
            f'{path / "tokenizer"}: made for chunks [{tokenizer.config.horizon}, '
            f'{tokenizer.config.action_dim}], the embodiment has {list(expected_shape)}'
        )
    text = TextEncoder.load(path / 'text_tokenizer.json', config.max_text_tokens)
    state = StateNormalizer.from_dict(_json(path / 'normalization.json'), embodiment.state_dim)
    try:
        model = build_model(config, embodiment, tokenizer, text)
        model.load_state_dict(load_file(path / 'model.safetensors'))
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as e:
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
    if not isinstance(files, dict) or set(files) != set(FILES):
        raise CheckpointError(f'{path / "metadata.json"}: "files" must list {", ".join(FILES)}')
    if 'embodiment_sha256' not in metadata:
        raise CheckpointError(f'{path / "metadata.json"}: no "embodiment_sha256"')
    return metadata


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
