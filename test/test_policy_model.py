"""FASTerVLA as a function: what its logits depend on, and its training loss."""

import numpy as np
from pretrained_parts import pretrained_parts
import pytest
from tiny_checkpoint import INSTRUCTIONS, MODEL, r1_lite
from tiny_model import encoded, observation, tiny_model
from tiny_vlms import make_vlm
import torch
import yaml

from faster_core import paths
from faster_core.config import from_mapping
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.policy.backbones import build_backbone
from faster_core.policy.checkpoint import build_model
from faster_core.policy.config import PolicyConfig
from faster_core.policy.inputs import state_input
from faster_core.policy.stages import check_patterns
from faster_core.policy.text import TextEncoder
from faster_core.policy.train import PolicyTrainConfig
from faster_core.tokenizer import FasterVQ
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.presets import PRESETS


def _first_logits(model, pixels, ids, valid, state):
    with torch.inference_mode():
        prefix = model.encode(model.backbone.vision(pixels), ids, valid, state)
        inputs = torch.full((len(ids), model.block_size), model.begin_token)
        return model.sequence_logits(inputs, prefix)[0]


def _tokens(model, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = model.layout
    codes = torch.randint(0, shape.codebook_size, (batch, model.num_tokens), generator=generator)
    level = torch.arange(model.num_tokens) // shape.tokens_per_level
    return codes + level * shape.codebook_size


# --- what the logits depend on ----------------------------------------------------------------


@pytest.mark.parametrize('camera', [0, 1])
def test_a_change_in_either_image_changes_the_logits(camera):
    model, (pixels, *rest) = tiny_model(), observation()
    changed = pixels.clone()
    changed[:, camera] = 255 - changed[:, camera]
    difference = _first_logits(model, pixels, *rest) - _first_logits(model, changed, *rest)
    assert difference.abs().max() > 1e-3


def test_images_of_two_cameras_are_not_interchangeable():
    model, (pixels, *rest) = tiny_model(), observation()
    difference = _first_logits(model, pixels, *rest) - _first_logits(model, pixels.flip(1), *rest)
    assert difference.abs().max() > 1e-3


def test_a_change_of_a_word_changes_the_logits():
    model, (pixels, ids, valid, state) = tiny_model(), observation()
    changed = ids.clone()
    changed[:, 1] = ids[:, 1] % 30 + 4
    before = _first_logits(model, pixels, ids, valid, state)
    assert (_first_logits(model, pixels, changed, valid, state) - before).abs().max() > 1e-3


def test_the_order_of_words_changes_the_logits():
    model, (pixels, ids, valid, state) = tiny_model(), observation(padding=0)
    before = _first_logits(model, pixels, ids, valid, state)
    after = _first_logits(model, pixels, ids.flip(1), valid, state)
    assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize('dimension', [0, 3, 6])
def test_a_change_of_any_state_component_changes_the_logits(dimension):
    model, (pixels, ids, valid, state) = tiny_model(), observation()
    changed = state.clone()
    changed[:, dimension] += 0.5
    before = _first_logits(model, pixels, ids, valid, state)
    assert (_first_logits(model, pixels, ids, valid, changed) - before).abs().max() > 1e-3


def test_what_stands_in_the_padding_does_not_matter():
    model, (pixels, ids, valid, state) = tiny_model(), observation(padding=2)
    filled = torch.where(valid, ids, 17)
    assert not torch.equal(filled, ids)
    before = _first_logits(model, pixels, ids, valid, state)
    after = _first_logits(model, pixels, filled, valid, state)
    assert torch.allclose(before, after, atol=1e-5)


def test_how_much_padding_there_is_does_not_matter():
    model, (pixels, ids, valid, state) = tiny_model(), observation(padding=2)
    before = _first_logits(model, pixels, ids, valid, state)
    after = _first_logits(model, pixels, ids[:, :3], valid[:, :3], state)
    assert torch.allclose(before, after, atol=1e-4)


def test_rows_of_a_batch_do_not_see_each_other():
    model, inputs = tiny_model(), observation(3)
    batch = _first_logits(model, *inputs)
    for b in range(3):
        alone = _first_logits(model, *(x[b : b + 1] for x in inputs))
        assert torch.allclose(batch[b : b + 1], alone, atol=1e-4)


def test_a_state_given_as_text_tokens_matters_dimension_by_dimension():
    model = tiny_model(state_encoding='text')
    pixels, ids, valid, _ = observation()
    state = torch.arange(3, 10)[None]
    before = _first_logits(model, pixels, ids, valid, state)
    state[0, 5] += 1
    assert (_first_logits(model, pixels, ids, valid, state) - before).abs().max() > 1e-3


def test_states_as_text_fall_into_256_bins_over_the_clipped_range():
    text = TextEncoder.train(INSTRUCTIONS, 14)
    config = PolicyConfig(**MODEL, state_encoding='text')
    values = np.array([-2.0, -1.999, 0.0, 1.999, 2.0], np.float32)
    bins = state_input(values, config, text) - text.first_state_bin
    assert bins.tolist() == [0, 0, 128, 255, 255]


# --- training loss ------------------------------------------------------------------------------


def test_losses_equal_the_cross_entropy_of_the_blocks_one_by_one():
    model = tiny_model()
    # With zero weights the two special tokens have logit 0 in every softmax.
    model.head.weight.data[model.begin_token :] = 0.0
    prefix, tokens = encoded(model, 3), _tokens(model, 3)
    begin = torch.full((3, model.block_size), model.begin_token)
    *logits, end = model.sequence_logits(torch.cat([begin, tokens], dim=1), prefix)
    assert len(logits) == model.num_blocks
    losses = model.loss(prefix, tokens)
    per_level = model.num_blocks // 3
    for level in range(3):
        costs, right = [], []
        for j in range(level * per_level, (level + 1) * per_level):
            block = tokens[:, j * model.block_size : (j + 1) * model.block_size]
            target = block - model.token_offset(j)
            full = torch.cat([logits[j], torch.zeros(3, model.block_size, 2)], dim=-1)
            costs.append(-full.log_softmax(-1).gather(-1, target[..., None]).mean())
            right.append((full.argmax(-1) == target).float().mean())
        assert torch.allclose(losses[f'level{level}'], torch.stack(costs).mean(), atol=1e-4)
        assert torch.allclose(losses[f'accuracy{level}'], torch.stack(right).mean())
    full = torch.cat([end, torch.zeros(3, model.block_size, 2)], dim=-1)
    assert torch.allclose(losses['end'], -full.log_softmax(-1)[..., -1].mean(), atol=1e-4)


def test_the_loss_of_a_level_does_not_see_later_levels():
    model = tiny_model()
    prefix, tokens = encoded(model, 2), _tokens(model, 2)
    changed = tokens.clone()
    changed[:, 12:] = _tokens(model, 2, seed=5)[:, 12:]
    before, after = model.loss(prefix, tokens), model.loss(prefix, changed)
    for name in ('level0', 'level1'):
        assert torch.allclose(before[name], after[name], atol=1e-5)
    for name in ('level2', 'end'):
        assert not torch.allclose(before[name], after[name], atol=1e-5)


def test_an_untrained_model_is_as_good_as_chance():
    model = tiny_model(codes=64)
    model.head.weight.data.mul_(1e-3)
    losses = model.loss(encoded(model, 4), _tokens(model, 4))
    for name in ('level0', 'level1', 'level2', 'end'):
        assert losses[name].item() == pytest.approx(np.log(66), abs=0.02)


def test_positions_jitter_in_training_only():
    model, tokens = tiny_model(), _tokens(tiny_model(), 1)
    prefix = encoded(model)
    assert model.loss(prefix, tokens)['level2'] == model.loss(prefix, tokens)['level2']
    model.train()
    drawn = {model.loss(prefix, tokens)['level2'].item() for _ in range(5)}
    assert len(drawn) > 1


def test_jittered_positions_are_one_to_three_apart_and_follow_the_prefix():
    model = tiny_model().train()
    last = torch.tensor([[5], [3]])
    positions = model._positions(last, 400, jitter=True)
    steps = positions.diff(dim=1)
    assert set(steps.unique().tolist()) == {1, 2, 3}
    assert (positions[0] - positions[1] == 2).all()
    assert positions[0, 0] - 5 in (1, 2, 3)
    model.eval()
    assert model._positions(last, 4, jitter=True)[0].tolist() == [7, 9, 11, 13]


def test_every_parameter_that_inference_uses_gets_a_gradient():
    model = tiny_model().train()
    pixels, ids, valid, state = observation(2)
    prefix = model.encode(model.backbone.vision(pixels), ids, valid, state)
    losses = model.loss(prefix, _tokens(model, 2))
    sum(v for k, v in losses.items() if not k.startswith('accuracy')).backward()
    # The last layer of the backbone serves with keys and values only.
    last = f'language_model.layers.{model.backbone.num_layers - 1}.'
    unused = ('language_model.norm', f'{last}mlp', f'{last}post_', f'{last}self_attn.o_proj')
    unused += (f'{last}self_attn.q_proj',)
    for name, parameter in model.named_parameters():
        if not any(u in name for u in unused):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_one_batch_can_be_learnt_by_heart():
    torch.manual_seed(0)
    model = tiny_model().train()
    pixels, ids, valid, state = observation(4)
    tokens = _tokens(model, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = None
    for _ in range(80):
        prefix = model.encode(model.backbone.vision(pixels), ids, valid, state)
        losses = model.loss(prefix, tokens)
        total = losses['level0'] + losses['level1'] + losses['level2'] + losses['end']
        first = first or total.item()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert total.item() < 0.1 * first
    assert all(losses[f'accuracy{level}'] > 0.95 for level in range(3))


# --- configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize('key', ['num_hidden_layers', 'num_key_value_heads', 'head_dim'])
def test_an_expert_that_cannot_attend_to_the_backbone_is_refused(key):
    expert = MODEL['expert'] | {key: MODEL['text'][key] + 1}
    with pytest.raises(ConfigError, match=f'expert.{key}'):
        PolicyConfig(**{**MODEL, 'expert': expert})


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'state_encoding': 'spoken'}, 'state_encoding'),
        ({'block_size': 0}, 'block_size'),
        ({'vision': MODEL['vision'] | {'image_size': 100}}, 'image_size'),
        ({'vision': {'patch_size': 24, 'hidden_size': 32}}, 'vision: missing keys image_size'),
        ({'text': {}}, 'text: missing keys'),
        ({'text': 'gemma'}, 'text: expected a mapping'),
        ({'stem': MODEL['stem'][:1]}, 'stem'),
        ({'stem': [{'channels': 32, 'kernel': 24, 'steps': 24}]}, 'stem: unknown keys steps'),
    ],
)
def test_an_architecture_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        PolicyConfig(**{**MODEL, **fields})


def test_a_configuration_survives_plain_values():
    config = PolicyConfig(**MODEL)
    assert from_mapping(PolicyConfig, config.to_dict(), source='test') == config


def test_without_a_stem_siglips_own_patches_are_used():
    config = PolicyConfig(**{**MODEL, 'stem': ()})
    backbone = build_backbone(config, vocab_size=9, num_cameras=2, state_sizes=(3,))
    assert backbone.tokens_per_image == 16
    pixels = torch.zeros(1, 2, 96, 96, 3, dtype=torch.uint8)
    assert backbone.vision(pixels).shape == (1, 32, 32)


# --- the shipped recipe -------------------------------------------------------------------------


def test_the_shipped_recipe_keeps_its_parameter_and_token_budget():
    folder = paths.share_dir() / 'config' / 'train'
    recipe = yaml.safe_load((folder / 'r1_lite_policy.yaml').read_text())
    train = from_mapping(PolicyTrainConfig, recipe, source='recipe')
    config = from_mapping(PolicyConfig, train.model, source='model')
    embodiment = r1_lite()
    shape = yaml.safe_load((folder / 'r1_lite_tokenizer.yaml').read_text())['model']
    tokenizer = FasterVQ(
        FasterVQConfig.from_embodiment(embodiment, **shape),
        ActionNormalizer.fit(np.zeros((1, 2, 21)), embodiment),
    )
    text = TextEncoder.train(INSTRUCTIONS, config.max_text_tokens)
    model = build_model(config, embodiment, tokenizer, text)
    assert sum(p.numel() for p in model.backbone.parameters()) <= 4_000_000
    assert model.backbone.tokens_per_image <= 40
    assert model.num_tokens == tokenizer.config.num_tokens <= 126
    assert tokenizer.config.num_tokens % config.block_size == 0


def test_the_shipped_recipe_knows_every_instruction_and_paraphrases_fit():
    folder = paths.share_dir() / 'config' / 'train'
    recipe = yaml.safe_load((folder / 'r1_lite_policy.yaml').read_text())
    assert set(recipe['paraphrases']) == set(INSTRUCTIONS)
    others = [t for texts in recipe['paraphrases'].values() for t in texts]
    text = TextEncoder.train([*INSTRUCTIONS, *others], recipe['model']['max_text_tokens'])
    for instruction in (*INSTRUCTIONS, *others):
        text.check(instruction)


def test_the_papers_recipe_names_parameters_that_are_there_and_has_the_papers_figures(tmp_path):
    folder = paths.share_dir() / 'config' / 'train'
    recipe = yaml.safe_load((folder / 'paper_libero.yaml').read_text())
    train = from_mapping(PolicyTrainConfig, recipe, source='recipe')
    make_vlm(tmp_path, 'paligemma')
    model = pretrained_parts(tmp_path).model
    named = [name for name, _ in model.named_parameters()]
    first, second = train.plan
    check_patterns(named, first)
    check_patterns(named, second)
    assert (train.total_steps, train.batch_size, train.precision) == (30_000, 32, 'bfloat16')
    assert first.warmup * first.steps == second.warmup * second.steps == 1000
    embodiment = Embodiment.load(paths.share_dir() / train.embodiment)
    tokenizer = PRESETS['single_arm_eef'].config()
    assert embodiment.action_dim == sum(tokenizer.group_sizes)
    assert embodiment.action_horizon == tokenizer.horizon
    assert (tokenizer.num_tokens, train.model['block_size']) == (21, 7)
