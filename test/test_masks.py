"""Attention masks against a loop over every pair of tokens."""

import pytest
import torch

from faster_core.policy.masks import action_mask, block_causal_mask, prefix_mask

CPU = torch.device('cpu')


@pytest.mark.parametrize(('num_tokens', 'block_size'), [(6, 1), (12, 3), (12, 12), (10, 4)])
def test_action_tokens_see_their_block_and_earlier_ones(num_tokens, block_size):
    mask = block_causal_mask(num_tokens, block_size, CPU)
    assert mask.shape == (num_tokens, num_tokens)
    for query in range(num_tokens):
        for key in range(num_tokens):
            assert bool(mask[query, key]) == (key // block_size <= query // block_size)


def test_block_size_one_is_the_ordinary_causal_mask():
    assert torch.equal(block_causal_mask(7, 1, CPU), torch.ones(7, 7).tril().bool())


def test_one_block_sees_everything():
    assert block_causal_mask(7, 7, CPU).all()


def test_the_prefix_sees_every_valid_token_and_no_padding():
    valid = torch.tensor([[True, True, False, True], [True, False, False, True]])
    mask = prefix_mask(valid)
    assert mask.shape == (2, 1, 4, 4)
    for b in range(2):
        for query in range(4):
            assert mask[b, 0, query].tolist() == valid[b].tolist()


def test_action_tokens_see_the_valid_prefix_then_the_block_causal_part():
    valid = torch.tensor([[True, False, True], [True, True, True]])
    mask = action_mask(valid, 6, 2)
    assert mask.shape == (2, 1, 6, 9)
    for b in range(2):
        for query in range(6):
            for key in range(9):
                causal = (key - 3) // 2 <= query // 2
                expected = bool(valid[b, key]) if key < 3 else causal
                assert bool(mask[b, 0, query, key]) == expected


def test_no_action_token_is_without_anything_to_attend_to():
    mask = action_mask(torch.tensor([[True] + [False] * 5]), 8, 4)
    assert mask.any(dim=-1).all()
