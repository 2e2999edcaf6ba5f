"""Fitting and comparing all tokenizers: cached, resumable, and honest about who wins."""

import fcntl
import json

import numpy as np
import pytest
import yaml

from faster_core import paths
from faster_core.config import from_mapping
from faster_core.data.motions import Motion, MotionSet
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.tokenizer.baselines.fast import Fast
from faster_core.tokenizer.registry import TOKENIZERS
from faster_core.tokenizer.study import curves
from faster_core.tokenizer.study.compare import compare
from faster_core.tokenizer.study.curves import Point
from faster_core.tokenizer.study.figures import draw_all
from faster_core.tokenizer.study.fit_all import fit_universal, Study
from faster_core.tokenizer.study.plan import plan, StudyConfig
from faster_core.tokenizer.study.table import tables
from faster_core.tokenizer.train_config import TokenizerTrainConfig

pytestmark = pytest.mark.usefixtures('no_figures')

EMBODIMENT = """
name: {name}
action_frequency: 10.0
action_horizon: 8
cameras: [head]
state:
  - {{component: arm, kind: joint_position, names: [{names}]}}
action:
  - {{component: arm, kind: joint_position, names: [{names}]}}
  - {{component: gripper, kind: gripper_position, names: [gripper]}}
tokenizer_groups: [[arm], [gripper]]
"""
SLOTS, GRID = {'slots_per_group': [2, 1]}, {'patch_length': 4, 'time_slots': 2}
VALUES = {
    'data': {'small': SLOTS | GRID, 'wide': SLOTS | GRID},
    'training': {'steps': 30, 'batch_size': 16, 'initial_chunks': 64, 'save_every': 15},
    'faster': {
        'width': 16,
        'depth': 1,
        'heads': 2,
        'latent_dim': 8,
        'codebook_size': 16,
        'linear_path': 'pca',
        'encode_beam': 2,
    },
    'rivals': {
        'minivla': {'width': 16, 'latent_dim': 8, 'codebook_size': 16},
        'vqvla': {'width': 16, 'latent_dim': 8, 'codebook_size': 16},
    },
    'training_of': {'faster': {'continuous': 0.0}},
    'learning_rates': [0.001, 0.0001],
    'trial_steps': 5,
    'joint': {
        'both': {
            'data': {'small': SLOTS, 'wide': SLOTS},
            'weights': {'small': 3},
            'model': GRID,
        },
        'one': {
            'data': {'small': SLOTS},
            'model': {**GRID, 'layout': 'by_kind', 'slot_width': 2},
            'strangers': {'wide': SLOTS},
        },
    },
    'points': {'one level': {'num_levels': 1, 'only': ['small']}},
    'ablations': {'cnn': {'encoder': 'cnn', 'only': ['small']}},
    'fast_scales': [10.0, 2.0],
    'fast_vocab': 512,
    'universal_vocab': 512,
    'spline_points': [0.6],
}


def _config(**changes):
    return from_mapping(StudyConfig, {**VALUES, **changes}, source='a test')


def _motions(name, dims, seed, split='held_out_task'):
    rng = np.random.default_rng(seed)
    text = EMBODIMENT.format(name=name, names=', '.join(f'j{i}' for i in range(dims)))
    t = np.arange(30)[:, None]

    def wave(i):
        freq = rng.uniform(0.05, 0.3, dims + 1)
        return np.sin(freq * t + rng.uniform(0, 6, dims + 1)) * 0.3

    return MotionSet(
        name=name,
        embodiment=Embodiment.from_text(text),
        rate=10.0,
        source='a test',
        licence='Apache-2.0',
        rests=False,
        motions=tuple(Motion(episode=str(i), task='wave', action=wave(i)) for i in range(12)),
        splits=('held_out', 'held_out', split, *['train'] * 9),
    )


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    _motions('small', 2, 0).save(folder / 'small')
    _motions('wide', 4, 1, split='held_out').save(folder / 'wide')
    return folder


@pytest.fixture(scope='module')
def study(tmp_path_factory, data):
    study = Study(_config(), data, tmp_path_factory.mktemp('cache'))
    for entry in study.entries:
        study.fit(entry)
    return study


@pytest.fixture(scope='module')
def report(study):
    return compare(study)


# --- the plan -----------------------------------------------------------------------------------


def test_every_tokenizer_has_one_headline_per_data_set():
    entries = [e for e in plan(_config()) if e.kind == 'headline']
    found = sorted((d, e.name) for e in entries for d in e.data)
    names = ('bins', 'bspline', 'fast', 'fast_universal', 'faster', 'minivla', 'vqvla')
    assert found == sorted((d, n) for d in ('small', 'wide') for n in names)
    assert all(e.label == '' for e in entries)


def test_ablations_and_joint_models_can_be_shorter_than_the_rest():
    entries = plan(_config(joint_steps=7, ablation_steps=5))
    steps = {e.kind: e.fields['steps'] for e in entries if e.learned}
    assert steps == {'headline': 30, 'point': 30, 'joint': 7, 'ablation': 5}
    assert not any('steps' in e.fields['model'] for e in entries if e.learned)


def test_learned_tokenizers_get_the_same_training():
    learned = [e for e in plan(_config()) if e.learned]
    assert {e.name for e in learned} == {'faster', 'minivla', 'vqvla'}
    for entry in learned:
        assert {k: entry.fields[k] for k in VALUES['training']} == VALUES['training']


def test_a_joint_model_has_the_shares_it_names():
    sets = {'small': SLOTS, 'wide': SLOTS}
    joint = {'more': {'data': sets, 'weights': {'small': 5, 'wide': 1}}, 'even': {'data': sets}}
    entries = [e for e in plan(_config(joint=joint)) if e.kind == 'joint']
    shares = {
        e.label: from_mapping(TokenizerTrainConfig, e.fields, source=e.title).weights
        for e in entries
    }
    assert shares == {'more': {'small': 5, 'wide': 1}, 'even': {}}
    assert len({e.key({'small': 'a', 'wide': 'b'}) for e in entries}) == 2


def test_points_and_ablations_are_only_for_the_sets_they_name():
    extra = [(e.kind, e.label, e.data) for e in plan(_config()) if e.name == 'faster' and e.label]
    assert extra == [
        ('point', 'one level', ('small',)),
        ('joint', 'both', ('small', 'wide')),
        ('joint', 'one', ('small',)),
        ('ablation', 'cnn', ('small',)),
    ]


def test_headlines_of_all_learned_tokenizers_try_the_same_learning_rates():
    for entry in plan(_config()):
        tried = entry.learned and entry.kind == 'headline'
        assert entry.learning_rates == ((0.001, 0.0001) if tried else ())


def test_the_key_of_an_entry_follows_data_and_configuration():
    first = next(e for e in plan(_config()) if e.name == 'faster')
    other = next(
        e for e in plan(_config(faster={**VALUES['faster'], 'width': 32})) if e.name == 'faster'
    )
    key = first.key({'small': 'a', 'wide': 'b'})
    assert key == first.key({'small': 'a', 'wide': 'c'})  # a set it is not fitted on
    assert key != first.key({'small': 'x', 'wide': 'b'})
    assert key != other.key({'small': 'a', 'wide': 'b'})


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data': {}}, 'data: expected at least one motion set'),
        ({'rivals': {'vae': {}}}, r"rivals: expected minivla, vqvla, found \['vae'\]"),
        ({'training_of': {'fast': {}}}, r"training_of: expected of .* found \['fast'\]"),
        ({'joint': {'a': {}}}, r'joint.a: expected data and, if wanted, model, weights and str'),
        (
            {'joint': {'a': {'data': {'small': SLOTS}, 'weights': {'moon': 2}}}},
            r"joint.a.weights: unknown data \['moon'\]",
        ),
        ({'points': {'a': {'only': ['moon']}}}, r"points.a.only: unknown data \['moon'\]"),
    ],
)
def test_a_wrong_plan_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        _config(**changes)


def test_a_motion_set_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match='small: no motion set; `faster-vla data prepare small`'):
        Study(_config(), tmp_path, tmp_path)


def test_the_shipped_study_is_one_that_can_be_planned():
    path = paths.share_dir() / 'config' / 'study' / 'small.yaml'
    config = from_mapping(StudyConfig, yaml.safe_load(path.read_text()), source=str(path))
    for entry in plan(config):
        for data in entry.data if entry.learned else ():
            training = from_mapping(TokenizerTrainConfig, entry.fields, source=entry.title)
            embodiment = Embodiment.load(paths.embodiment_file(ROBOT[data]))
            cls = TOKENIZERS[training.tokenizer].config_class
            fields = training.model | training.robots.get(data, {})
            assert cls.from_embodiment(embodiment, **fields).num_tokens > 0


ROBOT = {'metaworld': 'metaworld', 'aloha': 'aloha', 'g1': 'g1_inspire', 'r1_lite': 'r1_lite'}


# --- fitting ------------------------------------------------------------------------------------


def test_everything_is_fitted_and_loads(study):
    for entry in study.entries:
        assert study.is_fitted(entry)
        assert study.cost(entry)['seconds'] >= 0
        for name in entry.data:
            motions = study.motions(name)
            tokenizer = study.load(entry, name)
            assert tokenizer.action_dim == motions.embodiment.action_dim
            chunks = motions.chunks('held_out')[:2]
            assert tokenizer.decode(tokenizer.encode(chunks)).shape == chunks.shape


def test_what_is_fitted_is_not_fitted_again(study, monkeypatch):
    monkeypatch.setattr(study, '_train', None)
    monkeypatch.setattr(study, '_fit', None)
    for entry in study.entries:
        assert study.fit(entry) is False


def test_what_another_process_has_begun_is_left_to_it(tmp_path, data):
    other = Study(_config(), data, tmp_path)
    entry = next(e for e in other.entries if e.name == 'bins')
    other.folder(entry).mkdir(parents=True)
    with (other.folder(entry) / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert other.fit(entry) is False
        assert not other.is_fitted(entry)
    assert other.fit(entry) is True
    assert other.is_fitted(entry)


def test_the_best_learning_rate_of_the_trials_is_taken(study):
    for entry in study.entries:
        if entry.learned and entry.kind == 'headline':
            cost = study.cost(entry)
            assert set(cost['trials']) == {'0.001', '0.0001'}
            assert cost['trials'][f'{cost["learning_rate"]:g}'] == max(cost['trials'].values())
            config = json.loads((study.folder(entry) / 'run' / 'config.json').read_text())
            assert config['learning_rate'] == cost['learning_rate']


def test_an_interrupted_training_goes_on_where_it_was(tmp_path, data, study):
    other = Study(_config(), data, tmp_path)
    entry = next(e for e in other.entries if e.name == 'faster')
    steps = []

    def stop(step, _):
        steps.append(step)
        if step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.fit(entry, stop)
    assert not other.is_fitted(entry)
    resumed = []
    other.fit(entry, lambda step, _: resumed.append(step))
    assert resumed[0] == 16  # the state of step 15
    chunks = other.motions('small').chunks('held_out')
    same = [s.load(entry, 'small').encode(chunks) for s in (other, study)]
    assert np.array_equal(*same)


def test_the_universal_fast_has_one_vocabulary_and_each_sets_statistics(data):
    sets = {name: MotionSet.load(data / name) for name in ('small', 'wide')}
    both = fit_universal(sets, {'scale': 10.0, 'vocab_size': 512})
    assert both['small']._bpe is both['wide']._bpe
    assert len(both['small'].normalizer.centre) == 3
    assert len(both['wide'].normalizer.centre) == 5
    for name, tokenizer in both.items():
        assert isinstance(tokenizer, Fast)
        chunks = sets[name].chunks('held_out')
        error = np.abs(tokenizer.decode(tokenizer.encode(chunks)) - chunks)
        assert np.median(error / tokenizer.normalizer.half_range) < 0.05


# --- comparing ----------------------------------------------------------------------------------


def test_the_report_has_every_tokenizer_on_every_set(report):
    keys = {'vrr_1e-3', 'vrr_5e-3', 'vrr_1e-2', 'vrr', 'l1', 'l2', 'dct_l1', 'tokens_mean'}
    keys |= {'tokens_max', 'bits_per_s', 'code_use', 'entropy', 'largest_code', 'decodable'}
    keys |= {'clipped', 'params', 'n_chunks', 'encode_ms', 'decode_ms'}
    for rows in report['datasets'].values():
        assert set(rows) == {
            *('faster', 'fast', 'fast_universal', 'bins', 'minivla', 'vqvla', 'bspline')
        }
        assert all(keys <= set(row) for row in rows.values())
    assert report['missing'] == []
    assert set(report['held_out_tasks']) == {'small'}
    assert json.loads(json.dumps(report)) == json.loads(json.dumps(report))


def test_a_curve_has_a_point_per_scale_and_per_level(report):
    small = report['curves']['small']
    assert len(small['fast']) == 2
    assert [p['label'] for p in small['faster']] == [
        *(f'{n} levels' for n in (1, 2, 3)),
        'one level 1 levels',
    ]
    assert small['faster'][0]['tokens'] * 3 == small['faster'][2]['tokens']
    assert set(report['ablations']['small']) == {'headline', 'headline, greedy encoding', 'cnn'}
    assert set(report['ablations']['wide']) == {'headline', 'headline, greedy encoding'}


def test_one_model_over_several_sets_pools_its_codes(study, report):
    both, one = report['joint']['both'], report['joint']['one']
    chunks = sum(len(study.motions(d).chunks('held_out')) for d in ('small', 'wide'))
    assert both['codes']['tokens_per_level'] == chunks * 2 * 3  # 2 time slots, 3 action slots
    assert [len(r['codes']['levels']) for r in (both, one)] == [3, 3]
    assert set(both['held_out']) == {'small', 'wide'}
    assert set(one['strangers']) == {'wide'}
    assert set(one['held_out_tasks']) == {'small'}
    assert 0 < one['strangers']['wide']['l1'] < 2


def test_what_is_not_fitted_is_named(tmp_path, data):
    empty = compare(Study(_config(), data, tmp_path))
    assert len(empty['missing']) == len(plan(_config()))
    assert empty['datasets'] == {'small': {}, 'wide': {}}


def test_the_table_names_all_and_says_no_where_it_lost(report):
    text = tables(report)
    for name in ('**faster**', 'fast_universal', 'bspline', 'ablation'):
        assert name in text
    assert text.count('### ') == 3
    assert '| one | small | wide, a robot not trained on |' in text
    assert '| both | small 3, wide 1 | wide, held-out episodes |' in text
    assert '**no**' in text  # bins at full resolution win against thirty steps of training


def test_figures_are_drawn(tmp_path, study, report):
    files = draw_all(study, report, tmp_path)
    assert [f.name for f in files] == ['rate_distortion.png', 'vrr.png', 'traces.png', 'codes.png']
    assert all(f.read_bytes().startswith(b'\x89PNG') for f in files)


# --- curves -------------------------------------------------------------------------------------


def _points(*values):
    return [Point(label=str(t), tokens=t, vrr=v, l1=e) for t, v, e in values]


def test_between_points_a_curve_is_linear_in_the_logarithm_of_tokens():
    points = _points((10, 0.2, 0.4), (40, 0.6, 0.2))
    assert curves.at(points, 20) == {'vrr': pytest.approx(0.4), 'l1': pytest.approx(0.3)}


def test_there_is_no_value_where_nothing_was_measured_but_close_by():
    points = _points((10, 0.2, 0.4), (40, 0.6, 0.2))
    assert curves.at(points, 42)['vrr'] == pytest.approx(0.6)
    assert curves.at(points, 43) is None
    assert curves.at(points, 9.4) is None


def test_a_point_that_more_tokens_make_no_better_is_not_on_the_curve():
    points = _points((10, 0.5, 0.4), (20, 0.4, 0.5), (30, 0.6, 0.3))
    assert [p.tokens for p in curves.frontier(points)] == [10, 30]


def test_the_better_curve_wins_at_every_matched_point_and_in_area():
    ours = _points((10, 0.5, 0.3), (40, 0.9, 0.1))
    theirs = _points((20, 0.4, 0.5), (80, 0.95, 0.05))
    result = curves.against(ours, theirs)
    assert [row['tokens'] for row in result['matched']] == [20]
    assert result['wins'] is True
    assert result['areas'][0] > result['areas'][1]
    assert curves.against(theirs, ours)['wins'] is False


def test_curves_that_do_not_overlap_are_not_compared():
    result = curves.against(_points((10, 0.5, 0.3)), _points((100, 0.9, 0.1)))
    assert result == {'matched': [], 'areas': None, 'wins': None}
