"""Data that hardly is data: constant or tiny dimensions, outliers, too few chunks, none at all."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from small_tokenizers import config_of, D, fitted, H, KINDS, motions

from faster_core.data.motions import Motion, MotionError, MotionSet
from faster_core.embodiment import Embodiment
from faster_core.errors import CheckpointError
from faster_core.tokenizer.normalizer import ActionNormalizer, MAX_ABS
from faster_core.tokenizer.registry import TOKENIZERS

EMBODIMENT = Embodiment.from_text(f"""
name: five
action_frequency: 10.0
action_horizon: {H}
cameras: [head]
state: [{{component: arm, kind: joint_position, names: [a, b, c, d]}}]
action:
  - {{component: arm, kind: joint_position, names: [a, b, c, d]}}
  - {{component: base, kind: twist, names: [vx]}}
tokenizer_groups: [[arm], [base]]
""")
COLUMN = st.sampled_from(['moves', 'constant', 'tiny', 'huge', 'outlier'])


def _chunks(columns, offset, count=40):
    chunks = motions(count, seed=3)
    for column, how in enumerate(columns):
        values = chunks[:, :, column]
        if how == 'constant':
            values[:] = offset
        elif how == 'tiny':
            values[:] = offset + 1e-6 * values
        elif how == 'huge':
            values[:] = offset + 1e4 * values
        elif how == 'outlier':
            values[0, 0] = 1e3
    return chunks


def _tokenizer(kind, normalizer, chunks):
    cls = TOKENIZERS[kind]
    if hasattr(cls, 'fit'):
        return cls.fit(config_of(kind), normalizer, normalizer.normalize(chunks))
    return cls(config_of(kind), normalizer, fitted(kind).model)


@pytest.mark.parametrize('kind', KINDS)
@settings(max_examples=12, deadline=None)
@given(
    columns=st.lists(COLUMN, min_size=D, max_size=D), offset=st.floats(-3, 3), seed=st.integers(0)
)
def test_whatever_the_data_were_actions_stay_finite_and_in_the_decoders_range(
    kind, columns, offset, seed
):
    chunks = _chunks(columns, np.float32(offset))
    normalizer = ActionNormalizer.fit(chunks, EMBODIMENT)
    tokenizer = _tokenizer(kind, normalizer, chunks)
    some = chunks[np.random.default_rng(seed).integers(len(chunks), size=3)]
    decoded = tokenizer.decode(tokenizer.encode(some))
    assert decoded.shape == some.shape
    assert np.isfinite(decoded).all()
    room = 1e-3 + 1e-6 * np.abs(normalizer.centre / normalizer.half_range)
    assert (np.abs(decoded - normalizer.centre) / normalizer.half_range <= MAX_ABS + room).all()


@pytest.mark.parametrize('kind', [k for k in KINDS if hasattr(TOKENIZERS[k], 'fit')])
@settings(max_examples=12, deadline=None)
@given(constant=st.sets(st.integers(0, D - 1), min_size=1), offset=st.floats(-3, 3))
def test_a_constant_dimension_comes_back_as_what_it_was(kind, constant, offset):
    columns = ['constant' if i in constant else 'moves' for i in range(D)]
    chunks = _chunks(columns, np.float32(offset))
    normalizer = ActionNormalizer.fit(chunks, EMBODIMENT)
    tokenizer = _tokenizer(kind, normalizer, chunks)
    decoded = tokenizer.decode(tokenizer.encode(chunks[:3]))
    error = np.abs(decoded - chunks[:3])[..., sorted(constant)]
    assert error.max() <= 0.006 * normalizer.half_range.max() + 0.06 * 0.05


@pytest.mark.parametrize('bad', [np.nan, np.inf, -1.0, 0.0])
def test_statistics_that_cannot_be_divided_by_are_refused(bad):
    values = {'centre': [0.0] * D, 'half_range': [1.0] * (D - 1) + [bad]}
    with pytest.raises(CheckpointError, match='action statistics: half_range'):
        ActionNormalizer.from_dict(values, D)


def _set(count, rate=10.0, rows=2 * H, splits=None):
    motions_ = tuple(
        Motion(episode=str(i), task='t', action=np.zeros((rows, D), np.float32))
        for i in range(count)
    )
    return MotionSet(
        name='five',
        embodiment=EMBODIMENT,
        rate=rate,
        source='a test',
        licence='Apache-2.0',
        rests=False,
        motions=motions_,
        splits=splits or ('train',) * count,
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'count': 0}, 'five: no motions'),
        ({'count': 1, 'rate': 30.0}, 'five: recorded at 30 Hz, the embodiment'),
    ],
)
def test_a_set_without_motions_or_of_another_rate_is_refused(arguments, message):
    with pytest.raises(MotionError, match=message):
        _set(**arguments)


def test_a_split_without_a_chunk_is_refused_and_says_how_long_episodes_are():
    with pytest.raises(MotionError, match="five: no chunk in split 'train': its longest"):
        _set(2, rows=H - 1).chunks('train')
