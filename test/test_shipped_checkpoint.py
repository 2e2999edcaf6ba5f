"""The checkpoint that ships with the package: loads, is small, decodes as its slow twin does."""

import json
import re

import numpy as np
import pytest
from tiny_checkpoint import home_state, INSTRUCTIONS, r1_lite
import torch

from faster_core import paths
from faster_core.decoding.blockwise import decode
from faster_core.decoding.oracle import decode_tokenwise
from faster_core.decoding.sampling import SamplingConfig
from faster_core.observation import Observation
from faster_core.policy import Policy

FOLDER = paths.demo_checkpoint()


@pytest.fixture(scope='module')
def policy():
    return Policy.from_pretrained(FOLDER, device='cpu')


@pytest.fixture(scope='module')
def metadata():
    return json.loads((FOLDER / 'metadata.json').read_text())


def _observations(policy, count):
    rng = np.random.default_rng(0)
    size = policy.image_size
    for k in range(count):
        # Smooth random pictures: blocks of colour, as in the simulator, not white noise.
        coarse = rng.integers(0, 256, (len(policy.embodiment.cameras), 6, 6, 3), dtype=np.uint8)
        images = coarse.repeat(-(-size // 6), axis=1).repeat(-(-size // 6), axis=2)
        yield Observation(
            images=dict(
                zip(policy.embodiment.cameras, images[:, :size, :size].copy(), strict=True)
            ),
            state=(home_state() + rng.normal(0.0, 0.1, 21)).astype(np.float32),
            instruction=INSTRUCTIONS[k % len(INSTRUCTIONS)],
        )


def test_it_is_for_the_shipped_embodiment_file(policy, metadata):
    assert policy.embodiment.checksum == r1_lite().checksum
    assert metadata['embodiment_sha256'] == r1_lite().checksum


def test_it_takes_at_most_16_megabytes():
    assert sum(p.stat().st_size for p in FOLDER.rglob('*') if p.is_file()) <= 16e6


def test_it_holds_json_yaml_and_safetensors_only():
    suffixes = {p.suffix for p in FOLDER.rglob('*') if p.is_file()}
    assert suffixes == {'.json', '.yaml', '.safetensors'}


def test_it_understands_every_instruction_of_the_simulator(policy):
    for instruction in INSTRUCTIONS:
        policy.check_instruction(instruction)


def test_cached_blocks_give_the_codes_of_uncached_single_tokens(policy):
    model = policy._model
    with torch.inference_mode():
        for observation in _observations(policy, 20):
            inputs = policy._inputs(observation)
            prefix = model.encode(
                model.backbone.vision(inputs.pixels),
                inputs.text_ids,
                inputs.text_valid,
                inputs.state,
            )
            model.prepare(prefix)
            fast = decode(model, prefix, sampling=SamplingConfig())
            assert torch.equal(fast, decode_tokenwise(model, prefix))


def test_chunks_start_near_where_the_robot_is(policy):
    # A trained policy continues from the state it sees; an untrained one would not know it.
    arms = np.r_[0:6, 7:13]
    rng = np.random.default_rng(0)
    for observation in _observations(policy, 5):
        state = home_state() + rng.normal(0.0, 0.02, 21).astype(np.float32)
        near = Observation(
            images=observation.images, state=state, instruction=observation.instruction
        )
        first = policy.predict(near).values[0]
        assert np.abs(first[arms] - state[arms]).mean() < 0.3


def test_different_instructions_give_different_chunks(policy):
    observation = next(_observations(policy, 1))
    codes = set()
    for instruction in INSTRUCTIONS:
        other = Observation(
            images=observation.images, state=observation.state, instruction=instruction
        )
        codes.add(policy.predict(other).codes.tobytes())
    assert len(codes) > 3


def test_metadata_tells_where_it_comes_from(metadata):
    train = metadata['train']
    assert train['steps'] > 0 and train['samples'] > 0 and train['episodes'] > 0
    assert train['minutes'] > 0
    assert re.match(r'[0-9a-f]{40}', train['commit'])
    assert (paths.share_dir() / 'config' / 'train' / train['config']).is_file()


def test_no_file_tells_the_paths_of_the_machine_it_was_made_on():
    for file in FOLDER.rglob('*.json'):
        text = file.read_text(encoding='utf-8')
        values = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
        if file.name != 'text_tokenizer.json':
            assert not [v for v in values if v.startswith(('/', '~', 'C:'))], file.name
        assert not re.search(r'/(work|home|root|tmp|Users)/', text), file.name
