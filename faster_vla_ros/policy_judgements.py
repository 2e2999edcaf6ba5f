"""Levels of the policy node's diagnostics: numbers in, OK / WARN / ERROR / STALE and why out."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE
# Steps of the plan that should be left when the next chunk is ready.
LEAST_STEPS = 2
# Share of the device's memory beyond which the next allocation may fail.
FULL = 0.9


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A level, the sentence for it, and the figures behind it."""

    level: bytes
    message: str = 'ok'
    values: dict[str, str] = dataclasses.field(default_factory=dict)


def judge_input(
    *,
    problem: str,
    seen: bool,
    age: float | None,
    rate: float | None,
    expected: float,
    warn_ratio: float,
) -> Judgement:
    """Judge a camera or a state source.

    Args:
        problem: why it is late or unusable; empty if it is not.
        seen: whether a usable message ever came.
        age: seconds since the newest usable message; None if there was none.
        rate: usable messages per second; None if unknown.
        expected: messages per second, at least: the action frequency of the embodiment.
        warn_ratio: share of it below which the rate is a warning.
    """
    values = {'expected_hz': f'{expected:.1f}'}
    if rate is not None:
        values['rate_hz'] = f'{rate:.1f}'
    if age is not None:
        values['age_ms'] = f'{age * 1e3:.0f}'
    if problem:
        return Judgement(ERROR if seen else STALE, problem, values)
    if rate is not None and rate < warn_ratio * expected:
        least = warn_ratio * expected
        return Judgement(WARN, f'{rate:.1f} Hz, expected at least {least:.1f} Hz', values)
    return Judgement(OK, values=values)


def judge_inference(
    durations: Sequence[float], *, warn: float, error: float, fault: str, counts: dict[str, int]
) -> Judgement:
    """Judge the duration of inferences.

    Args:
        durations: milliseconds of the newest ones.
        warn: seconds beyond which the 99th percentile is a warning.
        error: seconds beyond which it is an error.
        fault: why the inference thread has ended; empty if it has not.
        counts: reported as they are.
    """
    values = {name: str(count) for name, count in counts.items()}
    level, message = OK, 'ok'
    if len(durations):
        p99 = float(np.percentile(durations, 99))
        values = {
            'mean_ms': f'{np.mean(durations):.1f}',
            'p99_ms': f'{p99:.1f}',
            'max_ms': f'{max(durations):.1f}',
        } | values
        for name, bad, limit in (('warn', WARN, warn), ('error', ERROR, error)):
            if p99 > limit * 1e3:
                level = bad
                message = f'p99 {p99:.0f} ms is above latency.{name} ({limit * 1e3:.0f} ms)'
    if fault:
        level, message = ERROR, fault
    return Judgement(level, message, values)


def judge_coverage(left: Sequence[float], step_period: float) -> Judgement:
    """Judge how much of the plan was left when the next chunk was ready.

    Args:
        left: seconds, one per chunk since the last diagnosis; negative: it had run out.
        step_period: seconds.
    """
    if not len(left):
        return Judgement(OK, 'no chunk has followed another one')
    least = min(left)
    values = {'min_s': f'{least:.3f}', 'newest_s': f'{left[-1]:.3f}'}
    if least < 0.0:
        return Judgement(ERROR, f'the plan had run out for {-least:.3f} s', values)
    if least < LEAST_STEPS * step_period:
        text = f'{least:.3f} s of the plan were left, expected {LEAST_STEPS} steps at least'
        return Judgement(WARN, text, values)
    return Judgement(OK, values=values)


def judge_device(name: str, *, allocated: float, reserved: float, used: float) -> Judgement:
    """Judge the memory of the device that runs the policy.

    Args:
        name: of the device.
        allocated: MiB of this process in use.
        reserved: MiB of this process.
        used: share of the device's memory in use, by whomever.
    """
    values = {
        'device': name,
        'allocated_mib': f'{allocated:.0f}',
        'reserved_mib': f'{reserved:.0f}',
        'used': f'{used:.0%}',
    }
    if used > FULL:
        return Judgement(WARN, f'{used:.0%} of the memory of {name} is used', values)
    return Judgement(OK, values=values)
