"""The tokenizers in `faster_core/assets/tokenizers`: small, complete, and as good as reported."""

import json
import pathlib

import numpy as np
import pytest

from faster_core import paths
from faster_core.embodiment import Embodiment
from faster_core.tokenizer import FasterVQ
from faster_core.tokenizer.evaluate import decodable_share
from faster_core.tokenizer.normalizer import MAX_ABS

FOLDER = pathlib.Path(paths.__file__).parent / 'assets' / 'tokenizers'
ROBOTS = {'metaworld': 'metaworld', 'aloha': 'aloha', 'g1': 'g1_inspire', 'r1_lite': 'r1_lite'}
REPORT = pathlib.Path(__file__).parents[1] / 'docs' / 'results' / 'tokenizers.json'


@pytest.fixture(params=ROBOTS)
def name(request):
    return request.param


@pytest.fixture
def tokenizer(name):
    return FasterVQ.from_pretrained(FOLDER / name)


def _smooth_chunks(tokenizer, count, seed=0):
    """Return chunks [count, H, D] that wander slowly within the decoder's range."""
    rng = np.random.default_rng(seed)
    config, normalizer = tokenizer.config, tokenizer.normalizer
    t = np.linspace(0, 1, config.horizon)[None, :, None]
    start = rng.uniform(-0.5, 0.5, (count, 1, config.action_dim))
    moved = start + 0.2 * rng.normal(size=start.shape) * t
    return (normalizer.centre + normalizer.half_range * moved).astype(np.float32)


def test_together_they_are_small():
    size = sum(f.stat().st_size for f in FOLDER.rglob('*') if f.is_file())
    assert {p.name for p in FOLDER.iterdir()} == set(ROBOTS)
    assert size <= 12e6


def test_each_fits_its_robot(name, tokenizer):
    embodiment = Embodiment.load(paths.embodiment_file(ROBOTS[name]))
    assert tokenizer.config.action_dim == embodiment.action_dim
    assert tokenizer.config.horizon == embodiment.action_horizon


def test_each_was_trained(tokenizer):
    chunks = _smooth_chunks(tokenizer, 50)
    error = np.abs(tokenizer.decode(tokenizer.encode(chunks)) - chunks)
    moved = np.abs(chunks - tokenizer.normalizer.centre)
    assert error.mean() < 0.35 * moved.mean()


def test_each_level_brings_the_chunk_nearer(tokenizer):
    chunks = _smooth_chunks(tokenizer, 50)
    codes = tokenizer.encode(chunks)
    errors = [
        np.abs(tokenizer.decode(codes, num_levels=n) - chunks) / tokenizer.normalizer.half_range
        for n in (1, 2, 3)
    ]
    means = [e.mean() for e in errors]
    assert means[0] > means[1] > means[2]


def test_every_code_tensor_decodes_within_range(tokenizer):
    rng = np.random.default_rng(1)
    config, normalizer = tokenizer.config, tokenizer.normalizer
    shape = (256, config.num_levels, *config.latent_shape)
    actions = tokenizer.decode(rng.integers(0, config.codebook_size, shape))
    assert np.isfinite(actions).all()
    assert (np.abs(actions - normalizer.centre) <= (MAX_ABS + 1e-3) * normalizer.half_range).all()
    tokens = [np.zeros(config.num_tokens, int)]
    assert decodable_share(tokenizer, tokens, count=50) == 1.0


def test_the_report_is_about_the_shipped_ones(name, tokenizer):
    row = json.loads(REPORT.read_text())['datasets'][name]['faster']
    assert row['params'] == tokenizer.num_parameters
    assert row['tokens_mean'] == tokenizer.config.num_tokens
    assert row['decodable'] == 1.0
