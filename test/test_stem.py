"""Stems: every token of the pooled one looks somewhere, and its place is in the token."""

import pytest
from tiny_model import observation, tiny_model
import torch

from faster_core.errors import ConfigError
from faster_core.policy.backbones.stem import build_stem, ConvStem, PooledStem
from faster_core.policy.config import StemConfig

CONVOLUTIONS = (
    StemConfig(channels=16, kernel=4, stride=4),
    StemConfig(channels=16, kernel=3, stride=1),
)


def _pooled(seed=0, size=48, tokens=3, width=32):
    torch.manual_seed(seed)
    return PooledStem(CONVOLUTIONS, map_size=size // 4, grid=tokens, width=width)


def _square(x, y, size=48, side=8):
    image = torch.full((1, 3, size, size), -0.8)
    image[:, 0, y : y + side, x : x + side] = 1.0
    return image


def test_a_model_with_a_pooled_stem_sees_its_images():
    model = tiny_model(stem=({'channels': 16, 'kernel': 4, 'stride': 4},), pooling='attention')
    assert isinstance(model.backbone.vlm.vision_tower.embeddings.patch_embedding, PooledStem)
    pixels = observation()[0]
    features = model.backbone.vision(pixels)
    assert features.shape == (1, 2 * 4, 32)
    changed = pixels.clone()
    changed[:, 1, :8] = 255 - changed[:, 1, :8]
    difference = (model.backbone.vision(changed) - features).abs().amax(-1)[0]
    assert (difference[:4] == 0).all()
    assert (difference[4:] > 1e-4).all()


def test_pooling_keeps_the_shape_of_the_grid():
    assert _pooled()(torch.randn(2, 3, 48, 48)).shape == (2, 32, 3, 3)


def test_a_square_is_located_from_few_samples_to_a_fraction_of_a_cell():
    # What the stem is for: a linear read-out of its tokens tells where a square is, on places
    # that were never shown; a cell is 4 pixels wide.
    torch.manual_seed(0)
    stem, read = _pooled(), torch.nn.Linear(9 * 32, 2)
    parameters = [*stem.parameters(), *read.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(0, 41, (256, 2), generator=generator)
    images = torch.cat([_square(int(x), int(y)) for x, y in places])
    wanted = places / 20.0 - 1.0
    train, held = slice(0, 192), slice(192, 256)
    for _ in range(250):
        rows = torch.randint(0, 192, (32,), generator=generator)
        error = (read(stem(images[train][rows]).flatten(1)) - wanted[train][rows]).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    with torch.inference_mode():
        pixels = (read(stem(images[held]).flatten(1)) - wanted[held]).abs() * 20.0
    assert pixels.mean() < 2.0


def test_the_place_a_token_looks_at_is_part_of_it():
    stem = _pooled()
    with torch.no_grad():
        stem.look.weight.zero_()
        stem.feature.weight.zero_()
        stem.prior.zero_()
        stem.prior[0, 0] = 50.0  # the first cell
    tokens = stem(_square(20, 20)).flatten(2)[0]
    corner = torch.tensor([1 / 12 - 1, 1 / 12 - 1, 0.0, 0.0, 50.0 / 8.0])
    expected = stem.place(corner) + stem.feature.bias
    assert torch.allclose(tokens[:, 0], expected, atol=1e-2)
    assert not torch.allclose(tokens[:, 1], expected, atol=1e-2)


def test_without_pooling_the_last_convolution_is_linear():
    from tiny_checkpoint import MODEL

    from faster_core.policy.config import PolicyConfig

    stem = build_stem(PolicyConfig(**MODEL))
    assert isinstance(stem, ConvStem)
    assert isinstance(stem.layers[-1], torch.nn.Conv2d)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'pooling': 'mean'}, "pooling: expected one of grid, attention, found 'mean'"),
        ({'pooling': 'attention'}, 'needs a stem'),
        (
            {'pooling': 'attention', 'stem': ({'channels': 16, 'kernel': 3, 'stride': 3},)},
            'image_size 16 is not a multiple',
        ),
        (
            {'pooling': 'attention', 'stem': ({'channels': 12, 'kernel': 4, 'stride': 4},)},
            'channels 12: expected a multiple of 8',
        ),
    ],
)
def test_a_stem_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        tiny_model(**fields)
