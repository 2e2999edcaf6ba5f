"""What is measured: sizes of policies, robots and tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from faster_core import paths
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError

# One arm with two cameras, as LIBERO's: displacement and rotation of the hand, gripper.
_SINGLE_ARM = """
name: single_arm
action_frequency: 20.0
action_horizon: 20
cameras: [front, wrist]
state:
  - {component: arm, kind: joint_position, names: [j1, j2, j3, j4, j5, j6, j7]}
  - {component: gripper, kind: gripper_position, names: [finger]}
action:
  - {component: position, kind: ee_delta, names: [x, y, z]}
  - {component: rotation, kind: ee_delta, names: [rx, ry, rz]}
  - {component: gripper, kind: gripper_position, names: [finger]}
tokenizer_groups:
  - [position]
  - [rotation]
  - [gripper]
"""

# PaliGemma-3B: SigLIP So400m at 224 pixels (256 tokens per image) and Gemma 2B.
_PALIGEMMA: Mapping[str, Any] = {
    'model_type': 'paligemma',
    'projection_dim': 2048,
    'image_token_index': 257152,
    'vision_config': {
        'model_type': 'siglip_vision_model',
        'hidden_size': 1152,
        'intermediate_size': 4304,
        'num_hidden_layers': 27,
        'num_attention_heads': 16,
        'patch_size': 14,
        'image_size': 224,
        'projection_dim': 2048,
        'vision_use_head': False,
    },
    'text_config': {
        'model_type': 'gemma',
        'hidden_size': 2048,
        'intermediate_size': 16384,
        'num_hidden_layers': 18,
        'num_attention_heads': 8,
        'num_key_value_heads': 1,
        'head_dim': 256,
        'vocab_size': 257216,
    },
}
# The same shape a few hundred times smaller, for a machine without a GPU.
_SMALL: Mapping[str, Any] = {
    'model_type': 'paligemma',
    'projection_dim': 256,
    'image_token_index': 2000,
    'vision_config': {
        **_PALIGEMMA['vision_config'],
        'hidden_size': 144,
        'intermediate_size': 512,
        'num_hidden_layers': 4,
        'num_attention_heads': 4,
        'projection_dim': 256,
    },
    'text_config': {
        **_PALIGEMMA['text_config'],
        'hidden_size': 256,
        'intermediate_size': 1024,
        'num_hidden_layers': 4,
        'num_attention_heads': 4,
        'head_dim': 64,
        'vocab_size': 2048,
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeedPreset:
    """One comparison.

    Attributes:
        embodiment: gives cameras, horizon and action dimensions; '' is the built-in single arm.
        blocks: (tokenizer preset, block size) of block-wise decoding; the first is the headline.
        fast_tokens: length of a FAST string; the paper names 174 for the whole body, pi0-FAST's
            times stand for about 40 on a single arm.
        flow_steps: of the flow head.
        large, small: configuration of the backbone, at the paper's scale and for CPUs.
        text_tokens: length of the prompt.
    """

    embodiment: str
    blocks: tuple[tuple[str, int], ...]
    fast_tokens: int
    flow_steps: int = 10
    large: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _PALIGEMMA)
    small: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _SMALL)
    text_tokens: int = 24

    def robot(self) -> Embodiment:
        """Return the embodiment."""
        if not self.embodiment:
            return Embodiment.from_text(_SINGLE_ARM)
        return Embodiment.load(paths.embodiment_file(self.embodiment))


DEMO = 'demo'
SPEED_PRESETS: Mapping[str, SpeedPreset] = {
    'paper_single': SpeedPreset(embodiment='', blocks=(('single_arm_eef', 7),), fast_tokens=40),
    'paper_whole_body': SpeedPreset(
        embodiment='r1_lite',
        blocks=(('whole_body_96', 8), ('whole_body', 21), ('whole_body', 7)),
        fast_tokens=174,
    ),
}
# FAST at its published scale on the R1 Lite (docs/results/tokenizers.json: 44.3 on the mean).
DEMO_FAST_TOKENS = 44


def speed_preset(name: str) -> SpeedPreset:
    """Return a preset; ConfigError if there is none of that name."""
    if name not in SPEED_PRESETS:
        raise ConfigError(
            f'preset: expected one of {", ".join((DEMO, *SPEED_PRESETS))}, found {name!r}'
        )
    return SPEED_PRESETS[name]
