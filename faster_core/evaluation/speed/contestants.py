"""The policies that are timed: every head around the same backbone, with the same engine."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses

import numpy as np
import torch

from faster_core.embodiment import Embodiment
from faster_core.evaluation.speed.presets import DEMO_FAST_TOKENS, SpeedPreset
from faster_core.policy import checkpoint
from faster_core.policy.backbones import Backbone, build_backbone
from faster_core.policy.checkpoint import PolicyParts
from faster_core.policy.config import PolicyConfig
from faster_core.policy.flow import FlowVla
from faster_core.policy.layout import CodeLayout, layout_of
from faster_core.policy.model import FasterVla
from faster_core.policy.state import StateNormalizer
from faster_core.policy.text import TextEncoder
from faster_core.tokenizer.baselines.bins import Bins, BinsConfig
from faster_core.tokenizer.config import FasterVQConfig, velocity_dims
from faster_core.tokenizer.faster_vq import FasterVQ
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.presets import PRESETS

FAST_VOCABULARY = 1024
_INSTRUCTION = 'pick up the red block and put it on the table'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """One head.

    Attributes:
        key: 'head@tokens/block', or 'flow@steps'.
        head: block, token, fast, bins or flow.
        parts: a policy to build around them.
        passes: of the decoder per inference.
    """

    key: str
    head: str
    parts: PolicyParts
    passes: int


class FixedLengthFast(Bins):
    """Stands for FAST's strings in time, not in meaning: a fixed number of tokens, no text.

    An untrained policy never writes a string that decodes; how long decoding takes does not
    depend on which tokens are chosen, only on how many, so that is fixed to the mean.
    """

    kind = 'fast'

    def __init__(self, config: BinsConfig, normalizer: ActionNormalizer, length: int) -> None:
        """Take the length of a string."""
        super().__init__(config, normalizer)
        self.vocab_size, self._length = FAST_VOCABULARY, length

    @property
    def num_tokens(self) -> int:
        """Length of a string."""
        return self._length

    def _decode(self, codes: object) -> np.ndarray:
        # The inverse transform of FAST is that of a chunk of coefficients.
        from scipy.fft import idct

        coefficients = np.zeros((1, self.horizon * self.action_dim), np.float32)
        coefficients[0, : self._length] = np.asarray(codes).ravel()[: coefficients.shape[1]]
        coefficients = coefficients.reshape(1, self.horizon, self.action_dim) / FAST_VOCABULARY
        return idct(coefficients, axis=1, norm='ortho').astype(np.float32)


@contextlib.contextmanager
def _on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Let modules be built where and as they are used: a 3 B model is not built twice."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def paper_contestants(
    preset: SpeedPreset, *, small: bool, device: torch.device, dtype: torch.dtype
) -> list[Contestant]:
    """Return all heads around one backbone with random weights.

    Args:
        preset: sizes.
        small: the small backbone and small tokenizers.
        device: where they are built.
        dtype: precision of the policies; the tokenizers stay in float32.
    """
    robot = preset.robot()
    vlm = dict(preset.small if small else preset.large)
    expert = {'hidden_size': 128, 'intermediate_size': 512} if small else {}
    config = PolicyConfig(
        backbone='paligemma',
        vlm=vlm,
        expert=expert,
        state_encoding='text',
        block_size=1,
        max_text_tokens=preset.text_tokens,
        flow_steps=preset.flow_steps,
    )
    text = TextEncoder.train([_INSTRUCTION], config.max_text_tokens)
    torch.manual_seed(0)
    with _on(device, dtype):
        backbone = build_backbone(
            config,
            vocab_size=text.vocab_size,
            num_cameras=len(robot.cameras),
            state_sizes=tuple(c.size for c in robot.state),
        ).eval()
    suffix = '_small' if small else ''
    blocks = [
        (_random_vq(robot, PRESETS[name + suffix].config()), size) for name, size in preset.blocks
    ]
    return _contestants(
        config, robot, text, _unit_state(robot), backbone, blocks, preset.fast_tokens, dtype
    )


def demo_contestants(folder: str) -> list[Contestant]:
    """Return the policy of a checkpoint, and other heads with random weights on its backbone."""
    parts = checkpoint.load(folder)
    blocks = [(parts.tokenizer, parts.config.block_size)]
    return _contestants(
        parts.config,
        parts.embodiment,
        parts.text,
        parts.state,
        parts.model.backbone,
        blocks,
        DEMO_FAST_TOKENS,
        torch.float32,
        trained=parts,
    )


def _contestants(
    config: PolicyConfig,
    robot: Embodiment,
    text: TextEncoder,
    state: StateNormalizer,
    backbone: Backbone,
    blocks: list[tuple[ActionTokenizer, int]],
    fast_tokens: int,
    dtype: torch.dtype,
    trained: PolicyParts | None = None,
) -> list[Contestant]:
    made = []

    def add(head: str, tokenizer: ActionTokenizer, size: int) -> None:
        fields = dataclasses.replace(
            config, head='flow' if head == 'flow' else 'codes', block_size=size
        )
        with _on(backbone.camera.device, dtype):
            if head == 'flow':
                model = FlowVla(
                    fields, backbone, horizon=tokenizer.horizon, action_dim=tokenizer.action_dim
                )
                key, passes = f'flow@{config.flow_steps}', config.flow_steps
            else:
                layout = _layout(tokenizer)
                model = FasterVla(fields, layout, backbone)
                key, passes = f'{head}@{layout.num_tokens}/{size}', model.num_blocks
        parts = PolicyParts(
            config=fields,
            embodiment=robot,
            tokenizer=tokenizer,
            text=text,
            state=state,
            model=model.eval(),
        )
        if head == 'block' and trained is not None:
            parts = trained
        made.append(Contestant(key=key, head=head, parts=parts, passes=passes))

    for tokenizer, size in blocks:
        add('block', tokenizer, size)
    tokenizer = blocks[0][0]
    shape = {
        'horizon': tokenizer.horizon,
        'action_dim': tokenizer.action_dim,
        'velocity_dims': tokenizer.velocity_dims,
    }
    bins = Bins(BinsConfig(**shape), tokenizer.normalizer)
    add('token', tokenizer, 1)
    add('fast', FixedLengthFast(BinsConfig(**shape), tokenizer.normalizer, fast_tokens), 1)
    add('bins', bins, 1)
    add('flow', bins, 1)
    return made


def _layout(tokenizer: ActionTokenizer) -> CodeLayout:
    return layout_of(tokenizer, 'level')


def _random_vq(robot: Embodiment, config: FasterVQConfig) -> FasterVQ:
    config = dataclasses.replace(config, velocity_dims=velocity_dims(robot))
    size = robot.action_dim
    normalizer = ActionNormalizer(
        centre=np.zeros(size, np.float32), half_range=np.ones(size, np.float32)
    )
    tokenizer = FasterVQ(config, normalizer)
    for level in tokenizer.model.quantizer.levels:
        level.vectors.normal_()
        level.initialised.fill_(True)
    return tokenizer


def _unit_state(robot: Embodiment) -> StateNormalizer:
    size = robot.state_dim
    return StateNormalizer(centre=np.zeros(size, np.float32), half_range=np.ones(size, np.float32))
