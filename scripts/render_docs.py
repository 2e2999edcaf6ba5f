#!/usr/bin/env python3
"""Fills the generated parts of the documentation; `--check` only says whether they are up to date.

A generated part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`: parameter tables in
docs/ros.md come from the tables the nodes check against, the file tree in README.md from the first
line of every file's docstring, and measured figures from the reports in docs/results/. What makes
them stands in scripts/generated and beside the measurements in scripts/reliability.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.generated import parameter_tables, policy_tables, tokenizer_tables  # noqa: E402
from scripts.generated.file_tree import file_tree  # noqa: E402
from scripts.reliability.tables import table as reliability_table  # noqa: E402

PARTS: dict[str, dict[str, Callable[[], str]]] = {
    'README.md': {
        'success': policy_tables.success_table,
        'controls': policy_tables.control_table,
        'latency': policy_tables.latency_table,
        'tokenizers': tokenizer_tables.tokenizer_table,
        'file tree': file_tree,
    },
    'docs/tokenizer.md': {
        'comparison': tokenizer_tables.comparison,
        'times': tokenizer_tables.tokenizer_times,
    },
    'docs/policy.md': {
        'engines': policy_tables.engine_agreement,
        'speed': policy_tables.speed_table,
    },
    'docs/remote.md': {
        'overhead': policy_tables.remote_table,
    },
    'docs/training.md': {
        'overfit': policy_tables.overfit_table,
    },
    'docs/execution.md': {
        'guard parameters': parameter_tables.guard_parameters,
    },
    'docs/reliability.md': {
        name: functools.partial(reliability_table, name)
        for name in ('failures', 'failures_arms', 'fuzz', 'jitter', 'motion', 'overhead', 'soak')
    },
    'docs/simulators.md': {
        'mujoco_robot parameters': parameter_tables.simulated_robot_parameters,
    },
    'docs/ros.md': {
        'policy_node parameters': parameter_tables.policy_parameters,
        'action_dispatcher parameters': parameter_tables.dispatcher_parameters,
    },
}


def rendered(name: str) -> str:
    """Return a documentation file with its generated parts renewed.

    Raises:
        ValueError: a part's markers are missing.
    """
    text = (ROOT / name).read_text(encoding='utf-8')
    for part, make in PARTS[name].items():
        begin, end = f'<!-- begin {part} -->', f'<!-- end {part} -->'
        if begin not in text or end not in text:
            raise ValueError(f'{name}: no markers of {part!r}')
        pattern = re.compile(f'{re.escape(begin)}.*?{re.escape(end)}', re.DOTALL)
        new = f'{begin}\n{make()}\n{end}'
        text = pattern.sub(lambda _, new=new: new, text)
    return text


def main() -> int:
    """Write the files, or check them; 1 if a checked one is out of date."""
    check, old = '--check' in sys.argv[1:], []
    for name in PARTS:
        new = rendered(name)
        if new != (ROOT / name).read_text(encoding='utf-8'):
            old.append(name)
            if not check:
                (ROOT / name).write_text(new, encoding='utf-8')
    print(f'{"out of date" if check else "renewed"}: {", ".join(old) or "nothing"}')
    return 1 if check and old else 0


if __name__ == '__main__':
    sys.exit(main())
