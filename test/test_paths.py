"""Where shipped files are found, and which source a result says it came from."""

import re
import subprocess

import pytest

from faster_core import paths, provenance


@pytest.fixture
def package_at(monkeypatch):
    def move(folder):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(paths, '_PACKAGE', folder)
        paths.share_dir.cache_clear()

    yield move
    paths.share_dir.cache_clear()


def test_shipped_embodiment_is_found():
    assert paths.embodiment_file('r1_lite').is_file()


def test_unknown_embodiment_names_the_shipped_ones():
    with pytest.raises(FileNotFoundError, match=r"no embodiment 'r2'.*r1_lite"):
        paths.embodiment_file('r2')


def test_installed_prefix_is_found_from_site_packages(tmp_path, package_at):
    shared = tmp_path / 'share' / 'faster_vla_ros'
    (shared / 'config' / 'embodiments').mkdir(parents=True)
    package_at(tmp_path / 'lib' / 'python3' / 'site-packages' / 'faster_core')
    assert paths.share_dir() == shared


def test_source_tree_wins_over_a_prefix_further_up(tmp_path, package_at):
    (tmp_path / 'share' / 'faster_vla_ros' / 'config' / 'embodiments').mkdir(parents=True)
    (tmp_path / 'src' / 'config' / 'embodiments').mkdir(parents=True)
    package_at(tmp_path / 'src' / 'faster_core')
    assert paths.share_dir() == tmp_path / 'src'


def test_incomplete_installation_is_a_clear_error(tmp_path, package_at):
    package_at(tmp_path / 'faster_core')
    with pytest.raises(FileNotFoundError, match='installation is incomplete'):
        paths.share_dir()


def test_assets_ship_inside_the_package():
    assert paths.demo_checkpoint().is_relative_to(paths.assets_dir())
    assert paths.assets_dir().parent.name == 'faster_core'


def _git(folder, *args):
    identity = ('-c', 'user.name=t', '-c', 'user.email=t@example.org')
    subprocess.run(['git', *identity, *args], cwd=folder, check=True, capture_output=True)


def test_commit_of_a_clean_tree_is_40_digits_and_changes_are_said(tmp_path, monkeypatch):
    source = tmp_path / 'provenance.py'
    source.write_text('first')
    _git(tmp_path, 'init')
    _git(tmp_path, 'add', '.')
    _git(tmp_path, 'commit', '-m', 'first')
    monkeypatch.setattr(provenance, '__file__', str(source))
    assert re.fullmatch('[0-9a-f]{40}', provenance.git_commit())
    source.write_text('second')
    assert re.fullmatch(r'[0-9a-f]{40}\+changes', provenance.git_commit())


def test_outside_of_a_source_tree_the_commit_is_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, '__file__', str(tmp_path / 'provenance.py'))
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    monkeypatch.delenv('FASTER_VLA_COMMIT', raising=False)
    assert provenance.git_commit() == ''
    monkeypatch.setenv('PATH', str(tmp_path))  # no git at all
    assert provenance.git_commit() == ''


def test_a_copy_without_history_is_told_its_commit_and_a_repository_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv('FASTER_VLA_COMMIT', 'abc123')
    monkeypatch.setattr(provenance, '__file__', str(tmp_path / 'provenance.py'))
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    assert provenance.git_commit() == 'abc123'
    _git(tmp_path, 'init')
    _git(tmp_path, 'commit', '--allow-empty', '-m', 'first')
    assert re.fullmatch('[0-9a-f]{40}', provenance.git_commit())
