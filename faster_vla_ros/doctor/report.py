"""What the doctor found: one row per check and subject, as a table of 100 columns or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import enum
import json
import textwrap

WIDTH = 100
_NARROW = 36  # columns before what was found
_LABELS = (('expected', 'expected'), ('advice', 'do'))


class Verdict(enum.Enum):
    """How a check ended; only FAIL makes the exit status 1."""

    OK = 'OK'
    INFO = 'INFO'
    WARN = 'WARN'
    FAIL = 'FAIL'


@dataclasses.dataclass(frozen=True)
class Finding:
    """One row.

    Attributes:
        verdict: how it ended.
        check: what was looked at, one word.
        subject: of what: a camera, a component, a node.
        found: what is there.
        expected: what should be there; empty if it is.
        advice: what to do; empty if there is nothing to do.
    """

    verdict: Verdict
    check: str
    subject: str
    found: str
    expected: str = ''
    advice: str = ''


def ok(check: str, subject: str, found: str) -> Finding:
    """Return a row of what is as it should be."""
    return Finding(Verdict.OK, check, subject, found)


def info(check: str, subject: str, found: str, advice: str = '') -> Finding:
    """Return a row of what is worth knowing and neither right nor wrong."""
    return Finding(Verdict.INFO, check, subject, found, '', advice)


def warn(check: str, subject: str, found: str, *, expected: str, advice: str) -> Finding:
    """Return a row of what works and should be looked at."""
    return Finding(Verdict.WARN, check, subject, found, expected, advice)


def fail(check: str, subject: str, found: str, *, expected: str, advice: str) -> Finding:
    """Return a row of what keeps the robot from working, or makes it move wrongly."""
    return Finding(Verdict.FAIL, check, subject, found, expected, advice)


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 1 if anything failed, else 0."""
    return int(any(f.verdict is Verdict.FAIL for f in findings))


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Return verdict -> number of rows."""
    return {v.value: sum(f.verdict is v for f in findings) for v in Verdict}


def to_json(findings: Sequence[Finding], proposal: Sequence[str]) -> str:
    """Return everything as one JSON object."""
    return json.dumps(
        {
            'ok': not exit_status(findings),
            'counts': counts(findings),
            'findings': [dataclasses.asdict(f) | {'verdict': f.verdict.value} for f in findings],
            'proposal': list(proposal),
        },
        indent=2,
    )


def to_table(findings: Sequence[Finding], proposal: Sequence[str]) -> str:
    """Return aligned columns, the proposal and a closing line that counts."""
    lines = [line for f in findings for line in _rows(f)]
    if proposal:
        lines += ['', 'Drawn from the URDF, for the robot parameter file (check before use):']
        lines += [f'  {line}' for line in proposal]
    number = counts(findings)
    lines += ['', ', '.join(f'{number[v.value]} {v.value}' for v in reversed(Verdict))]
    return '\n'.join(lines)


def _rows(f: Finding) -> list[str]:
    head = f'{f.verdict.value:<5}{f.check:<12}{f.subject:<18} '
    text = f.found
    # A long name pushes its text to the right, never onto a line of its own.
    lines = _wrapped(text, head)
    for field, label in _LABELS:
        if value := getattr(f, field):
            lines += _wrapped(value, f'{"":<{_NARROW - 10}}{label:>8}: ')
    return lines


def _wrapped(text: str, head: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=' ' * _NARROW,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head.rstrip()]
