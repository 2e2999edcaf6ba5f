"""A complete, valid, untrained checkpoint of the R1 Lite, small enough to build in every test.

Its chunks stay within a few hundredths of a radian of the simulator's home posture.
"""

import pathlib

import numpy as np
import torch

from faster_core import paths
from faster_core.data.episodes import Episode, save_episode
from faster_core.embodiment import Embodiment
from faster_core.policy import checkpoint
from faster_core.policy.config import PolicyConfig
from faster_core.policy.state import StateNormalizer
from faster_core.policy.text import TextEncoder
from faster_core.sim import scene
from faster_core.sim.tasks import TASKS
from faster_core.tokenizer import FasterVQ
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.normalizer import ActionNormalizer

INSTRUCTIONS = tuple(task.instruction for task in TASKS.values())

MODEL = {
    'vision': {
        'hidden_size': 32,
        'intermediate_size': 32,
        'num_hidden_layers': 1,
        'num_attention_heads': 2,
        'image_size': 96,
        'patch_size': 24,
    },
    'stem': [
        {'channels': 16, 'kernel': 4, 'stride': 4},
        {'channels': 32, 'kernel': 6, 'stride': 6},
    ],
    'text': {
        'hidden_size': 32,
        'intermediate_size': 32,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'num_key_value_heads': 1,
        'head_dim': 16,
        'max_position_embeddings': 256,
    },
    'expert': {'hidden_size': 32, 'intermediate_size': 32},
    'block_size': 10,
    'max_text_tokens': 14,
}
VQ = {
    'slots_per_group': (3, 1, 3, 1, 1, 1),
    'patch_length': 8,
    'width': 16,
    'depth': 1,
    'heads': 2,
    'latent_dim': 8,
    'codebook_size': 32,
}


def r1_lite():
    """Return the embodiment of the shipped robot."""
    return Embodiment.load(paths.embodiment_file('r1_lite'))


def home_action():
    """Return the set-points [21] of the robot at rest: home posture, open grippers, no motion."""
    gripper = [scene.GRIPPER_OPEN - 0.02]
    return np.concatenate(
        [scene.ARM_HOME['left'], gripper, scene.ARM_HOME['right'], gripper, np.zeros(7)]
    ).astype(np.float32)


def home_state():
    """Return the state [21] of the robot at rest."""
    state = home_action()
    state[14:17] = scene.TORSO_HOME
    return state


def random_chunks(count, seed=0):
    """Return smooth chunks [count, 32, 21] around the home posture, SI units."""
    rng = np.random.default_rng(seed)
    scale = np.full(21, 0.03, np.float32)
    scale[[6, 13]] = 0.004
    ends = rng.normal(size=(2, count, 1, 21)).astype(np.float32)
    share = np.linspace(0.0, 1.0, 32, dtype=np.float32)[:, None]
    return home_action() + scale * (ends[0] * (1 - share) + ends[1] * share)


def tiny_tokenizer(seed=0, **fields):
    """Return an untrained FASTerVQ for the R1 Lite whose codebooks hold random vectors."""
    embodiment = r1_lite()
    config = FasterVQConfig.from_embodiment(embodiment, **{**VQ, **fields})
    normalizer = ActionNormalizer.fit(random_chunks(64), embodiment)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = FasterVQ(config, normalizer)
        for level in tokenizer.model.quantizer.levels:
            level.vectors.normal_()
            level.sums.copy_(level.vectors)
            level.uses.fill_(1.0)
            level.initialised.fill_(True)
        # Set-points within reach of each other: a dispatcher's speed limits accept the chunks.
        tokenizer.model.autoencoder.to_patches[1].weight.data.mul_(0.2)
    return tokenizer


def tiny_parts(seed=0, tokenizer=None, **model):
    """Return the parts of the checkpoint; `model` changes fields of `PolicyConfig`."""
    embodiment, tokenizer = r1_lite(), tokenizer or tiny_tokenizer(seed)
    config = PolicyConfig(**{**MODEL, **model})
    text = TextEncoder.train(INSTRUCTIONS, config.max_text_tokens)
    states = home_state() + np.random.default_rng(seed).normal(0.0, 0.1, (256, 21))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = checkpoint.build_model(config, embodiment, tokenizer, text).eval()
        # Large weights: without training, all that the policy sees must change its codes.
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
    return checkpoint.PolicyParts(
        config=config,
        embodiment=embodiment,
        tokenizer=tokenizer,
        text=text,
        state=StateNormalizer.fit(states),
        model=network,
    )


def make_tiny_checkpoint(folder, seed=0):
    """Write the checkpoint into `folder`; return its path."""
    folder = pathlib.Path(folder)
    checkpoint.save(folder, tiny_parts(seed), {'train': {'steps': 0}})
    return folder


def write_demos(folder, episodes=4, steps=6, seed=0, size=24):
    """Write demonstrations that drift from the home posture; return the folder."""
    embodiment = r1_lite()
    rng = np.random.default_rng(seed)
    for k in range(episodes):
        images = rng.integers(0, 256, (steps, len(embodiment.cameras), size, size, 3), np.uint8)
        episode = Episode(
            images={c: images[:, i] for i, c in enumerate(embodiment.cameras)},
            state=(home_state() + rng.normal(0.0, 0.05, (steps, 21))).astype(np.float32),
            action=random_chunks(1, seed=seed + k)[0][:steps],
            instruction=INSTRUCTIONS[k % len(INSTRUCTIONS)],
            task=list(TASKS)[k % len(TASKS)],
            seed=k,
            embodiment_checksum=embodiment.checksum,
        )
        save_episode(pathlib.Path(folder) / f'{k:04d}.npz', episode)
    return pathlib.Path(folder)
