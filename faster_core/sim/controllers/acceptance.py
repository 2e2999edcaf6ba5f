"""Which `trajectory_msgs/JointTrajectory` a joint_trajectory_controller accepts.

The rules of `JointTrajectoryController::validate_trajectory_msg`, in upstream's order (the first
broken rule is the reason). What upstream does not look at is accepted here too: values that are
not finite, a joint named twice, a first point at or before now, positions beyond the joint's
limits, any speed. Whoever sends must check those itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from faster_core.sim.controllers.trajectory import nanoseconds, Point

# std::numeric_limits<float>::epsilon(), what upstream calls a velocity of zero.
EPSILON = 2.0**-23


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What a controller is configured to accept.

    Attributes:
        joints: the controller's joints.
        allow_partial_joints_goal: parameter of that name.
        allow_nonzero_velocity_at_trajectory_end: parameter of that name.
        stamp_before_names: Humble looks at the stamp before it looks at joints and velocities.
    """

    joints: Sequence[str]
    allow_partial_joints_goal: bool = False
    allow_nonzero_velocity_at_trajectory_end: bool = False
    stamp_before_names: bool = False


def reason_to_reject(
    names: Sequence[str], points: Sequence[Point], stamp: float, now: float, rules: Rules
) -> str:
    """Return '' for a message the controller accepts, else the broken rule with the values.

    Args:
        names: `joint_names`.
        points: `points`.
        stamp: `header.stamp` in seconds; 0: start at once.
        now: the controller's clock in seconds.
        rules: how the controller is configured.
    """
    if not rules.allow_partial_joints_goal and len(names) != len(rules.joints):
        return f'joint_names: expected all {len(rules.joints)} joints, found {len(names)}'
    if not len(names):
        return 'joint_names: empty'
    if not len(points):
        return 'points: empty'
    checks: list[Callable[[], str]] = [
        lambda: _unknown_joint(names, rules.joints),
        lambda: _moves_at_the_end(names, points, rules),
    ]
    late = lambda: _ends_in_the_past(points, stamp, now)  # noqa: E731
    checks.insert(0 if rules.stamp_before_names else len(checks), late)
    checks.append(lambda: _bad_point(len(names), points))
    return next((reason for check in checks if (reason := check())), '')


def _unknown_joint(names: Sequence[str], joints: Sequence[str]) -> str:
    unknown = [n for n in names if n not in joints]
    return f'joint_names: {unknown[0]!r} is none of {", ".join(joints)}' if unknown else ''


def _moves_at_the_end(names: Sequence[str], points: Sequence[Point], rules: Rules) -> str:
    if rules.allow_nonzero_velocity_at_trajectory_end:
        return ''
    for i, v in enumerate(_values(points[-1].velocities)):
        if abs(v) > EPSILON:
            joint = names[i] if i < len(names) else f'#{i}'
            return f'velocities: expected zero at the last point, found {v:.6g} of {joint}'
    return ''


def _ends_in_the_past(points: Sequence[Point], stamp: float, now: float) -> str:
    if stamp == 0.0:
        return ''
    end = nanoseconds(stamp) + nanoseconds(points[-1].time_from_start)
    if end < nanoseconds(now):
        return f'header.stamp: the trajectory ended {now - end / 1e9:.3f} s ago'
    return ''


def _bad_point(num_names: int, points: Sequence[Point]) -> str:
    previous = None
    for i, point in enumerate(points):
        time = nanoseconds(point.time_from_start)
        if previous is not None and time <= previous:
            return (
                f'time_from_start: expected to increase strictly, found {previous / 1e9:.6f} s '
                f'and {time / 1e9:.6f} s at points {i - 1} and {i}'
            )
        previous = time
        for field in ('positions', 'velocities', 'accelerations'):
            size = len(_values(getattr(point, field)))
            if size != num_names and (size or field == 'positions'):
                return f'{field}: expected {num_names} values at point {i}, found {size}'
        if len(_values(point.effort)):
            return f'effort: expected none at point {i} of a position controller'
    return ''


def _values(field: Sequence[float] | None) -> Sequence[float]:
    return () if field is None else field
