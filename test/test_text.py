"""Instructions as token ids: what is understood, what is refused and why."""

import json
import re

import numpy as np
import pytest
from tiny_checkpoint import INSTRUCTIONS

from faster_core.errors import CheckpointError, InstructionError
from faster_core.policy.text import NUM_STATE_BINS, TextEncoder

ENCODER = TextEncoder.train(INSTRUCTIONS, max_tokens=14)
UNKNOWN = 1


def _length(text):
    return int(ENCODER.encode(text)[1].sum())


def test_every_task_is_accepted_and_encoded_without_unknown_words():
    for text in INSTRUCTIONS:
        ENCODER.check(text)
        ids, valid = ENCODER.encode(text)
        assert ids.shape == valid.shape == (14,)
        assert ids.dtype == np.int64 and valid.dtype == np.bool_
        assert UNKNOWN not in ids[valid]
        assert (ids[~valid] == 0).all()
        assert valid.sum() == 1 + len(text.split())


def test_different_instructions_have_different_ids():
    assert len({tuple(ENCODER.encode(t)[0]) for t in INSTRUCTIONS}) == len(INSTRUCTIONS)


@pytest.mark.parametrize(
    'text',
    [
        'Pick UP the Red block',
        '  pick up   the red block ',
        'pick up the red block.',
        'pick up, the red block!!',
        'pick\tup the\nred block',
        'pick up the red block',  # full width
    ],
)
def test_case_spaces_punctuation_and_width_do_not_matter(text):
    ENCODER.check(text)
    assert np.array_equal(ENCODER.encode(text)[0], ENCODER.encode('pick up the red block')[0])


def test_saved_and_loaded_encoders_agree(tmp_path):
    ENCODER.save(tmp_path / 'text.json')
    loaded = TextEncoder.load(tmp_path / 'text.json', 14)
    assert loaded.vocab_size == ENCODER.vocab_size
    assert loaded.first_state_bin == ENCODER.first_state_bin
    for text in (*INSTRUCTIONS, 'unknown words here', '<state3> red'):
        assert np.array_equal(loaded.encode(text)[0], ENCODER.encode(text)[0])


def test_training_twice_gives_the_same_file(tmp_path):
    ENCODER.save(tmp_path / 'a.json')
    TextEncoder.train(reversed(INSTRUCTIONS), 14).save(tmp_path / 'b.json')
    assert (tmp_path / 'a.json').read_bytes() == (tmp_path / 'b.json').read_bytes()


def test_state_bins_are_consecutive_ids_below_the_words():
    words = {i for t in INSTRUCTIONS for i in ENCODER.encode(t)[0] if i > 2}
    assert ENCODER.first_state_bin == 3
    assert min(words) >= ENCODER.first_state_bin + NUM_STATE_BINS
    assert max(words) < ENCODER.vocab_size


def test_a_few_unknown_words_are_accepted_as_unknown():
    ENCODER.check('pick up the shiny red block')
    assert (ENCODER.encode('pick up the shiny red block')[0] == UNKNOWN).sum() == 1


@pytest.mark.parametrize('text', ['', ' ', '\n\t', '...', '!?', '\u3000'])
def test_an_instruction_without_words_is_refused(text):
    with pytest.raises(InstructionError):
        ENCODER.check(text)


@pytest.mark.parametrize(
    'text',
    [
        'make me a sandwich',
        'asdf qwerty zxcv',
        'schnapp dir den roten klotz',
        '🤖🤖🤖',
        '\x00\x01\x02',
        'pick up sandwich quickly',
        '%s %d {} ../../etc/passwd',
    ],
)
def test_nonsense_is_refused_with_the_number_of_unknown_words(text):
    with pytest.raises(InstructionError, match=r'too few words .*\d+ of \d+'):
        ENCODER.check(text)


def test_the_message_names_the_unknown_words():
    with pytest.raises(InstructionError, match=r'2 of 3 are unknown \(Make, sandwich\)'):
        ENCODER.check('Make the sandwich')


@pytest.mark.parametrize(
    'text', ['<pad> <pad>', '<state1> <state2> <state3>', '<bos>', '<unk> <unk>']
)
def test_names_of_special_tokens_are_words_nobody_taught(text):
    with pytest.raises(InstructionError, match='unknown'):
        ENCODER.check(text)
    ids = ENCODER.encode(text + ' red')[0]
    assert (ids == 2).sum() == 1
    assert not ((ids >= 3) & (ids < 3 + NUM_STATE_BINS)).any()


def test_too_many_known_words_are_refused_with_both_counts():
    with pytest.raises(InstructionError, match=r'20 words, at most 13'):
        ENCODER.check(' '.join(['red'] * 20))


def test_the_longest_accepted_instruction_is_not_cut():
    ENCODER.check(' '.join(['red'] * 13))
    assert _length(' '.join(['red'] * 13)) == 14
    with pytest.raises(InstructionError):
        ENCODER.check(' '.join(['red'] * 14))


def test_ten_kilobytes_are_refused_with_both_counts():
    with pytest.raises(InstructionError, match='10000 characters, at most 512'):
        ENCODER.check('red ' * 2500)


def test_known_words_make_an_accepted_example():
    ENCODER.check(ENCODER.known_words())


# --- files ----------------------------------------------------------------------------------


def _saved(tmp_path):
    path = tmp_path / 'text_tokenizer.json'
    ENCODER.save(path)
    return path


@pytest.mark.parametrize(
    'content', [b'', b'{}', b'[1, 2]', b'null', b'not json', b'\xff\xfe\x00', b'{"model": 3}']
)
def test_a_malformed_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / 'text_tokenizer.json'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'text_tokenizer\.json'):
        TextEncoder.load(path, 14)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match='nowhere'):
        TextEncoder.load(tmp_path / 'nowhere.json', 14)


def test_a_truncated_file_is_refused(tmp_path):
    path = _saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        TextEncoder.load(path, 14)


@pytest.mark.parametrize('token', ['<unk>', '<state0>'])
def test_a_tokenizer_without_our_special_tokens_is_refused(tmp_path, token):
    path = _saved(tmp_path)
    values = json.loads(path.read_text())
    values['model']['vocab']['something'] = values['model']['vocab'].pop(token)
    values['added_tokens'] = [t for t in values['added_tokens'] if t['content'] != token]
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError):
        TextEncoder.load(path, 14)
