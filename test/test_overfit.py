"""scripts/overfit_families.py: every backbone family learns 64 chunks by heart."""

import json
import sys

from project_files import ROOT
import pytest
from tiny_vlms import SPECIAL
import torch

sys.path.insert(0, str(ROOT))

from scripts import overfit_families

SMALL = 'small'


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize('family', [SMALL, *SPECIAL])
def test_every_family_learns_its_chunks_by_heart(tmp_path, family):
    parts = overfit_families.parts_of(family, tmp_path)
    found = overfit_families.overfit(parts)
    assert found['accuracy'] >= 0.99
    assert found['seconds'] < 600
    # Codes that nothing but the observation tells: hardly any is left out, and none is frequent.
    assert found['different_codes'] >= 0.9 * parts.model.layout.num_levels * 32


def _command(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['overfit_families.py', SMALL])
    status = overfit_families.main()
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_family_that_has_not_learnt_in_time_is_a_failure_and_still_reported(monkeypatch, capsys):
    monkeypatch.setattr(overfit_families, 'MAX_SECONDS', 0.0)
    status, report = _command(monkeypatch, capsys)
    assert status == 1
    assert report['families'][SMALL]['steps'] == 0
    assert report['families'][SMALL]['accuracy'] == 0.0


def test_the_share_of_right_codes_decides_when_it_ends(monkeypatch, capsys):
    monkeypatch.setattr(overfit_families, 'GOAL', 1e-6)
    status, report = _command(monkeypatch, capsys)
    assert status == 0
    row = report['families'][SMALL]
    assert row['steps'] == overfit_families.LOOK_EVERY
    assert 0.0 < row['accuracy'] < 0.5  # so soon by chance: one of 32
    assert report['chunks'] == overfit_families.CHUNKS
