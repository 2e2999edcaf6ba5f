"""Pretrained families: our way through a model is `transformers`' own way through it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
from pretrained_parts import pretrained_parts, vlm_folders
from project_files import ROOT
import pytest
from tiny_checkpoint import tiny_parts
from tiny_vlms import image_processor, SPECIAL
import torch
from transformers import AutoModel

from faster_core.decoding.blockwise import decode
from faster_core.decoding.oracle import decode_tokenwise
from faster_core.decoding.sampling import SamplingConfig
from faster_core.errors import CheckpointError, ConfigError, InstructionError, ObservationError
from faster_core.policy import checkpoint, Policy
from faster_core.policy.backbones.families import FAMILIES as TABLE
from faster_core.policy.backbones.pretrained import read_pretrained
from faster_core.policy.config import FAMILIES, PolicyConfig

FAMILY_NAMES = list(SPECIAL)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    return vlm_folders(tmp_path_factory)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def _pixels(size, cameras=3, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, cameras, size, size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def _prompt(parts, instruction='pick up the red block', batch=1):
    ids, valid = (torch.from_numpy(a)[None] for a in parts.text.encode(instruction))
    bins = np.arange(21)[None] * 7
    state = torch.from_numpy(parts.text.state_tokens(bins))
    return tuple(t.expand(batch, -1) for t in (ids, valid, state))


def _prefix(parts, pixels, present=None, **options):
    ids, valid, state = _prompt(parts, batch=len(pixels), **options)
    model = parts.model
    return model.encode(model.backbone.vision(pixels), ids, valid, state, present)


def test_every_family_of_the_configuration_has_an_entry():
    assert set(TABLE) == set(FAMILIES) == set(FAMILY_NAMES)


# --- the family's own code --------------------------------------------------------------------


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_pixels_are_prepared_as_by_the_familys_own_image_processor(folders, family):
    parts = pretrained_parts(folders(family))
    backbone, size = parts.model.backbone, parts.config.image_size
    pixels = _pixels(size)[0]
    own = image_processor(family)(list(pixels.numpy()), return_tensors='pt')['pixel_values']
    ours = backbone.normalize(pixels)
    if family == 'qwen2_5_vl':
        from faster_core.policy.backbones.families import patchify

        ours, _ = patchify(ours, 14, 2, 2)
    assert torch.allclose(ours, own.reshape(ours.shape).float(), atol=2e-6)


@pytest.mark.parametrize('family', FAMILY_NAMES)
@pytest.mark.parametrize('cameras', [1, 2, 4])
def test_the_prefix_is_what_the_whole_model_makes_of_the_same_sequence(folders, family, cameras):
    parts = pretrained_parts(
        folders(family), prefix_attention='causal' if TABLE[family].causal else 'full'
    )
    parts.model.backbone.camera.data = torch.zeros(cameras, 1, parts.model.backbone.width)
    backbone, size = parts.model.backbone, parts.config.image_size
    pixels = _pixels(size, cameras)
    prefix = _prefix(parts, pixels)

    # The same as input ids, with the family's placeholders for image tokens.
    whole = AutoModel.from_pretrained(folders(family)).eval()
    ids, valid, state = _prompt(parts)
    config = whole.config
    placeholder = getattr(config, 'image_token_id', None) or config.image_token_index
    around = backbone.around.tolist()
    image = [*around[:-1], *[placeholder] * backbone.tokens_per_image, *around[-1:]]
    row = image * cameras + ids[valid].tolist() + state[state >= 0].tolist()
    inputs = {'input_ids': torch.tensor([row])}
    normal = backbone.normalize(pixels[0])
    if family == 'qwen2_5_vl':
        from faster_core.policy.backbones.families import patchify

        inputs['pixel_values'], side = patchify(normal, 14, 2, 2)
        inputs['image_grid_thw'] = torch.tensor([[1, side, side]] * cameras)
        inputs['mm_token_type_ids'] = (inputs['input_ids'] == placeholder).int()
    elif family == 'smolvlm':
        inputs['pixel_values'] = normal[None]
    else:
        inputs['pixel_values'] = normal
    if family == 'paligemma':
        inputs['token_type_ids'] = torch.zeros_like(inputs['input_ids'])
        inputs['attention_mask'] = torch.ones_like(inputs['input_ids'])
    expected = whole(**inputs).last_hidden_state
    found = prefix.hidden[prefix.valid]
    assert found.shape == expected[0].shape
    assert torch.allclose(found, expected[0], atol=1e-4)


def test_smolvlm_gets_its_images_in_the_prompt_of_its_own_processor():
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    around = TABLE['smolvlm'].around
    names = {
        'fake_token_around_image': '<fake_token_around_image>',
        'image_token': '<image>',
        'global_image_token': '<global-img>',
    }
    own = get_image_prompt_string(0, 0, 3, **names)  # one image that was not split
    assert ''.join([*around[:-1], *['<image>'] * 3, *around[-1:]]) == own


@pytest.mark.parametrize('count', [1, 3])
def test_windows_of_qwen2_5_vl_are_those_that_its_tower_finds(folders, count):
    from faster_core.policy.backbones.families import patchify

    # Three by three windows, not all of one size, where 56 pixels are one.
    parts = pretrained_parts(folders('qwen2_5_vl'), image_pixels=140)
    backbone = parts.model.backbone
    pixels = _pixels(140, count)[0]
    patches, side = patchify(backbone.normalize(pixels), 14, 2, 2)
    grid = torch.tensor([[1, side, side]] * count)
    expected = backbone.vlm.get_image_features(patches, grid).pooler_output
    assert backbone.vlm.visual.windows_of_one[-1] == side**2
    assert len(backbone.vlm.visual.windows_of_one) == 9
    assert torch.equal(backbone.features(pixels), torch.stack(list(expected)))


def test_gemma_2_keeps_its_softcap_and_its_layers_of_two_kinds(folders):
    folder = folders('paligemma', model_type='gemma2', query_pre_attn_scalar=8)
    parts = pretrained_parts(folder)
    text = parts.model.backbone.language.config
    assert text.model_type == 'gemma2'
    assert set(text.layer_types) == {'sliding_attention', 'full_attention'}
    assert text._attn_implementation == parts.model.expert.config._attn_implementation == 'eager'
    prefix = _prefix(parts, _pixels(56))
    parts.model.prepare(prefix)
    fast = decode(parts.model, prefix, sampling=SamplingConfig())
    assert torch.equal(fast, decode_tokenwise(parts.model, prefix))
    # With a small softcap attention changes: it is not ignored.
    for layer in parts.model.backbone.language.layers:
        layer.self_attn.attn_logit_softcapping = 0.01
    assert not torch.allclose(_prefix(parts, _pixels(56)).hidden, prefix.hidden, atol=1e-3)


# --- precision --------------------------------------------------------------------------------

# Every family, Gemma 2 with its layers of two kinds, and our own.
KINDS = {
    **{family: (family, {}) for family in FAMILY_NAMES},
    'gemma2': ('paligemma', {'model_type': 'gemma2', 'query_pre_attn_scalar': 8}),
    'gemma3': ('paligemma', {'model_type': 'gemma3_text', 'query_pre_attn_scalar': 8}),
}


def _parts_of(folders, kind, **fields):
    if kind == 'small':
        return tiny_parts(**fields)
    family, text = KINDS[kind]
    return pretrained_parts(folders(family, **text), **fields)


def _floating(model):
    return {name: b for name, b in model.named_buffers() if b.is_floating_point()}


@pytest.mark.parametrize('kind', [*KINDS, 'small'])
def test_rotary_frequencies_are_not_rounded_with_the_weights(folders, kind):
    exact = _floating(Policy(_parts_of(folders, kind), device='cpu').model)
    policy = Policy(_parts_of(folders, kind), device='cpu', dtype='bfloat16')
    frequencies = {n: b for n, b in _floating(policy.model).items() if n.endswith('inv_freq')}
    assert len(frequencies) >= 4  # of language model and expert, with the original ones
    for name, buffer in frequencies.items():
        assert buffer.dtype == torch.float32, name
        assert torch.equal(buffer, exact[name]), name
    others = {n: b for n, b in _floating(policy.model).items() if n not in frequencies}
    assert {b.dtype for b in (*others.values(), *policy.model.parameters())} == {torch.bfloat16}
    assert not [n for n in policy.model.state_dict() if n.endswith('inv_freq')]
    assert policy.predict(policy.make_example()).values.shape == (32, 21)


def test_angles_far_from_the_start_are_those_of_training():
    angles = []
    for dtype in ('float32', 'bfloat16'):
        model = Policy(tiny_parts(), device='cpu', dtype=dtype).model
        embeds = torch.zeros(1, 1, model.width, dtype=model.dtype)
        angles.append(model.decoder.rotary_emb(embeds, torch.tensor([[500]])))
    for one, other in zip(*angles, strict=True):
        assert torch.equal(one.to(torch.bfloat16), other)


def test_a_model_that_is_moved_again_keeps_its_frequencies_where_they_are():
    # A graph that was captured before knows their addresses.
    parts = tiny_parts()
    first, second = (
        _floating(Policy(parts, device='cpu', dtype='bfloat16').model) for _ in range(2)
    )
    assert {n: b.data_ptr() for n, b in first.items()} == {
        n: b.data_ptr() for n, b in second.items()
    }


# --- expert ---------------------------------------------------------------------------------


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_the_expert_follows_the_backbone_in_layers_heads_and_head_size(folders, family):
    model = pretrained_parts(folders(family)).model
    text, expert = model.backbone.language.config, model.expert.config
    for name in ('num_hidden_layers', 'num_attention_heads', 'num_key_value_heads'):
        assert getattr(expert, name) == getattr(text, name)
    assert (expert.hidden_size, expert.intermediate_size) == (24, 32)
    assert expert.head_dim == 8


def test_an_expert_without_sizes_has_those_of_pi0(folders):
    model = pretrained_parts(folders('paligemma'), expert={}).model
    assert (model.expert.config.hidden_size, model.expert.config.intermediate_size) == (1024, 4096)


def test_an_expert_with_other_heads_is_refused(folders):
    with pytest.raises(ConfigError, match=r'expert\.num_key_value_heads.*expected 2, found 4'):
        pretrained_parts(folders('smolvlm'), expert={'num_key_value_heads': 4})


@pytest.mark.parametrize('family', FAMILY_NAMES)
@pytest.mark.parametrize('expert', ['light', 'none'])
@pytest.mark.parametrize('order', ['level', 'slot'])
def test_cached_blocks_give_the_codes_of_uncached_single_tokens(folders, family, expert, order):
    size = 10 if order == 'level' else 6
    parts = pretrained_parts(folders(family), action_expert=expert, order=order, block_size=size)
    if expert == 'none':
        parts.model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    prefix = _prefix(parts, _pixels(parts.config.image_size, batch=2))
    parts.model.prepare(prefix)
    fast = decode(parts.model, prefix, sampling=SamplingConfig(), batch=2)
    assert fast.shape == (2, 60)
    assert len(fast.unique()) > 10
    assert torch.equal(fast, decode_tokenwise(parts.model, prefix, batch=2))


# --- cameras ----------------------------------------------------------------------------------


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_what_a_missing_camera_shows_does_not_matter_and_that_it_is_missing_does(folders, family):
    parts = pretrained_parts(folders(family))
    pixels = _pixels(parts.config.image_size)
    other = pixels.clone()
    other[:, 1] = 255 - other[:, 1]
    present = torch.tensor([[True, False, True]])

    def logits(images, cameras):
        prefix = _prefix(parts, images, cameras)
        begin = torch.full((1, 10), parts.model.begin_token)
        return parts.model.sequence_logits(begin, prefix)[0]

    masked = logits(pixels, present)
    assert torch.allclose(masked, logits(other, present), atol=1e-5)
    assert not torch.allclose(masked, logits(pixels, None), atol=1e-3)
    assert not torch.allclose(logits(other, None), logits(pixels, None), atol=1e-3)


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_positions_leave_out_a_missing_camera(folders, family):
    parts = pretrained_parts(folders(family))
    pixels = _pixels(parts.config.image_size)
    whole = _prefix(parts, pixels)
    masked = _prefix(parts, pixels, torch.tensor([[True, False, True]]))
    without = _prefix(parts, pixels, torch.tensor([[True, False, False]]))
    step = whole.last - masked.last
    assert step > 0
    assert torch.equal(masked.last - without.last, step)


def test_a_policy_takes_an_observation_without_a_camera_only_if_it_may(folders):
    strict = Policy(pretrained_parts(folders('paligemma')), device='cpu')
    lenient = Policy(pretrained_parts(folders('paligemma'), missing_cameras=1), device='cpu')
    example = strict.make_example()
    images = dict(example.images)
    images.pop(next(iter(images)))
    lacking = dataclasses.replace(example, images=images)
    with pytest.raises(ObservationError, match='no image of camera'):
        strict.predict(lacking)
    chunk = lenient.predict(lacking)
    assert chunk.values.shape == (32, 21)
    assert not np.array_equal(chunk.codes, lenient.predict(example).codes)
    images.pop(next(iter(images)))
    with pytest.raises(ObservationError, match='no image of camera'):
        lenient.predict(dataclasses.replace(example, images=images))


# --- text ---------------------------------------------------------------------------------------


def test_states_are_written_as_numbers_of_the_models_own_tokens(folders):
    text = pretrained_parts(folders('qwen2_5_vl')).text
    tokens = text.state_tokens(np.array([[0, 12, 255]]))
    assert tokens.shape == (1, 3 * (len(tokens[0]) // 3))
    kept = [int(t) for t in tokens[0] if t >= 0]
    assert text._tokenizer.decode(kept) == ' 0 12 255'


def test_a_prompt_that_is_too_long_is_refused_not_cut(folders):
    policy = Policy(pretrained_parts(folders('smolvlm')), device='cpu')
    example = dataclasses.replace(policy.make_example(), instruction='block ' * 40)
    with pytest.raises(InstructionError, match='at most 24 are accepted'):
        policy.predict(example)


def test_special_tokens_typed_by_a_user_are_words(folders):
    text = pretrained_parts(folders('internvl')).text
    begin = text.token_ids(['<img>'])[0]
    ids, valid = text.encode('take the <img>')
    assert begin not in ids[valid]


# --- disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_a_checkpoint_needs_the_pretrained_folder_no_more(folders, family, tmp_path):
    parts = pretrained_parts(folders(family))
    before = Policy(parts, device='cpu')
    checkpoint.save(tmp_path / 'made', parts, {})
    config = json.loads((tmp_path / 'made' / 'config.json').read_text())
    config['pretrained'] = '/nowhere'
    (tmp_path / 'made' / 'config.json').write_text(json.dumps(config))
    metadata = json.loads((tmp_path / 'made' / 'metadata.json').read_text())
    metadata['files']['config.json'] = checkpoint._sha256(tmp_path / 'made' / 'config.json')
    (tmp_path / 'made' / 'metadata.json').write_text(json.dumps(metadata))
    after = Policy.from_pretrained(tmp_path / 'made', device='cpu')
    example = before.make_example()
    assert np.array_equal(before.predict(example).codes, after.predict(example).codes)


def test_a_model_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(CheckpointError, match='nowhere'):
        read_pretrained(str(tmp_path / 'nowhere'))


@pytest.mark.parametrize('family', ['paligemma', 'smolvlm'])
def test_a_name_on_the_hub_is_found_offline_among_what_was_downloaded(folders, tmp_path, family):
    # As the hub's client lays out what it has downloaded; it reads the variables at its import.
    model = tmp_path / 'hub' / 'models--founders--tiny'
    shutil.copytree(folders(family), model / 'snapshots' / 'abc')
    (model / 'refs').mkdir()
    (model / 'refs' / 'main').write_text('abc')
    code = (
        'from pretrained_parts import pretrained_parts; '
        'parts = pretrained_parts("founders/tiny"); '
        'print(sum(float(p.double().sum()) for p in parts.model.backbone.vlm.parameters()))'
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / 'test')])
    environment = dict(os.environ, HF_HUB_OFFLINE='1', HF_HOME=str(tmp_path), PYTHONPATH=paths)
    found = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    vlm = pretrained_parts(folders(family)).model.backbone.vlm
    expected = sum(float(p.double().sum()) for p in vlm.parameters())
    assert float(found.stdout.split()[-1]) == pytest.approx(expected, abs=1e-6)


def test_a_model_of_another_family_is_refused(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'bert'}))
    (tmp_path / 'preprocessor_config.json').write_text('{}')
    with pytest.raises(ConfigError, match="found 'bert'"):
        read_pretrained(str(tmp_path))


def test_weights_that_lack_a_part_are_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(folders('smolvlm'), tmp_path / 'broken')
    weights = load_file(broken / 'model.safetensors')
    name = next(k for k in weights if 'q_proj' in k)
    del weights[name]
    save_file(weights, broken / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match='1 weights are missing'):
        pretrained_parts(broken)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'backbone': 'bert'}, 'backbone: expected one of'),
        ({'backbone': 'paligemma'}, 'expected pretrained, or vlm'),
        ({'backbone': 'paligemma', 'vlm': {'model_type': 'smolvlm'}}, "found 'smolvlm'"),
        ({'backbone': 'internvl', 'pretrained': 'x', 'text': {'a': 1}}, 'only for backbone'),
        ({'pretrained': 'x'}, 'only for backbones'),
        ({'order': 'diagonal'}, 'order: expected one of level, slot'),
        ({'head': 'bins'}, 'head: expected one of codes, flow'),
        ({'missing_cameras': -1}, 'missing_cameras'),
        ({'image_mean': (0.5,)}, 'image_mean: expected three numbers'),
        ({'flow_steps': 0}, 'must be positive'),
    ],
)
def test_configurations_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        PolicyConfig(**{'expert': {}, 'block_size': 10, **fields})
