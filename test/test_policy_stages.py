"""Training in stages, with adapters, in parts, of every head, with lost cameras."""

import dataclasses
import itertools
import json
import shutil
import sys
import time

import numpy as np
from pretrained_parts import EXPERT
import pytest
from test_engines import _bins, _fast
from tiny_checkpoint import home_state, MODEL, tiny_tokenizer, write_demos
from tiny_vlms import make_vlm
import torch
from training_helpers import changed, lines, same, small_config, state, still_demos, weights
from transformers import AutoModel
from warm_processes import run_code, Warm

from faster_core.errors import ConfigError, ObservationError
from faster_core.policy import batches, checkpoint, Policy
from faster_core.policy.batches import Batches, GREY
from faster_core.policy.lora import add_adapters
from faster_core.policy.train import train
from faster_core.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures('no_figures')

SMALL = MODEL | {'vision': MODEL['vision'] | {'image_size': 48}}
LORA = {'rank': 4, 'alpha': 8.0}
FAMILY = 'smolvlm'
TOKENIZERS = {'rvq': tiny_tokenizer, 'bins': _bins, 'fast': lambda: _fast(scale=1.0)}


@pytest.fixture(scope='module', autouse=True)
def _no_plot():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, 'plot', lambda self: None)
        yield


@pytest.fixture(scope='module')
def demos(tmp_path_factory):
    return write_demos(tmp_path_factory.mktemp('demos'), episodes=4, steps=5)


@pytest.fixture(scope='module')
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tokenizers')
    for name, make in TOKENIZERS.items():
        make().save_pretrained(folder / name)
    return folder


@pytest.fixture(scope='module')
def vlm(tmp_path_factory):
    return make_vlm(tmp_path_factory.mktemp(FAMILY), FAMILY)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, demos, tokenizers):
    """Return a function that trains with the fields of a configuration, once for all tests."""
    done = {}

    def get(kind='rvq', **fields):
        key = repr((kind, sorted(fields.items())))
        if key not in done:
            out = tmp_path_factory.mktemp('runs') / 'run'
            done[key] = out, list(train(_config(**fields), demos, tokenizers / kind, out))
        return done[key]

    return get


def _config(model=None, **fields):
    model = model or {}
    if 'pretrained' not in model:
        model = SMALL | model
    return small_config(**{'log_every': 1, 'save_every': 100, 'model': model, **fields})


def _pretrained(folder):
    """Return the fields of a model around the one in `folder`."""
    return {
        'pretrained': str(folder),
        'expert': EXPERT,
        'block_size': 10,
        'max_text_tokens': 48,
        'state_encoding': 'text',
    }


def _losses(rows, name='loss'):
    return np.array([row[name] for row in rows])


def _predict(policy):
    example = policy.make_example()
    rng = np.random.default_rng(0)
    images = {c: rng.integers(0, 256, i.shape, np.uint8) for c, i in example.images.items()}
    return policy.predict(dataclasses.replace(example, images=images, state=home_state()))


# --- stages -------------------------------------------------------------------------------------

STAGES = (
    {'steps': 4, 'learning_rate': 1e-3, 'warmup': 0.5, 'train': ['expert', 'slot', 'head']},
    {
        'steps': 4,
        'learning_rate': 2e-3,
        'warmup': 0.0,
        'freeze': ['backbone.vlm.vision_tower', '*.layers.0.mlp.*', 'head'],
    },
)


def _staged(**fields):
    return _config(stages=STAGES, save_every=3, **fields)


@pytest.fixture(scope='module')
def untrained(trained):
    """Return the weights that every run of the small model begins with."""
    return state(trained(steps=1, learning_rate=0.0)[0], 'model')


@pytest.fixture(scope='module')
def staged(tmp_path_factory, demos, tokenizers):
    """Return a run of two stages, what it left after the first, and its rows."""
    out, rows = tmp_path_factory.mktemp('staged') / 'run', []
    border = out.with_name('border')
    for row in train(_staged(), demos, tokenizers / 'rvq', out):
        rows.append(row)
        if row['step'] == STAGES[0]['steps']:
            shutil.copytree(out, border)
    return out, border, rows


def test_a_stage_changes_what_it_trains_and_nothing_else(staged, untrained):
    found = changed(untrained, state(staged[1], 'model'))
    parts = ('model.expert.', 'model.slot', 'model.head.')
    assert found == {name for name in untrained if name.startswith(parts)}
    assert {n.split('.')[0] for n in untrained} == {'model', 'auxiliary'}


def test_a_stage_changes_everything_but_what_it_freezes(staged):
    out, border, _ = staged
    before, after = state(border, 'model'), state(out, 'model')
    frozen = {
        name
        for name in before
        if name.startswith(('model.backbone.vlm.vision_tower.', 'model.head.'))
        or '.layers.0.mlp.' in name
    }
    assert len(frozen) > 10
    assert changed(before, after) == set(before) - frozen


def test_what_no_stage_trains_is_in_the_checkpoint_as_it_was(staged, untrained):
    for name, value in weights(staged[0]).items():
        if name.startswith('backbone.vlm.vision_tower.'):
            assert torch.equal(value, untrained[f'model.{name}']), name


def test_every_stage_has_its_own_learning_rate_and_warm_up(staged):
    rates = [line['learning_rate'] for line in lines(staged[0]) if 'learning_rate' in line]
    first = [0.0, 0.5e-3, 1e-3, 0.5e-3]
    second = [2e-3 * (1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)]
    assert rates == pytest.approx([*first, *second], rel=1e-4)


def test_a_stage_without_its_own_rate_and_warm_up_has_those_of_the_training(trained):
    stages = [{'steps': 2}, {'steps': 2, 'learning_rate': 1e-4}]
    _, rows = trained(stages=stages, learning_rate=1e-3, warmup=0.5)
    assert _losses(rows, 'learning_rate') == pytest.approx([0.0, 1e-3, 0.0, 1e-4])


def test_steps_count_on_from_stage_to_stage(staged):
    out, _, rows = staged
    assert [row['step'] for row in rows] == list(range(1, 9))
    assert [row['progress'] for row in rows] == pytest.approx(np.arange(1, 9) / 8)
    metadata = json.loads((out / 'checkpoint' / 'metadata.json').read_text())
    assert metadata['train']['steps'] == 8


# Saved are steps 3 and 6, and the ends of the stages, 4 and 8.
@pytest.mark.parametrize(('stop_after', 'first'), [(3, 4), (4, 5), (5, 5), (7, 7)])
def test_a_staged_run_resumes_exactly(tmp_path, demos, tokenizers, staged, stop_after, first):
    out, tokenizer = tmp_path / 'run', tokenizers / 'rvq'
    list(itertools.islice(train(_staged(), demos, tokenizer, out), stop_after))
    # Processes that load data may be others than before.
    workers = 2 if stop_after == 7 else 0
    rows = list(train(_staged(data_workers=workers), demos, tokenizer, out))
    assert rows[0]['step'] == first
    assert same(weights(staged[0]), weights(out))
    for group in ('model', 'optimizer'):
        assert same(state(staged[0], group), state(out, group))


def test_a_finished_run_has_nothing_left_to_do(demos, tokenizers, staged):
    before = weights(staged[0])
    assert list(train(_staged(), demos, tokenizers / 'rvq', staged[0])) == []
    assert same(before, weights(staged[0]))


@pytest.mark.parametrize(
    ('stages', 'message'),
    [
        ([{'steps': 1, 'train': ['expert', 'exprt']}], 'no parameter is called exprt'),
        ([{'steps': 1, 'freeze': ['head.wei', 'slot']}], r'no parameter is called head\.wei'),
        ([{'steps': 1, 'train': ['nose.*'], 'freeze': ['ear']}], r'called nose\.\*, ear'),
        ([{'steps': 1}, {'steps': 1, 'train': ['exprt']}], 'no parameter is called exprt'),
        ([{'steps': 1, 'freeze': ['*']}], 'leaves no parameter'),
        ([{'steps': 1, 'train': ['expert.norm'], 'freeze': ['expert']}], 'leaves no parameter'),
    ],
    ids=['train', 'freeze', 'both', 'second stage', 'all frozen', 'frozen wins'],
)
def test_patterns_that_fit_nothing_are_refused_before_the_first_step(
    tmp_path, demos, tokenizers, stages, message
):
    config = _config(stages=stages)
    with pytest.raises(ConfigError, match=message):
        next(train(config, demos, tokenizers / 'rvq', tmp_path / 'run'))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'steps': 3}, 'only without stages'),
        ({'max_minutes': 1.0}, 'only without stages'),
        ({'backbone_first': 0.5}, 'only without stages'),
        ({'stages': [{'steps': 0}]}, 'steps: expected a whole number >= 1'),
        ({'stages': [{'train': ['expert']}]}, 'missing keys steps'),
        ({'stages': [{'steps': 1, 'train': 'expert'}]}, "expected a list of patterns.*'expert'"),
        ({'stages': [{'steps': 1, 'train': []}]}, 'expected at least one pattern'),
        ({'stages': [{'steps': 1, 'rate': 1.0}]}, 'unknown keys rate'),
        ({'stages': [{'steps': 1, 'warmup': 1.5}]}, 'warmup'),
    ],
)
def test_stages_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        _config(**{'stages': [{'steps': 1}], **fields})


# --- adapters -----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def plain(trained, vlm):
    """Return a training of a pretrained family, all of it."""
    return trained(model=_pretrained(vlm), steps=12, save_every=6)


@pytest.fixture(scope='module')
def adapted(trained, vlm):
    """Return the same training with adapters; the weights are not averaged."""
    fields = {'ema_decay': 0.0, 'learning_rate': 5e-3, 'save_every': 3}
    return trained(model=_pretrained(vlm), lora=LORA, **fields)[0]


@pytest.fixture(scope='module')
def pretrained_weights(trained, vlm):
    """Return the weights that trainings of the pretrained family begin with."""
    return weights(trained(model=_pretrained(vlm), steps=1, learning_rate=0.0)[0])


def test_a_checkpoint_of_a_training_with_adapters_has_the_names_of_one_without(adapted, plain):
    found, expected = weights(adapted), weights(plain[0])
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}
    assert not any('lora' in name or 'base_layer' in name for name in found)


def test_of_the_pretrained_model_only_what_has_adapters_changes(adapted, pretrained_weights):
    after = weights(adapted)
    found = {n for n in changed(pretrained_weights, after) if n.startswith('backbone.vlm.')}
    projections = tuple(f'.{p}_proj.weight' for p in 'qkvo')
    assert found == {n for n in after if n.startswith('backbone.vlm.') and n.endswith(projections)}
    assert len(found) > 8
    for name in found:
        assert (after[name] - pretrained_weights[name]).abs().max() > 1e-3, name
    others = changed(pretrained_weights, after)
    assert {'slot', 'head.weight', 'expert.layers.0.mlp.up_proj.weight'} <= others


def test_weights_under_adapters_stay(adapted, pretrained_weights):
    under = {n: v for n, v in state(adapted, 'model').items() if '.base_layer.' in n}
    assert len(under) > 8
    for name, value in under.items():
        plain_name = name.removeprefix('model.').replace('.base_layer.', '.')
        assert torch.equal(value, pretrained_weights[plain_name]), name


def test_merged_weights_compute_what_the_model_with_adapters_does(adapted):
    config = _config(lora=LORA)
    parts = checkpoint.load(adapted / 'checkpoint')
    add_adapters(parts.model, config.lora)
    averages = state(adapted, 'average')
    parts.model.load_state_dict(
        {k.removeprefix('model.'): v for k, v in averages.items() if k.startswith('model.')}
    )
    expected = _predict(Policy(parts, device='cpu', engine='eager'))
    found = _predict(Policy.from_pretrained(adapted / 'checkpoint', 'cpu', engine='eager'))
    assert np.array_equal(found.codes, expected.codes)
    assert np.allclose(found.log_prob, expected.log_prob, atol=1e-4)
    assert np.allclose(found.values, expected.values, atol=1e-5)
    # Without the adapters' part it is another model.
    for name, module in parts.model.named_parameters():
        if '.lora_B.' in name:
            module.data.zero_()
    without = _predict(Policy(parts, device='cpu', engine='eager'))
    assert not np.allclose(without.log_prob, expected.log_prob, atol=1e-2)


def test_a_policy_trained_with_adapters_runs_where_peft_is_not_installed(adapted, tmp_path):
    code = """
import sys
assert not [name for name in sys.modules if name.startswith(('peft', 'faster_'))]
sys.modules['peft'] = None
from faster_core.policy import Policy
policy = Policy.from_pretrained(sys.argv[1], 'cpu', engine='eager')
print(*policy.predict(policy.make_example()).codes.flat)
"""
    process = Warm(tmp_path / 'log', run_code, code, str(adapted / 'checkpoint'))
    status, said = process.wait(100)
    assert status == 0, said
    policy = Policy.from_pretrained(adapted / 'checkpoint', 'cpu', engine='eager')
    expected = policy.predict(policy.make_example()).codes
    assert [int(x) for x in said.splitlines()[-1].split()] == expected.flatten().tolist()


def test_adapters_where_peft_is_not_installed_are_refused_with_the_way_to_get_it(
    tmp_path, demos, tokenizers, vlm, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'peft', None)
    config = _config(model=_pretrained(vlm), lora=LORA)
    with pytest.raises(ConfigError, match=r'pip install .\.\[lora\]'):
        next(train(config, demos, tokenizers / 'rvq', tmp_path / 'run'))


def test_adapters_without_a_pretrained_model_are_refused(tmp_path, demos, tokenizers):
    with pytest.raises(ConfigError, match='adapters need a model: pretrained'):
        next(train(_config(lora=LORA), demos, tokenizers / 'rvq', tmp_path / 'run'))


def test_a_training_with_adapters_resumes_exactly(tmp_path, demos, tokenizers, adapted, vlm):
    fields = {'ema_decay': 0.0, 'learning_rate': 5e-3, 'save_every': 3}
    config, tokenizer = _config(model=_pretrained(vlm), lora=LORA, **fields), tokenizers / 'rvq'
    list(itertools.islice(train(config, demos, tokenizer, tmp_path / 'run'), 4))
    rows = list(train(config, demos, tokenizer, tmp_path / 'run'))
    assert rows[0]['step'] == 4
    assert same(state(adapted, 'model'), state(tmp_path / 'run', 'model'))
    assert same(weights(adapted), weights(tmp_path / 'run'))


@pytest.mark.parametrize('targets', [['quiet_proj'], ['q_proj', 'quiet_proj']])
def test_adapters_on_layers_that_do_not_exist_are_refused(
    tmp_path, demos, tokenizers, vlm, targets
):
    config = _config(model=_pretrained(vlm), lora={'targets': targets})
    with pytest.raises(ConfigError, match='quiet_proj'):
        next(train(config, demos, tokenizers / 'rvq', tmp_path / 'run'))


@pytest.mark.parametrize('target', ['embed_tokens', 'self_attn'])
def test_adapters_on_what_is_no_linear_layer_are_refused(tmp_path, demos, tokenizers, vlm, target):
    config = _config(model=_pretrained(vlm), lora={'targets': [target]}, save_every=1)
    with pytest.raises(ConfigError, match=target):
        next(train(config, demos, tokenizers / 'rvq', tmp_path / 'run'))


@pytest.mark.parametrize(
    'lora',
    [
        {'rank': 0},
        {'dropout': 1.0},
        {'dropout': -0.1},
        {'ranks': 4},
        {'targets': []},
        {'targets': 'q_proj'},
    ],
)
def test_adapters_that_make_no_sense_are_refused(lora, tmp_path, demos, tokenizers):
    with pytest.raises(ConfigError, match=next(iter(lora))):
        next(train(_config(lora=lora), demos, tokenizers / 'rvq', tmp_path / 'run'))


# --- memory and precision -----------------------------------------------------------------------

# Chunks of the third differ in their number of tokens: their means must be weighted.
HEADS = {
    'rvq': {},
    'flow': {'model': {'head': 'flow'}},
    'fast': {'kind': 'fast', 'model': {'block_size': 1}},
}


@pytest.mark.parametrize('head', HEADS)
def test_a_batch_cut_into_parts_trains_as_the_whole(trained, head):
    (whole, rows), (cut, cut_rows) = (
        trained(**HEADS[head], **fields) for fields in ({}, {'gradient_accumulation': 2})
    )
    assert np.abs(_losses(rows) - _losses(cut_rows)).max() < 1e-4
    # Clipping hides a gradient that is twice as long.
    norms = _losses(rows, 'gradient_norm'), _losses(cut_rows, 'gradient_norm')
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert norms[0].max() > 1.0
    for name, value in state(whole, 'model').items():
        assert torch.allclose(value, state(cut, 'model')[name], atol=1e-4), name


def test_a_batch_that_cannot_be_cut_so_is_refused():
    with pytest.raises(ConfigError, match=r'batch_size 4 .* gradient_accumulation 3'):
        _config(gradient_accumulation=3)


LAYERS = {'light': {}, 'none': {'action_expert': 'none'}, 'flow': {'head': 'flow'}}


@pytest.mark.parametrize('name', [*LAYERS, FAMILY])
def test_layers_computed_again_take_less_memory_and_train_the_same(
    tmp_path, demos, tokenizers, vlm, name
):
    model = LAYERS[name] if name in LAYERS else _pretrained(vlm)
    kept, losses, made = [], [], []
    for again in (False, True):
        config = _config(model=model, steps=4, gradient_checkpointing=again)
        count = 0

        def keep(tensor):
            nonlocal count
            count += tensor.nbytes
            return tensor

        out = tmp_path / str(again)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            rows = list(train(config, demos, tokenizers / 'rvq', out))
        kept.append(count)
        losses.append(_losses(rows))
        made.append(weights(out))
    assert kept[1] < 0.7 * kept[0]
    assert np.abs(losses[0] - losses[1]).max() < 1e-5
    for key, value in made[0].items():
        assert torch.allclose(value, made[1][key], atol=1e-4), key


def test_bfloat16_trains_close_to_float32_and_keeps_weights_in_float32(trained):
    (_, exact), (out, rows) = trained(), trained(precision='bfloat16')
    assert np.isfinite(_losses(rows)).all()
    assert not np.array_equal(_losses(rows), _losses(exact))
    assert _losses(rows) == pytest.approx(_losses(exact), rel=1e-3)
    assert {v.dtype for v in weights(out).values()} == {torch.float32}
    floats = {v.dtype for v in state(out, 'optimizer').values()}
    assert floats == {torch.float32}


# --- lost cameras -------------------------------------------------------------------------------


def _without(policy, count):
    example = policy.make_example()
    images = dict(list(example.images.items())[count:])
    return dataclasses.replace(example, images=images)


def test_a_policy_trained_with_lost_cameras_accepts_an_observation_that_lacks_one(trained):
    out, _ = trained(camera_dropout=0.5, learning_rate=5e-3)
    policy = Policy.from_pretrained(out / 'checkpoint', 'cpu')
    assert np.isfinite(policy.predict(_without(policy, 1)).values).all()
    with pytest.raises(ObservationError, match='no image of camera'):
        policy.predict(_without(policy, 2))


def test_a_policy_trained_with_all_cameras_refuses_an_observation_that_lacks_one(trained):
    policy = Policy.from_pretrained(trained()[0] / 'checkpoint', 'cpu')
    with pytest.raises(ObservationError, match='no image of camera'):
        policy.predict(_without(policy, 1))


def test_a_lost_camera_is_masked_and_grey_in_so_many_samples(
    tmp_path, demos, tokenizers, monkeypatch
):
    seen, make = [], Batches.make

    def spy(self, rows, generators=None):
        batch = make(self, rows, generators)
        if generators is not None:
            seen.append(batch)
        return batch

    monkeypatch.setattr(Batches, 'make', spy)
    config = _config(camera_dropout=0.5, steps=10, batch_size=16)
    list(train(config, demos, tokenizers / 'rvq', tmp_path / 'run'))
    present = torch.cat([batch['present'] for batch in seen])
    pixels = torch.cat([batch['pixels'] for batch in seen])
    assert present.shape == (160, 3)
    assert (present.sum(dim=1) >= 2).all()
    assert 60 < (present.sum(dim=1) == 2).sum() < 100
    assert ((~present).sum(dim=0) > 10).all()
    grey = (pixels == GREY).flatten(2).all(dim=2)
    assert torch.equal(grey, ~present)


def test_what_a_lost_camera_shows_does_not_matter(tmp_path, demos, tokenizers, monkeypatch):
    losses = []
    for shown in (GREY, 0):
        monkeypatch.setattr(batches, 'GREY', shown)
        config = _config(camera_dropout=1.0, steps=3, learning_rate=5e-3)
        rows = list(train(config, demos, tokenizers / 'rvq', tmp_path / str(shown)))
        losses.append(_losses(rows))
    assert np.allclose(*losses, atol=1e-5)


# --- heads --------------------------------------------------------------------------------------

EVERY_HEAD = {
    'level order': ('rvq', {}),
    'slot order': ('rvq', {'order': 'slot', 'block_size': 6}),
    'bins': ('bins', {'block_size': 21}),
    'fast': ('fast', {'block_size': 1}),
    'flow': ('rvq', {'head': 'flow'}),
}


@pytest.fixture(scope='module')
def one_chunk(tmp_path_factory):
    """Return demonstrations that all have the same chunk, and the chunk."""
    return still_demos(tmp_path_factory.mktemp('still'))


@pytest.mark.parametrize('name', EVERY_HEAD)
def test_every_head_learns_a_chunk_by_heart(tmp_path, tokenizers, one_chunk, name):
    demos, chunk = one_chunk
    kind, model = EVERY_HEAD[name]
    fields = {'learning_rate': 1e-2, 'ema_decay': 0.0, 'end_weight': 1.0}
    config = _config(model=model, steps=120 if name == 'flow' else 50, **fields)
    rows = list(train(config, demos, tokenizers / kind, tmp_path / 'run'))
    losses = _losses(rows, 'flow' if name == 'flow' else 'level0')
    assert losses[-5:].mean() < 0.5 * losses[:5].mean()
    parts = checkpoint.load(tmp_path / 'run' / 'checkpoint')
    made = _predict(Policy(parts, device='cpu'))
    if name == 'flow':
        normalize = parts.tokenizer.normalizer.normalize
        distance = np.abs(normalize(made.values) - normalize(chunk)).mean()
        assert distance < 0.2 < np.abs(normalize(chunk)).mean()
        return
    expected = parts.tokenizer.encode(chunk[None])[0]
    assert np.array_equal(made.codes, expected)
    assert np.allclose(made.values, parts.tokenizer.decode([expected])[0], atol=1e-5)


# --- throughput ---------------------------------------------------------------------------------


def test_a_trace_of_so_many_steps_is_written(trained):
    out, _ = trained(profile=2)
    events = json.loads((out / 'profile' / 'trace.json').read_text())['traceEvents']
    steps = [e for e in events if str(e.get('name')).startswith('Optimizer.step')]
    assert len(steps) == 2
    assert 'aten::' in (out / 'profile' / 'operators.txt').read_text()
    assert not (trained()[0] / 'profile').exists()
    assert same(weights(out), weights(trained()[0]))


@pytest.mark.parametrize('head', HEADS)
def test_processes_that_load_data_change_nothing(trained, head):
    runs = [trained(**HEADS[head], **fields)[0] for fields in ({}, {'data_workers': 2})]
    assert same(weights(runs[0]), weights(runs[1]))


def test_samples_per_second_and_waiting_tell_that_loading_is_slow(
    tmp_path, demos, tokenizers, trained, monkeypatch
):
    usual = [line['wait_share'] for line in lines(trained()[0]) if 'loss' in line]
    assert len(usual) == 6
    assert 0.0 < np.median(usual) < 0.5
    make = Batches.make

    def slow(self, rows, generators=None):
        time.sleep(0.25)
        return make(self, rows, generators)

    monkeypatch.setattr(Batches, 'make', slow)
    rows = list(train(_config(log_every=2), demos, tokenizers / 'rvq', tmp_path / 'run'))
    logged = [row for row in rows if 'wait_share' in row]
    assert [row['step'] for row in logged] == [2, 4, 6]
    for row in logged:
        assert 0.5 < row['wait_share'] <= 1.0
        assert 0.0 < row['samples_per_s'] < 4 / 0.25


# --- pretrained ---------------------------------------------------------------------------------


def test_a_training_begins_with_the_weights_of_the_pretrained_model(pretrained_weights, vlm):
    expected = AutoModel.from_pretrained(vlm).state_dict()
    found = {k: v for k, v in pretrained_weights.items() if k.startswith('backbone.vlm.')}
    assert same({f'backbone.vlm.{k}': v for k, v in expected.items()}, found)


def test_a_pretrained_model_trains_and_its_policy_needs_nothing_of_it(
    tmp_path, demos, tokenizers, plain
):
    out, rows = plain
    assert _losses(rows)[-3:].mean() < _losses(rows)[:3].mean()
    # The folder of the model is gone when the policy is loaded.
    folder = make_vlm(tmp_path / 'vlm', FAMILY)
    config = _config(model=_pretrained(folder), steps=12, save_every=6)
    list(train(config, demos, tokenizers / 'rvq', tmp_path / 'run'))
    shutil.rmtree(folder)
    assert same(weights(out), weights(tmp_path / 'run'))
    policy = Policy.from_pretrained(tmp_path / 'run' / 'checkpoint', 'cpu')
    chunk = _predict(policy)
    assert chunk.values.shape == (32, 21)
    assert np.isfinite(chunk.values).all()
    assert np.array_equal(
        chunk.codes, _predict(Policy.from_pretrained(out / 'checkpoint', 'cpu')).codes
    )
