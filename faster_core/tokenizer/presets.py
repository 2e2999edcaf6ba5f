"""Named sizes of FASTerVQ.

The large ones have the paper's latent shapes and roughly its parameter counts; the `_small` ones
train on two cores. Depth, width and heads are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from faster_core.tokenizer.config import FasterVQConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A configuration in two parts.

    Attributes:
        horizon, group_sizes: of the robot it is meant for; an embodiment's own take their place.
        fields: everything else of `FasterVQConfig`.
    """

    horizon: int
    group_sizes: tuple[int, ...]
    fields: Mapping[str, Any]

    def config(self, **changes: Any) -> FasterVQConfig:
        """Build the configuration, with some fields changed."""
        shape = {'horizon': self.horizon, 'group_sizes': self.group_sizes}
        return FasterVQConfig(**(shape | dict(self.fields) | changes))


# The paper: d_z = 128, K = 4096, three levels; about 8 M parameters for one arm.
# Linear path and beam are ours, measured in docs/tokenizer.md.
_OURS = {'linear_path': 'pca', 'encode_beam': 6, 'kmeans_iterations': 15}
_PAPER = {'latent_dim': 128, 'num_levels': 3, 'codebook_size': 4096, 'heads': 8, **_OURS}
_ARM = {**_PAPER, 'width': 256, 'depth': 5}
_BODY = {**_PAPER, 'width': 320, 'depth': 6}
_SMALL = {
    'width': 96,
    'depth': 1,
    'heads': 4,
    'latent_dim': 32,
    'num_levels': 3,
    'codebook_size': 1024,
    **_OURS,
}

# name -> horizon, group sizes, slots per group, patch length, strides
_SHAPES: Mapping[str, tuple[int, tuple[int, ...], tuple[int, ...], int, tuple[int, ...]]] = {
    # Position, orientation, gripper: 1 x 7 x 3 = 21 tokens.
    'single_arm_eef': (20, (3, 3, 1), (3, 3, 1), 5, (2, 2)),
    # Seven joints, gripper: 1 x 8 x 3 = 24 tokens.
    'single_arm_joint': (20, (7, 1), (7, 1), 5, (2, 2)),
    # Per arm six joints and a gripper: 2 x 14 x 3 = 84 tokens.
    'dual_arm': (50, (6, 1, 6, 1), (6, 1, 6, 1), 5, (5,)),
    # Arms, grippers, torso, base of the R1 Lite: 2 x 21 x 3 = 126 tokens.
    'whole_body': (32, (6, 1, 6, 1, 4, 3), (6, 1, 6, 1, 4, 3), 8, (2,)),
    # The same in 2 x 16 x 3 = 96 tokens, decoded in blocks of 8.
    'whole_body_96': (32, (6, 1, 6, 1, 4, 3), (5, 1, 5, 1, 2, 2), 8, (2,)),
}


def _presets() -> dict[str, Preset]:
    presets = {}
    for name, (horizon, groups, slots, patch, strides) in _SHAPES.items():
        layout = {
            'slots_per_group': slots,
            'patch_length': patch,
            'strides': strides,
            'time_slots': horizon // patch // math.prod(strides),
        }
        large = _ARM if name.startswith('single_arm') else _BODY
        for suffix, size in (('', large), ('_small', _SMALL)):
            presets[name + suffix] = Preset(
                horizon=horizon, group_sizes=groups, fields={**size, **layout}
            )
    return presets


PRESETS: Mapping[str, Preset] = _presets()
