"""Tiny vision-language models with random weights, one per family, as folders of `transformers`.

What a user downloads has the same files: configuration, weights, tokenizer, image processor.
"""

import pathlib

from tokenizers import decoders, models, pre_tokenizers, processors, Tokenizer, trainers
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
)

WORDS = ['Task: pick up the red block\nState: 0 12 255', 'open the drawer']
SPECIAL = {
    'paligemma': ['<pad>', '<eos>', '<bos>', '<unk>', '<image>'],
    'qwen2_5_vl': ['<|endoftext|>', '<|vision_start|>', '<|vision_end|>', '<|image_pad|>'],
    'smolvlm': [
        '<|im_start|>',
        '<|im_end|>',
        '<fake_token_around_image>',
        '<image>',
        '<global-img>',
    ],
    'internvl': ['<|endoftext|>', '<img>', '</img>', '<IMG_CONTEXT>'],
}
_TEXT = {
    'hidden_size': 32,
    'intermediate_size': 48,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 8,
}
_VISION = {
    'hidden_size': 32,
    'intermediate_size': 48,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
}


def configuration(family, vocab_size, **text):
    """Return the configuration of a tiny model; `text` changes its language model."""
    words = {**_TEXT, 'vocab_size': vocab_size, **text}
    if family == 'paligemma':
        values = {
            'text_config': {'model_type': 'gemma', **words},
            'vision_config': {
                'model_type': 'siglip_vision_model',
                **_VISION,
                'image_size': 56,
                'patch_size': 14,
                'projection_dim': 32,
                'vision_use_head': False,
            },
            'projection_dim': 32,
            'image_token_index': 4,
        }
    elif family == 'qwen2_5_vl':
        words.pop('head_dim')
        rope = {'rope_type': 'default', 'rope_theta': 1e6, 'mrope_section': [1, 1, 2]}
        values = {
            'text_config': {'model_type': 'qwen2_5_vl_text', **words, 'rope_parameters': rope},
            'vision_config': {
                'model_type': 'qwen2_5_vl',
                'depth': 2,
                'hidden_size': 32,
                'intermediate_size': 48,
                'num_heads': 4,
                'out_hidden_size': 32,
                'patch_size': 14,
                'window_size': 56,
                'fullatt_block_indexes': [1],
            },
            'image_token_id': 3,
            'vision_start_token_id': 1,
            'vision_end_token_id': 2,
        }
    elif family == 'smolvlm':
        values = {
            'text_config': {'model_type': 'llama', **words},
            'vision_config': {
                'model_type': 'smolvlm_vision',
                **_VISION,
                'image_size': 56,
                'patch_size': 14,
            },
            'scale_factor': 2,
            'image_token_id': 3,
        }
    else:
        values = {
            'text_config': {'model_type': 'qwen3', **words},
            'vision_config': {
                'model_type': 'internvl_vision',
                **_VISION,
                'image_size': [56, 56],
                'patch_size': [14, 14],
            },
            'image_token_id': 3,
        }
    return AutoConfig.for_model(family, **values)


def tokenizer(family):
    """Return a byte-level tokenizer with the special tokens of a family."""
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    special = SPECIAL[family]
    base.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    if family == 'paligemma':
        base.post_processor = processors.TemplateProcessing(
            single='<bos> $A', special_tokens=[('<bos>', special.index('<bos>'))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=base, pad_token=special[0])


def image_processor(family):
    """Return the family's own image processor, in the variant that needs no torchvision."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
        GotOcr2ImageProcessorPil,
    )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import (
        SmolVLMImageProcessorPil,
    )

    size = {'height': 56, 'width': 56}
    if family == 'paligemma':
        return SiglipImageProcessorPil(size=size)
    if family == 'qwen2_5_vl':
        return Qwen2VLImageProcessorPil()
    if family == 'smolvlm':
        return SmolVLMImageProcessorPil(
            size={'longest_edge': 56}, max_image_size={'longest_edge': 56}
        )
    return GotOcr2ImageProcessorPil(size=size, crop_to_patches=False)


def make_vlm(folder, family, seed=0, **text):
    """Write a model with random weights, its tokenizer and image processor; return the folder."""
    folder = pathlib.Path(folder)
    words = tokenizer(family)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(configuration(family, len(words), **text))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    image_processor(family).save_pretrained(folder)
    return folder
