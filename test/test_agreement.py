"""`faster-vla bench agreement`: engines against the oracle on recorded observations."""

import json

import numpy as np
import pytest
from tiny_checkpoint import make_tiny_checkpoint, write_demos

from faster_core.errors import ConfigError
from faster_core.evaluation.speed.agreement import agreement, recorded
from faster_core.policy import engines
from faster_core.policy.engines.plain import StaticEngine


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp('agreement') / 'tiny')


@pytest.fixture(scope='module')
def demos(tmp_path_factory):
    return write_demos(tmp_path_factory.mktemp('demos'), episodes=4, steps=6)


class _Off(StaticEngine):
    """One code of the third block is another one."""

    name = 'off'

    def decode(self, sampling, **options):
        tokens = super().decode(sampling, **options).clone()
        place = 2 * self.model.block_size + 3
        level = tokens[0, place] // self.model.layout.codebook_size
        size = self.model.layout.codebook_size
        tokens[0, place] = level * size + (tokens[0, place] - level * size + 1) % size
        return tokens


def test_observations_are_spread_over_the_episodes(demos):
    found = list(recorded(demos, 8))
    assert len(found) == 8
    assert len({o.instruction for o in found}) == 4
    assert len({o.state.tobytes() for o in found}) == 8
    assert len(list(recorded(demos, 3))) == 3


def test_an_engine_that_does_the_same_is_counted_so(folder, demos):
    seen = []
    report = agreement(folder, ['static'], recorded(demos, 8), lambda: seen.append(1))
    row = report['engines']['static']
    assert report['observations'] == len(seen) == row['same'] == 8
    assert (row['close'], row['wrong'], row['cases']) == (0, 0, [])
    assert row['error'] < 1e-5


@pytest.mark.parametrize(('margin', 'kind'), [(1e-3, 'wrong'), (1e3, 'close')])
def test_a_code_that_differs_is_counted_and_listed_with_its_margin(
    folder, demos, monkeypatch, margin, kind
):
    monkeypatch.setitem(engines.ENGINES, 'off', _Off)
    monkeypatch.setattr('faster_core.evaluation.speed.agreement.MARGIN', margin)
    row = agreement(folder, ['off'], recorded(demos, 4))['engines']['off']
    assert row[kind] == 4
    assert row['same'] == 0
    assert [c['block'] for c in row['cases']] == [2] * 4
    assert all(np.isfinite(c['margin']) and c['margin'] > 1e-3 for c in row['cases'])


def test_a_folder_without_episodes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match='no episodes'):
        list(recorded(tmp_path, 3))


def test_the_command_fails_if_an_engine_is_wrong(folder, demos, monkeypatch, capsys):
    from faster_vla_ros.cli import main

    arguments = ['bench', 'agreement', '--checkpoint', str(folder), '--episodes', str(demos)]
    arguments += ['--iterations', '4', '--json']
    assert main([*arguments, '--engines', 'static']) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report['engines']['static']['same'] == 4
    monkeypatch.setitem(engines.ENGINES, 'off', _Off)
    assert main([*arguments, '--engines', 'off']) == 1
