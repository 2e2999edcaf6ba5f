"""The checkpoint folder: complete, checked, without pickle."""

import ast
import json
import pathlib
import shutil

import numpy as np
from project_files import module_name, python_files
import pytest
from tiny_checkpoint import make_tiny_checkpoint, tiny_parts, tiny_tokenizer
import torch

from faster_core.errors import CheckpointError
from faster_core.policy import checkpoint, Policy
from faster_core.policy.checkpoint import checkpoint_sha256, FORMAT, load, save
from faster_core.policy.checkpoint import FILES as COMMON_FILES
from faster_core.tokenizer import FasterVQ
from faster_core.tokenizer.config import FasterVQConfig

FILES = (*COMMON_FILES, 'tokenizer/model.safetensors')
EVERY_FILE = (*FILES, 'metadata.json')


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'tiny')


@pytest.fixture
def folder(original, tmp_path):
    return pathlib.Path(shutil.copytree(original, tmp_path / 'copy'))


def _edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def _sign(folder):
    """Make metadata.json agree with the files again, as a careful forger would."""
    _edit(
        folder / 'metadata.json',
        lambda v: v.update(files={name: checkpoint._sha256(folder / name) for name in FILES}),
    )


# --- round trip -----------------------------------------------------------------------------


def test_saved_and_loaded_policies_give_the_same_chunk(original):
    before, after = Policy(tiny_parts(), device='cpu'), Policy(load(original), device='cpu')
    example = before.make_example()
    assert np.array_equal(after.make_example().state, example.state)
    assert after.make_example().instruction == example.instruction
    chunk = after.predict(example)
    assert np.array_equal(chunk.values, before.predict(example).values)
    assert chunk.embodiment_checksum == before.embodiment.checksum


def test_every_weight_survives_exactly(original):
    expected = tiny_parts().model.state_dict()
    found = load(original).model.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[k], v) for k, v in expected.items())


def test_a_loaded_checkpoint_saves_to_the_same_bytes(original, tmp_path):
    save(tmp_path / 'again', load(original), {'train': {'steps': 0}})
    for name in EVERY_FILE:
        assert (tmp_path / 'again' / name).read_bytes() == (original / name).read_bytes(), name


def test_the_folder_moves_and_loads_through_a_relative_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load(folder.name).embodiment.name == 'r1_lite'


def test_metadata_tells_the_embodiment_and_what_the_caller_adds(original):
    metadata = json.loads((original / 'metadata.json').read_text())
    assert metadata['format'] == FORMAT
    assert metadata['embodiment'] == 'r1_lite'
    assert metadata['embodiment_sha256'] == load(original).embodiment.checksum
    assert metadata['train'] == {'steps': 0}


def test_the_embodiment_is_a_verbatim_copy(original):
    assert (original / 'embodiment.yaml').read_text() == load(original).embodiment.source


def test_the_checksum_of_a_checkpoint_changes_with_any_weight(original, tmp_path):
    assert checkpoint_sha256(original) != checkpoint_sha256(
        make_tiny_checkpoint(tmp_path / 'other', seed=1)
    )


# --- damage ---------------------------------------------------------------------------------


def _file(name):
    return name.replace('.', r'\.')


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match='nowhere'):
        load(tmp_path / 'nowhere')


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(CheckpointError, match='file'):
        load(tmp_path / 'file')


@pytest.mark.parametrize('name', EVERY_FILE)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=_file(name)):
        load(folder)


@pytest.mark.parametrize('name', EVERY_FILE)
def test_a_truncated_file_is_named(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=_file(name)):
        load(folder)


@pytest.mark.parametrize('name', EVERY_FILE)
def test_an_empty_file_is_named(folder, name):
    (folder / name).write_bytes(b'')
    with pytest.raises(CheckpointError, match=_file(name)):
        load(folder)


@pytest.mark.parametrize('where', [0.0, 0.5, 0.999])
@pytest.mark.parametrize('name', FILES)
def test_one_flipped_bit_is_noticed_and_its_file_named(folder, name, where):
    data = bytearray((folder / name).read_bytes())
    data[int(where * len(data))] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=_file(name)):
        load(folder)


@pytest.mark.parametrize('name', FILES)
def test_a_directory_in_place_of_a_file_is_named(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(CheckpointError, match=_file(name)):
        load(folder)


# --- metadata ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'change',
    [
        lambda v: v.update(format=FORMAT + 1),
        lambda v: v.update(format=str(FORMAT)),
        lambda v: v.pop('format'),
        lambda v: v.pop('files'),
        lambda v: v['files'].pop('config.json'),
        lambda v: v['files'].update({'../../etc/passwd': '0'}),
        lambda v: v.update(files=list(v['files'])),
        lambda v: v['files'].update({'config.json': 7}),
        lambda v: v['files'].update({'config.json': None}),
        lambda v: v.pop('embodiment_sha256'),
        lambda v: v.update(embodiment_sha256='0' * 64),
    ],
)
def test_wrong_metadata_is_refused_by_name(folder, change):
    _edit(folder / 'metadata.json', change)
    with pytest.raises(CheckpointError, match=r'metadata\.json'):
        load(folder)


@pytest.mark.parametrize('content', ['[]', 'null', '3', '"format"'])
def test_metadata_that_is_no_mapping_is_refused(folder, content):
    (folder / 'metadata.json').write_text(content)
    with pytest.raises(CheckpointError, match='format'):
        load(folder)


# --- parts that do not fit, with correct checksums ----------------------------------------------


def test_a_tokenizer_of_another_horizon_is_refused(folder):
    other = tiny_tokenizer()
    config = FasterVQConfig(
        horizon=16,
        group_sizes=other.config.group_sizes,
        slots_per_group=other.config.slots_per_group,
        patch_length=4,
    )
    FasterVQ(config, other.normalizer).save_pretrained(folder / 'tokenizer')
    _sign(folder)
    with pytest.raises(CheckpointError, match=r'tokenizer: made for chunks \[16, 21\]'):
        load(folder)


def test_a_tokenizer_with_more_codes_does_not_fit_the_policy(folder):
    tiny_tokenizer(codebook_size=48).save_pretrained(folder / 'tokenizer')
    _sign(folder)
    with pytest.raises(CheckpointError, match=r'model\.safetensors'):
        load(folder)


def test_another_embodiment_is_refused_even_with_correct_checksums(folder):
    file = folder / 'embodiment.yaml'
    file.write_text(file.read_text().replace('action_horizon: 32', 'action_horizon: 16'))
    _sign(folder)
    with pytest.raises(CheckpointError, match=r'embodiment\.yaml'):
        load(folder)


def test_an_embodiment_that_is_no_embodiment_is_refused(folder):
    (folder / 'embodiment.yaml').write_text('name: [')
    _sign(folder)
    with pytest.raises(CheckpointError, match=r'embodiment\.yaml'):
        load(folder)


@pytest.mark.parametrize(
    'change',
    [
        lambda v: v.update(speed='fast'),
        lambda v: v.pop('block_size'),
        lambda v: v.update(block_size=7),
        lambda v: v.update(state_encoding='sung'),
        lambda v: v['vision'].pop('image_size'),
        lambda v: v['text'].pop('head_dim'),
        lambda v: v['text'].update(hidden_size=64),
        lambda v: v['stem'][0].update(colour=3),
        lambda v: v.update(expert=None),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(folder, change):
    _edit(folder / 'config.json', change)
    _sign(folder)
    with pytest.raises(CheckpointError):
        load(folder)


def test_statistics_of_another_state_are_refused(folder):
    _edit(folder / 'normalization.json', lambda v: v['centre'].pop())
    _sign(folder)
    with pytest.raises(CheckpointError, match='state statistics'):
        load(folder)


def test_weights_of_another_model_are_refused(folder):
    shutil.copy(folder / 'tokenizer' / 'model.safetensors', folder / 'model.safetensors')
    _sign(folder)
    with pytest.raises(CheckpointError, match=r'model\.safetensors'):
        load(folder)


# --- no pickle ----------------------------------------------------------------------------------


def test_a_checkpoint_holds_json_yaml_and_safetensors_only(original):
    files = [p for p in original.rglob('*') if p.is_file()]
    assert len(files) == len(EVERY_FILE)
    assert {p.suffix for p in files} == {'.json', '.yaml', '.safetensors'}


def _pickles(source):
    """Return lines that read or write pickle: the modules, torch's files, numpy's objects."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split('.')[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or '').split('.')[0]]
            if node.module == 'torch':
                names += ['dill' for alias in node.names if alias.name in ('load', 'save')]
        if {'pickle', 'cPickle', 'cloudpickle', 'dill', 'joblib', 'shelve', 'marshal'} & {*names}:
            lines.append(node.lineno)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in {('torch', 'load'), ('torch', 'save')}:
                lines.append(node.lineno)
        if isinstance(node, ast.keyword) and node.arg == 'allow_pickle':
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                lines.append(node.value.lineno)
    return lines


@pytest.mark.parametrize(
    'source',
    [
        'import pickle',
        'from pickle import loads',
        'import torch\ntorch.load("x")',
        'import torch\nstore = torch.save',
        'from torch import load',
        'import numpy as np\nnp.load("x", allow_pickle=True)',
        'import numpy as np\nnp.load("x", allow_pickle=flag)',
    ],
)
def test_the_pickle_finder_finds(source):
    assert _pickles(source)


def test_the_pickle_finder_lets_safe_files_pass():
    assert not _pickles('import numpy as np\nnp.load("x", allow_pickle=False)\njson.load(f)')


@pytest.mark.parametrize('path', python_files('faster_core'), ids=module_name)
def test_module_reads_and_writes_no_pickle(path):
    assert not _pickles(path.read_text(encoding='utf-8'))
