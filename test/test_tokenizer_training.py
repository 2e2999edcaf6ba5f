"""Training of FASTerVQ: it learns, it resumes exactly, it leaves its traces."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from tiny_checkpoint import home_action, r1_lite, random_chunks, VQ, write_demos
import torch
from warm_processes import group
import yaml

from faster_core import paths
from faster_core.config import from_mapping
from faster_core.data.episodes import load_episode, save_episode
from faster_core.data.motions import HELD_OUT, Motion, MotionError, MotionSet
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.tokenizer import FasterVQ
from faster_core.tokenizer import train as train_module
from faster_core.tokenizer.config import FasterVQConfig, group_kinds
from faster_core.tokenizer.evaluate import l1_by_levels
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.registry import load_tokenizer
from faster_core.tokenizer.robots import load_data, model_config_of
from faster_core.tokenizer.train import train
from faster_core.tokenizer.train_config import TokenizerTrainConfig
from faster_core.training.run_folder import RunFolder


def _config(**fields):
    values = {
        'model': dict(VQ),
        'steps': 12,
        'batch_size': 16,
        'initial_chunks': 64,
        'log_every': 4,
        'save_every': 4,
    }
    return TokenizerTrainConfig(**{**values, **fields})


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch):
    # Drawing takes longer than these runs; `uninterrupted`, of module scope, still draws.
    monkeypatch.setattr(RunFolder, 'plot', lambda self: None)
    monkeypatch.setattr(train_module, 'plot_code_use', lambda counts, path: None)


@pytest.fixture(scope='module')
def demos(tmp_path_factory):
    return write_demos(tmp_path_factory.mktemp('demos'), episodes=8, steps=32, size=2)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, demos):
    out = tmp_path_factory.mktemp('tokenizer') / 'run'
    rows = list(train(_config(), [demos], out))
    return out, rows


def _weights(out):
    return FasterVQ.from_pretrained(out / 'checkpoint').model.state_dict()


def test_every_step_is_reported_and_losses_every_few(uninterrupted):
    _, rows = uninterrupted
    assert [row['step'] for row in rows] == list(range(1, 13))
    logged = [row['step'] for row in rows if 'time' in row]
    assert logged == [4, 8, 12]
    assert all({'time', 'dct', 'commitment'} <= set(rows[step - 1]) for step in logged)


def test_metrics_plot_and_checkpoint_are_there(uninterrupted):
    out, _ = uninterrupted
    lines = [json.loads(x) for x in (out / 'metrics.jsonl').read_text().splitlines()]
    assert {line['step'] for line in lines} == {4, 8, 12}
    held_out = [line for line in lines if 'held_out_vrr' in line]
    assert len(held_out) == 3
    for name in ('metrics.png', 'codes.png'):
        assert (out / name).read_bytes().startswith(b'\x89PNG')
    assert FasterVQ.from_pretrained(out / 'checkpoint').encode(random_chunks(2)).shape[0] == 2


def test_no_file_of_a_run_is_a_pickle(uninterrupted):
    files = [p for p in uninterrupted[0].rglob('*') if p.is_file()]
    own = {p.suffix for p in files if p.parent.name != 'tensorboard'}
    assert own == {'.json', '.jsonl', '.png', '.safetensors'}
    assert any('tfevents' in p.name for p in files)


@pytest.mark.parametrize('stop_after', [3, 4, 6, 11])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, demos, uninterrupted, stop_after):
    out = tmp_path / 'run'
    list(itertools.islice(train(_config(), [demos], out), stop_after))
    # Whatever else drew random numbers in between must not matter.
    torch.manual_seed(999)
    rows = list(train(_config(), [demos], out))
    assert rows[0]['step'] == stop_after // 4 * 4 + 1
    expected = _weights(uninterrupted[0])
    found = _weights(out)
    assert all(torch.equal(found[k], v) for k, v in expected.items())


def test_a_finished_run_is_not_trained_again(tmp_path, demos):
    config = _config(steps=4)
    list(train(config, [demos], tmp_path / 'run'))
    before = (tmp_path / 'run' / 'checkpoint' / 'model.safetensors').read_bytes()
    assert list(train(config, [demos], tmp_path / 'run')) == []
    assert (tmp_path / 'run' / 'checkpoint' / 'model.safetensors').read_bytes() == before


def test_another_configuration_in_the_same_folder_is_refused(demos, uninterrupted):
    with pytest.raises(ConfigError, match='another configuration'):
        next(train(_config(learning_rate=5e-4), [demos], uninterrupted[0]))


def test_other_data_in_the_same_folder_are_refused(tmp_path, demos, uninterrupted):
    out, _ = uninterrupted
    others = write_demos(tmp_path / 'others', episodes=8, steps=32, size=2, seed=9)
    with pytest.raises(ConfigError, match=r'was trained on other data \(r1_lite, 8 .*; now'):
        next(train(_config(), [others], out))
    # The same motions as a motion set, from another folder, are the same data.
    load_data(demos).save(tmp_path / 'set')
    assert list(train(_config(), [tmp_path / 'set'], out)) == []


def test_another_motion_set_in_the_same_folder_is_refused(tmp_path):
    config, (one, two) = _two(steps=4), _sets(tmp_path)
    list(train(config, [one, two], tmp_path / 'run'))
    whole = MotionSet.load(one)
    splits = (*whole.splits[1:], whole.splits[0])  # the same motions, another one held out
    dataclasses.replace(whole, splits=splits).save(tmp_path / 'other')
    for data in ([tmp_path / 'other', two], [two, one]):
        with pytest.raises(ConfigError, match='other data'):
            next(train(config, data, tmp_path / 'run'))


def test_a_run_of_before_checksums_were_recorded_goes_on(tmp_path, demos, uninterrupted):
    out = tmp_path / 'run'
    list(itertools.islice(train(_config(), [demos], out), 6))
    (out / 'data.json').unlink()
    assert next(train(_config(), [demos], out))['step'] == 5
    assert not (out / 'data.json').exists()


def test_without_a_state_other_data_may_be_given(tmp_path, demos):
    others = write_demos(tmp_path / 'others', episodes=8, steps=32, size=2, seed=9)
    next(train(_config(), [others], tmp_path / 'run'))
    list(itertools.islice(train(_config(), [demos], tmp_path / 'run'), 4))
    assert next(train(_config(), [demos], tmp_path / 'run'))['step'] == 5


def test_the_seed_decides_the_result(tmp_path, demos, uninterrupted):
    list(train(_config(seed=1), [demos], tmp_path / 'run'))
    other, weights = _weights(tmp_path / 'run'), _weights(uninterrupted[0])
    assert not all(torch.equal(other[k], v) for k, v in weights.items())


def test_a_folder_without_demonstrations_is_refused(tmp_path):
    with pytest.raises(MotionError, match='no episodes'):
        next(train(_config(), [tmp_path], tmp_path / 'run'))


def test_an_unknown_field_of_the_model_is_refused(tmp_path, demos):
    with pytest.raises((ConfigError, TypeError), match='colour'):
        next(train(_config(model=VQ | {'colour': 3}), [demos], tmp_path / 'run'))


def _episodes_of_one_posture_each(folder):
    """Write demonstrations in which one number per episode says all."""
    rng = np.random.default_rng(0)
    pattern = rng.normal(0.0, 0.05, 21)
    pattern[[6, 13]] = 0.0
    for path in sorted(write_demos(folder, episodes=20, steps=16, size=2).glob('*.npz')):
        posture = home_action() + rng.uniform(-1, 1) * pattern
        action = np.tile(posture, (16, 1)).astype(np.float32)
        save_episode(path, dataclasses.replace(load_episode(path), action=action))
    return folder


def test_a_short_fit_reduces_the_error_on_unseen_chunks(tmp_path):
    demos = _episodes_of_one_posture_each(tmp_path / 'demos')
    config = _config(
        model=VQ | {'width': 32, 'ema_decay': 0.9},
        steps=300,
        batch_size=32,
        learning_rate=5e-3,
        offset_noise=0.0,
        ema_decay=0.5,
        save_every=300,
    )
    unseen = load_data(demos).chunks(HELD_OUT)
    list(train(config, [demos], tmp_path / 'run'))
    tokenizer = FasterVQ.from_pretrained(tmp_path / 'run' / 'checkpoint')
    error = l1_by_levels(tokenizer, unseen)
    # The best chunk that says nothing: the middle of every dimension's range.
    middle = np.abs((unseen - tokenizer.normalizer.centre) / tokenizer.normalizer.half_range)
    assert error[-1] < 0.8 * middle.mean()
    assert error[-1] < 0.9 * error[0]


def test_the_recipe_of_the_shipped_tokenizer_is_one_that_can_be_trained():
    path = paths.share_dir() / 'config' / 'train' / 'r1_lite_tokenizer.yaml'
    recipe = from_mapping(TokenizerTrainConfig, yaml.safe_load(path.read_text()), source=str(path))
    shipped = FasterVQ.from_pretrained(
        paths.share_dir() / 'faster_core/assets/checkpoints/r1_lite_demo/tokenizer'
    )
    built = FasterVQConfig.from_embodiment(r1_lite(), **recipe.model)
    for name in ('latent_shape', 'num_tokens', 'width', 'latent_dim', 'codebook_size'):
        assert getattr(built, name) == getattr(shipped.config, name)


# --- several robots, several processes, rivals ---------------------------------------------------


def _sets(folder):
    """Write two small motion sets of different robots; returns their folders."""
    paths = []
    for name, horizon, dims, seed in (('one', 16, 3, 0), ('two', 8, 5, 1)):
        text = EMBODIMENT.format(
            name=name, horizon=horizon, names=', '.join(f'j{i}' for i in range(dims))
        )
        rng = np.random.default_rng(seed)
        motions = tuple(
            Motion(
                episode=str(i),
                task='wave',
                action=np.cumsum(rng.normal(0, 0.02, (40, dims)), axis=0),
            )
            for i in range(8)
        )
        data = MotionSet(
            name=name,
            embodiment=Embodiment.from_text(text),
            rate=10.0,
            source='a test',
            licence='Apache-2.0',
            rests=False,
            motions=motions,
            splits=('held_out', *['train'] * 7),
        )
        data.save(folder / name)
        paths.append(folder / name)
    return paths


EMBODIMENT = """
name: {name}
action_frequency: 10.0
action_horizon: {horizon}
cameras: [head]
state:
  - {{component: arm, kind: joint_position, names: [{names}]}}
action:
  - {{component: arm, kind: joint_position, names: [{names}]}}
tokenizer_groups: [[arm]]
"""
SHARED = {'width': 16, 'depth': 1, 'heads': 2, 'latent_dim': 8, 'codebook_size': 16}
ROBOTS = {
    'one': {'slots_per_group': [3], 'patch_length': 4, 'time_slots': 2},
    'two': {'slots_per_group': [2], 'patch_length': 2, 'time_slots': 2},
}


def _two(**fields):
    return _config(**{'model': SHARED, 'robots': ROBOTS, 'continuous': 0.25, **fields})


def test_robots_trained_together_share_transformer_and_codebooks_and_nothing_else(tmp_path):
    list(train(_two(), _sets(tmp_path), tmp_path / 'run'))
    one, two = (
        FasterVQ.from_pretrained(tmp_path / 'run' / 'checkpoint' / name) for name in ('one', 'two')
    )
    assert (one.config.horizon, two.config.horizon) == (16, 8)
    a, b = one.model.state_dict(), two.model.state_dict()
    equal = {k: a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a}
    shared = ('encoder.', 'decoder.', 'to_latent.', 'from_latent.')
    expected = (*(f'autoencoder.{name}' for name in shared), 'quantizer.')
    assert equal == {k: k.startswith(expected) for k in a}
    for tokenizer, shape in ((one, (2, 16, 3)), (two, (2, 8, 5))):
        chunks = np.zeros(shape, np.float32)
        assert tokenizer.decode(tokenizer.encode(chunks)).shape == shape


def test_robots_that_cannot_share_are_refused(tmp_path):
    robots = {**ROBOTS, 'two': {**ROBOTS['two'], 'patch_length': 4}}
    with pytest.raises(ConfigError, match=r'two: strides \(\), the shared model has \(2,\)'):
        next(train(_two(robots=robots), _sets(tmp_path), tmp_path / 'run'))


@pytest.mark.parametrize('field', ['robots', 'weights'])
def test_a_robot_that_is_not_in_the_data_is_refused(tmp_path, field):
    value = {'three': {}} if field == 'robots' else {'three': 2.0}
    with pytest.raises(ConfigError, match=f"{field}: unknown data sets \\['three'\\]"):
        next(train(_two(**{field: value}), _sets(tmp_path), tmp_path / 'run'))


def test_weights_decide_how_much_of_a_batch_a_robot_gets(tmp_path, monkeypatch):
    seen = []
    forward = train_module._Trainee.forward

    def spy(self, batches, levels):
        seen.append({k: len(v) for k, v in batches.items()})
        return forward(self, batches, levels)

    monkeypatch.setattr(train_module._Trainee, 'forward', spy)
    next(train(_two(weights={'one': 3.0}), _sets(tmp_path), tmp_path / 'run'))
    assert seen == [{'one': 12, 'two': 4}]


@pytest.mark.parametrize('kind', ['minivla', 'vqvla'])
def test_learned_rivals_are_trained_by_the_same_loop(tmp_path, kind):
    config = _config(
        tokenizer=kind,
        model={'width': 16, 'latent_dim': 8, 'codebook_size': 16},
        steps=200,
        learning_rate=5e-3,
    )
    rows = list(train(config, _sets(tmp_path)[:1], tmp_path / 'run'))
    loaded = load_tokenizer(tmp_path / 'run' / 'checkpoint')
    assert loaded.kind == kind
    losses = [row['total'] for row in rows if 'total' in row]
    assert losses[-1] < 0.8 * losses[0]


def test_nothing_is_quantised_at_the_start_and_codebooks_are_filled_once(tmp_path, demos):
    config = _config(steps=8, continuous=0.5, save_every=4)
    rows = itertools.islice(train(config, [demos], tmp_path / 'run'), 4)
    assert all(row.get('commitment', 0.0) == 0.0 for row in rows)
    assert not (tmp_path / 'run' / 'checkpoint').exists()
    rows = list(train(config, [demos], tmp_path / 'run'))
    assert rows[-1]['commitment'] > 0.0
    codebook = FasterVQ.from_pretrained(tmp_path / 'run' / 'checkpoint').model.quantizer.levels[0]
    assert bool(codebook.initialised)
    assert len(codebook.vectors.unique(dim=0)) == VQ['codebook_size']


def test_bfloat16_trains_and_keeps_the_codebooks_in_float32(tmp_path, demos):
    config = _config(precision='bfloat16')
    rows = list(train(config, [demos], tmp_path / 'run'))
    assert np.isfinite(rows[-1]['total'])
    weights = _weights(tmp_path / 'run')
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float32}


def test_a_preset_gives_the_fields_that_the_model_does_not(tmp_path, demos):
    data = load_data(demos)
    config = _config(preset='whole_body_small', model={'width': 32})
    built = model_config_of(config, data)
    assert (built.width, built.codebook_size, built.num_tokens) == (32, 1024, 126)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'tokenizer': 'fast'}, "tokenizer: expected one of faster, .*, found 'fast'"),
        ({'preset': 'huge'}, "preset: expected one of .*, found 'huge'"),
        ({'preset': 'dual_arm', 'tokenizer': 'vqvla'}, "preset 'dual_arm': only for faster"),
        ({'precision': 'float16'}, 'precision: expected one of float32, bfloat16, found'),
        ({'dct_axis': 'space'}, "dct_axis: expected one of time, time_and_action, found 'space'"),
        ({'steps': 0}, 'steps: expected a whole number >= 1, found 0'),
        ({'continuous': 1.0}, 'continuous: expected 0 <= share < 1, found 1.0'),
        ({'weights': {'a': 0.0}}, r"weights: expected positive numbers, found \{'a': 0.0\}"),
    ],
)
def test_wrong_settings_are_refused_with_what_was_found(fields, message):
    with pytest.raises(ConfigError, match=message):
        _config(**fields)


def test_two_processes_train_the_same_codebooks_as_one_on_the_joint_batch(tmp_path):
    config = tmp_path / 'config.yaml'
    config.write_text(yaml.safe_dump(dataclasses.asdict(_two(steps=8, save_every=8))))
    command = ['faster_vla_ros.cli', 'tokenizer', 'train', str(config)]
    command += [x for path in _sets(tmp_path) for x in ('--data', str(path))]
    for count in (1, 2):
        group(tmp_path, count, *command, '--out', str(tmp_path / f'run{count}'))
    for name in ('one', 'two'):
        alone, together = (
            FasterVQ.from_pretrained(tmp_path / run / 'checkpoint' / name).model.state_dict()
            for run in ('run1', 'run2')
        )
        for key, value in alone.items():
            # Rounding differs with the order of sums; Adam makes steps of it where gradients
            # vanish, and latents add such differences up.
            tolerance = 5e-3 if key.startswith('quantizer') else 2e-4
            assert torch.allclose(value, together[key], rtol=1e-3, atol=tolerance), key
    assert alone['quantizer.levels.0.vectors'].std() > 0.1


# --- a robot never trained on -------------------------------------------------------------------

BY_KIND = {**SHARED, 'layout': 'by_kind', 'slot_width': 3, 'patch_length': 4, 'strides': [2]}
KIND_ROBOTS = {
    'one': {'slots_per_group': [1], 'time_slots': 2},
    'two': {'slots_per_group': [2], 'time_slots': 1},
}


def _by_kind(**fields):
    return _config(**{'model': BY_KIND, 'robots': KIND_ROBOTS, **fields})


def test_with_cells_by_kind_robots_share_every_parameter(tmp_path):
    list(train(_by_kind(), _sets(tmp_path), tmp_path / 'run'))
    one, two = (
        FasterVQ.from_pretrained(tmp_path / 'run' / 'checkpoint' / name).model.state_dict()
        for name in ('one', 'two')
    )
    assert set(one) == set(two)
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_robot_never_trained_on_is_encoded_by_the_same_weights(tmp_path):
    one, two = _sets(tmp_path)
    config = _by_kind(
        robots={'one': KIND_ROBOTS['one']},
        steps=100,
        learning_rate=3e-3,
        model={**BY_KIND, 'width': 32, 'ema_decay': 0.9},
    )
    list(train(config, [one], tmp_path / 'run'))
    trained = FasterVQ.from_pretrained(tmp_path / 'run' / 'checkpoint')
    other = MotionSet.load(two)
    normalizer = ActionNormalizer.fit(other.chunks('train'), other.embodiment)
    stranger = trained.for_robot(other.embodiment, normalizer, slots_per_group=[2], time_slots=1)
    chunks = other.chunks(HELD_OUT)
    assert stranger.encode(chunks).shape[1:] == (3, 1, 2)
    error = l1_by_levels(stranger, chunks)[-1]
    torch.manual_seed(0)
    untrained = FasterVQ(stranger.config, normalizer)
    untrained.model.quantizer.fill(
        untrained.model.autoencoder.encode(torch.from_numpy(normalizer.normalize(chunks)))
    )
    assert error < 0.8 * l1_by_levels(untrained, chunks)[-1]
    a, b = trained.model.state_dict(), stranger.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    stranger.save_pretrained(tmp_path / 'stranger')
    again = FasterVQ.from_pretrained(tmp_path / 'stranger')
    assert np.array_equal(again.encode(chunks), stranger.encode(chunks))


def test_a_tokenizer_with_cells_of_its_own_knows_its_own_robot_only(tmp_path):
    one, two = _sets(tmp_path)
    list(train(_two(robots={'one': ROBOTS['one']}), [one], tmp_path / 'run'))
    trained = FasterVQ.from_pretrained(tmp_path / 'run' / 'checkpoint')
    other = MotionSet.load(two).embodiment
    with pytest.raises(ConfigError, match='for_robot: expected layout by_kind, found own'):
        trained.for_robot(other, trained.normalizer, slots_per_group=[2])


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'slot_width': 2}, r'slot_width: expected at least 3, the widest slot, found 2'),
        ({'slot_width': None}, r'slot_width: expected at least 3, the widest slot, found None'),
        ({'slot_map': 'mixed', 'latent_slots': 2}, 'layout by_kind: expected slot_map split'),
        ({'layout': 'own'}, 'slot_kinds and slot_width are for layout by_kind'),
        ({'layout': 'random'}, "layout: expected one of own, by_kind, found 'random'"),
    ],
)
def test_cells_by_kind_that_cannot_be_are_refused(tmp_path, fields, message):
    config = _config(model={**BY_KIND, **fields}, robots={'one': KIND_ROBOTS['one']})
    with pytest.raises(ConfigError, match=message):
        next(train(config, _sets(tmp_path)[:1], tmp_path / 'run'))


def test_a_group_of_several_kinds_has_no_cells_by_kind():
    text = EMBODIMENT.format(name='mixed', horizon=8, names='a, b')
    text = text.replace(
        'tokenizer_groups: [[arm]]',
        '  - {component: hand, kind: gripper_position, names: [g]}\n'
        'tokenizer_groups: [[arm, hand]]',
    )
    with pytest.raises(ConfigError, match='expected one kind, found gripper_position, joint'):
        group_kinds(Embodiment.from_text(text))
