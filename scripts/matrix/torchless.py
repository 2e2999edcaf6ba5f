"""Pytest plugin: what asks for torch, or what builds on it, is skipped where it was left out.

Loaded by name in cells without torch (`-p torchless`). Only a missing module named in
`cells.WITHOUT_TORCH` skips; any other missing module fails, as everywhere.
"""

from __future__ import annotations

import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from cells import WITHOUT_TORCH

MODULES = frozenset(WITHOUT_TORCH.values())


def reason(text: str) -> str | None:
    """Return why an error whose traceback ends with `text` is a skip; None: it is a failure."""
    missing = re.findall(r"ModuleNotFoundError: No module named '([\w.]+)'", text)
    if missing and missing[-1].split('.')[0] in MODULES:
        return f'needs {missing[-1].split(".")[0]}'
    return None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Skip a test file that imports what was left out."""
    report = yield
    if report.outcome == 'failed':
        why = reason(str(report.longrepr))
        if why:
            report.outcome = 'skipped'
            report.longrepr = (str(collector.path), 0, f'Skipped: {why}')
            report.result = []
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Skip a test that imports what was left out while it runs."""
    report = yield
    if report.outcome == 'failed' and isinstance(call.excinfo.value, ModuleNotFoundError):
        why = reason(f'ModuleNotFoundError: {call.excinfo.value}')
        if why:
            report.outcome = 'skipped'
            report.longrepr = (str(item.path), item.location[1] or 0, f'Skipped: {why}')
    return report
