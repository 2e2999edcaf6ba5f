"""Small random FASTerVLA models and prefixes for tests of decoding, without a robot."""

import torch

from faster_core.policy.backbones import build_backbone
from faster_core.policy.config import PolicyConfig
from faster_core.policy.layout import CodeLayout
from faster_core.policy.model import FasterVla

VOCABULARY = 40
NUM_TEXT, NUM_STATE = 5, 7


def tiny_model(
    seed=0,
    *,
    levels=3,
    codes=11,
    per_level=6,
    block_size=3,
    layers=2,
    heads=2,
    kv_heads=1,
    expert_width=24,
    **fields,
):
    """Return a model whose weights are large enough that every input matters."""
    config = PolicyConfig(
        vision={
            'hidden_size': 16,
            'intermediate_size': 16,
            'num_hidden_layers': 1,
            'num_attention_heads': 2,
            'image_size': 16,
            'patch_size': 8,
        },
        text={
            'hidden_size': 32,
            'intermediate_size': 32,
            'num_hidden_layers': layers,
            'num_attention_heads': heads,
            'num_key_value_heads': kv_heads,
            'head_dim': 8,
            'max_position_embeddings': 512,
        },
        expert={'hidden_size': expert_width, 'intermediate_size': 32},
        block_size=block_size,
        max_text_tokens=NUM_TEXT,
        **fields,
    )
    layout = CodeLayout(num_levels=levels, codebook_size=codes, tokens_per_level=per_level)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = build_backbone(config, vocab_size=VOCABULARY, num_cameras=2, state_sizes=(4, 3))
        model = FasterVla(config, layout, backbone).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model


def observation(batch=1, seed=0, padding=2):
    """Return pixels, text ids, which are valid, and state; row b has `padding` + b pads."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (batch, 2, 16, 16, 3), generator=generator, dtype=torch.uint8)
    ids = torch.randint(3, VOCABULARY, (batch, NUM_TEXT), generator=generator)
    pads = (padding + torch.arange(batch))[:, None] % NUM_TEXT
    valid = torch.arange(NUM_TEXT) < NUM_TEXT - pads
    state = torch.randn(batch, NUM_STATE, generator=generator)
    return pixels, torch.where(valid, ids, 0), valid, state


def encoded(model, batch=1, seed=0, padding=2):
    """Return the prefix of a random observation, with its static cache."""
    pixels, ids, valid, state = observation(batch, seed, padding)
    state = state.to(model.head.weight.dtype)
    prefix = model.encode(model.backbone.vision(pixels), ids, valid, state)
    model.prepare(prefix)
    return prefix
