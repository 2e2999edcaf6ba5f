"""Configuration of FASTerVQ. Fields marked (ours) are open in the paper."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from faster_core.data.reference import ABSOLUTE, REFERENCES
from faster_core.embodiment import Embodiment, Kind
from faster_core.errors import ConfigError

ENCODERS = ('taae', 'transformer', 'cnn')
SLOT_MAPS = ('split', 'mixed')
LAYOUTS = ('own', 'by_kind')
LINEAR_PATHS = ('none', 'pca')


@dataclasses.dataclass(frozen=True, kw_only=True)
class FasterVQConfig:
    """Architecture; group sizes, horizon and action size come from the embodiment.

    Attributes:
        horizon: H, rows of a chunk.
        group_sizes: dimensions of every action group; their sum is D.
        slots_per_group: action slots each group is split into as evenly as possible (ours);
            their sum is C_a.
        patch_length: rows per patch h.
        time_slots: C_h.
        strides: of the convolutions along time; `patch_length * time_slots *` their product is
            the horizon. None: as many twos as it takes (ours).
        width, depth, heads: transformer of encoder and decoder each (ours).
        latent_dim: d_z.
        num_levels: N_c of the residual quantiser.
        codebook_size: K.
        encoder: 'taae' (attention and convolutions), or one of them alone for the ablation:
            'transformer', 'cnn' (the mirrored decoder is of the same kind).
        slot_map: how groups become the C_a action slots of the latent grid (ours): 'split' cuts
            every group into `slots_per_group` slots, which stay apart; 'mixed' lets `latent_slots`
            learned mixtures of those slots take their place, so that C_a is free.
        latent_slots: C_a with 'mixed'; None with 'split'.
        layout: what tells the cells of the grid apart (ours): 'own' learns a vector for every cell
            of one robot; 'by_kind' adds up vectors for the kind of a slot (`slot_kinds`), its
            place among those of its kind, and time. Nothing then belongs to one robot, so that a
            robot never trained on can be encoded (`FasterVQ.for_robot`).
        linear_path: 'pca' adds a linear map from chunk to latents and one back to what the network
            makes; they start as principal components of the training data, the network at zero
            (ours; `linear_path.py`). 'none' leaves all to the network, as the paper.
        slot_kinds: with 'by_kind' the `Kind` of every group.
        slot_width: with 'by_kind' the width all slots of all robots are padded to.
        velocity_dims: columns that are zero while a robot rests; the others hold.
        ema_decay: of the codebooks (ours).
        reference: what joint positions of a chunk are relative to: 'absolute' (nothing) or
            'state', the measured ones at the observation (ours; `faster_core/data/reference.py`).
            Whoever encodes subtracts it, whoever decodes adds it.
        kmeans_iterations: rounds of k-means when the first batch fills the codebooks (ours).
        encode_beam: hypotheses kept from level to level when a chunk is encoded; 1 takes the
            nearest vector level by level (ours). Decoding is the same for all.
        dead_code_threshold: a code is placed anew if it is used less often than this share of
            what even use of all codes would be (ours).
    """

    horizon: int
    group_sizes: tuple[int, ...]
    slots_per_group: tuple[int, ...]
    patch_length: int = 4
    time_slots: int = 2
    strides: tuple[int, ...] | None = None
    width: int = 96
    depth: int = 2
    heads: int = 4
    latent_dim: int = 64
    num_levels: int = 3
    codebook_size: int = 512
    encoder: str = 'taae'
    slot_map: str = 'split'
    latent_slots: int | None = None
    layout: str = 'own'
    linear_path: str = 'none'
    slot_kinds: tuple[int, ...] = ()
    slot_width: int | None = None
    velocity_dims: tuple[int, ...] = ()
    ema_decay: float = 0.99
    kmeans_iterations: int = 10
    encode_beam: int = 1
    dead_code_threshold: float = 0.05
    reference: str = ABSOLUTE

    def __post_init__(self) -> None:
        """Refuse shapes that do not divide (ConfigError)."""
        object.__setattr__(self, 'group_sizes', tuple(self.group_sizes))
        object.__setattr__(self, 'slots_per_group', tuple(self.slots_per_group))
        object.__setattr__(self, 'velocity_dims', tuple(self.velocity_dims))
        if len(self.slots_per_group) != len(self.group_sizes) or any(
            not 1 <= slots <= size
            for slots, size in zip(self.slots_per_group, self.group_sizes, strict=False)
        ):
            raise ConfigError(
                f'slots_per_group {list(self.slots_per_group)}: expected one number per group, '
                f'from 1 to its size in {list(self.group_sizes)}'
            )
        counts = ('horizon', 'patch_length', 'time_slots', 'width', 'depth', 'heads', 'latent_dim')
        for name in (*counts, 'num_levels', 'codebook_size', 'encode_beam'):
            if getattr(self, name) < 1:
                raise ConfigError(f'{name}: expected at least 1, found {getattr(self, name)}')
        if self.codebook_size < 2:
            raise ConfigError('codebook_size: expected at least 2, found 1')
        choices = {
            'reference': REFERENCES,
            'encoder': ENCODERS,
            'slot_map': SLOT_MAPS,
            'layout': LAYOUTS,
            'linear_path': LINEAR_PATHS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f'{name}: expected one of {", ".join(known)}, found {getattr(self, name)!r}'
                )
        mixed = self.slot_map == 'mixed'
        if mixed != (self.latent_slots is not None) or (mixed and self.latent_slots < 1):
            raise ConfigError(
                f'latent_slots: expected a number >= 1 with slot_map mixed and none with split, '
                f'found {self.latent_slots!r} with {self.slot_map}'
            )
        self._check_layout()
        if bad := [d for d in self.velocity_dims if not 0 <= d < self.action_dim]:
            raise ConfigError(f'velocity_dims: expected 0..{self.action_dim - 1}, found {bad}')
        self._resolve_strides()
        if self.width % self.heads:
            raise ConfigError(f'width {self.width} is not a multiple of heads {self.heads}')

    def _check_layout(self) -> None:
        object.__setattr__(self, 'slot_kinds', tuple(int(k) for k in self.slot_kinds))
        if self.layout == 'own':
            if self.slot_kinds or self.slot_width is not None:
                raise ConfigError('slot_kinds and slot_width are for layout by_kind')
            return
        if self.slot_map != 'split':
            raise ConfigError(f'layout by_kind: expected slot_map split, found {self.slot_map}')
        known = {int(k) for k in Kind}
        if len(self.slot_kinds) != len(self.group_sizes) or not set(self.slot_kinds) <= known:
            raise ConfigError(
                f'slot_kinds: expected a kind for each of {len(self.group_sizes)} groups, '
                f'found {list(self.slot_kinds)}'
            )
        if self.slot_width is None or self.slot_width < max(self.slot_sizes):
            raise ConfigError(
                f'slot_width: expected at least {max(self.slot_sizes)}, the widest slot, '
                f'found {self.slot_width!r}'
            )

    def _resolve_strides(self) -> None:
        ratio, rest = divmod(self.horizon, self.patch_length * self.time_slots)
        strides = self.strides
        if strides is None and not rest and ratio & (ratio - 1) == 0:
            strides = (2,) * (ratio.bit_length() - 1)
        if strides is None or rest or math.prod(strides) != ratio or min(strides, default=2) < 2:
            given = 'a power of two' if self.strides is None else f'strides {list(self.strides)}'
            raise ConfigError(
                f'horizon {self.horizon}: expected patch_length {self.patch_length} * time_slots '
                f'{self.time_slots} * {given}'
            )
        object.__setattr__(self, 'strides', tuple(strides))

    @classmethod
    def from_embodiment(cls, embodiment: Embodiment, **fields: Any) -> FasterVQConfig:
        """Take horizon and groups from an embodiment."""
        sizes = {c.name: c.size for c in embodiment.action}
        groups = tuple(sum(sizes[n] for n in group) for group in embodiment.tokenizer_groups)
        if fields.get('layout') == 'by_kind':
            fields['slot_kinds'] = group_kinds(embodiment)
        return cls(
            horizon=embodiment.action_horizon,
            group_sizes=groups,
            velocity_dims=velocity_dims(embodiment),
            **fields,
        )

    @property
    def action_dim(self) -> int:
        """D."""
        return sum(self.group_sizes)

    @property
    def slot_sizes(self) -> tuple[int, ...]:
        """Dimensions of every action slot, in order."""
        sizes = []
        for size, slots in zip(self.group_sizes, self.slots_per_group, strict=True):
            small, larger = divmod(size, slots)
            sizes += [small + 1] * larger + [small] * (slots - larger)
        return tuple(sizes)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(C_h, C_a)."""
        return self.time_slots, self.latent_slots or sum(self.slots_per_group)

    @property
    def num_tokens(self) -> int:
        """N = N_c * C_h * C_a."""
        return self.num_levels * self.latent_shape[0] * self.latent_shape[1]

    @property
    def num_patches(self) -> int:
        """Patches along time, m."""
        return self.horizon // self.patch_length


def group_kinds(embodiment: Embodiment) -> tuple[int, ...]:
    """Return the kind of every tokenizer group; ConfigError if a group mixes kinds."""
    kinds = {c.name: c.kind for c in embodiment.action}
    result = []
    for group in embodiment.tokenizer_groups:
        found = {kinds[name] for name in group}
        if len(found) > 1:
            names = ', '.join(sorted(k.name.lower() for k in found))
            raise ConfigError(f'tokenizer group {list(group)}: expected one kind, found {names}')
        result.append(int(found.pop()))
    return tuple(result)


def velocity_dims(embodiment: Embodiment) -> tuple[int, ...]:
    """Return the columns of an action that are zero while the robot rests."""
    return tuple(
        column
        for c in embodiment.action
        if not c.kind.is_position
        for column in range(*embodiment.action_slices[c.name].indices(embodiment.action_dim))
    )
