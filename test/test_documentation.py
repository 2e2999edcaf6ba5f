"""What README and docs say about files, parameters and figures is what the project has."""

import pathlib
import re
import subprocess
import sys

from project_files import ROOT
import pytest

from faster_core.sim.tasks import TASKS
from faster_vla_ros.cli import COMMANDS

PAGES = sorted([ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')])


@pytest.mark.ros
def test_generated_parts_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / 'scripts' / 'render_docs.py', '--check'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page):
    targets = re.findall(r'\]\((?!https?:)([^)#]+)', page.read_text(encoding='utf-8'))
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_readme_names_every_instruction_of_the_demo():
    text = (ROOT / 'README.md').read_text(encoding='utf-8').replace('\n', ' ')
    missing = [t.instruction for t in TASKS.values() if t.instruction not in text]
    assert missing in ([], ['pick up the green block with the right hand'])
    assert 'with the right hand' in text


def test_commands_in_the_documentation_exist():
    for page in PAGES:
        text = page.read_text(encoding='utf-8')
        for name in re.findall(r'faster-vla ([a-z]+(?:-[a-z]+)*)', text):
            assert name in COMMANDS, f'{page.name}: faster-vla {name}'


def test_make_targets_in_the_documentation_exist():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = set(re.findall(r'^([a-z-]+):', makefile, re.MULTILINE))
    for page in PAGES:
        # Only commands: lines of code blocks and inline code.
        for name in re.findall(r'(?:^|`)make ([a-z-]+)', page.read_text(encoding='utf-8'), re.M):
            assert name in targets, f'{page.name}: make {name}'


def test_no_file_names_a_path_of_one_machine():
    listed = subprocess.run(
        ['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    suffixes = {'.py', '.md', '.yaml', '.json', '.toml', '.txt', '.sh', '.cfg', ''}
    own = pathlib.Path(__file__).name
    # Split, so that this line does not find itself.
    pattern = re.compile('/(' + '|'.join(('work', 'farm', 'root')) + ')/')
    found = [
        name
        for name in listed
        if pathlib.Path(name).suffix in suffixes
        and pathlib.Path(name).name != own
        and (ROOT / name).is_file()
        and pattern.search((ROOT / name).read_text(encoding='utf-8'))
    ]
    assert found == []
