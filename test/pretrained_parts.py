"""Policies of the R1 Lite around tiny pretrained models, built as training builds them."""

import numpy as np
from tiny_checkpoint import home_state, r1_lite, tiny_tokenizer
from tiny_vlms import make_vlm
import torch

from faster_core.policy import checkpoint
from faster_core.policy.backbones.pretrained import read_pretrained
from faster_core.policy.config import PolicyConfig
from faster_core.policy.prompt import PromptEncoder
from faster_core.policy.state import StateNormalizer

EXPERT = {'hidden_size': 24, 'intermediate_size': 32}
STATE_SIZES = tuple(c.size for c in r1_lite().state)


def pretrained_parts(folder, *, seed=0, tokenizer=None, **fields):
    """Return the parts of a policy around the model in `folder`; `fields` change its config."""
    values = {
        'expert': EXPERT,
        'block_size': 10,
        'max_text_tokens': 24,
        'state_encoding': 'text',
        **read_pretrained(str(folder)),
        'pretrained': str(folder),
        **fields,
    }
    config = PolicyConfig(**values)
    text = PromptEncoder.from_pretrained(str(folder), config.max_text_tokens)
    tokenizer = tokenizer or tiny_tokenizer(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = checkpoint.build_model(config, r1_lite(), tokenizer, text, pretrained=True)
        if model.config.head == 'codes':
            model.slot.data.normal_(std=0.5)
        # Large weights of the expert: what it sees must matter without training.
        for part in filter(None, (model.expert, getattr(model, 'head', None))):
            for parameter in part.parameters():
                if parameter.ndim >= 2:
                    parameter.data.normal_(std=parameter[0].numel() ** -0.5)
    return checkpoint.PolicyParts(
        config=config,
        embodiment=r1_lite(),
        tokenizer=tokenizer,
        text=text,
        state=StateNormalizer.fit(
            home_state() + np.random.default_rng(seed).normal(0.0, 0.1, (256, 21))
        ),
        model=model.eval(),
    )


def vlm_folders(tmp_path_factory):
    """Return a function from family to a folder made once."""
    made = {}

    def folder(family, **text):
        key = (family, *sorted(text.items()))
        if key not in made:
            made[key] = make_vlm(tmp_path_factory.mktemp(family), family, **text)
        return made[key]

    return folder
