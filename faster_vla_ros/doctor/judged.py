"""Which files a graph is judged against, where the user has not said so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import pathlib
from typing import Any

from faster_core import paths
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError, EmbodimentError
from faster_core.execution.config import robot_file_parameters
from faster_vla_ros.doctor.expected import DISPATCHER
from faster_vla_ros.doctor.nodes import differences
from faster_vla_ros.doctor.report import Finding, info
from faster_vla_ros.graph_robots import DUAL_ARM, R1LITE_WBC, Robot, SINGLE_ARM

DEFAULT = 'r1_lite.yaml'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """Robot file, checkpoint (or embodiment file), and the rows that say why these."""

    robot_file: pathlib.Path
    source: pathlib.Path
    findings: tuple[Finding, ...]


def choose(
    robot_file: pathlib.Path | None,
    source: pathlib.Path | None,
    running: Mapping[str, Any] | None,
) -> Judged:
    """Choose what was not given by what the dispatcher runs with; else take the defaults.

    Args:
        robot_file: that was given, or None.
        source: checkpoint folder or embodiment file that was given, or None.
        running: parameters of the dispatcher; None if none runs.

    Raises:
        ConfigError: it runs with a robot of the user's own, whose file cannot be known.
    """
    embodiment = _embodiment(running or {})
    file, why = robot_file, 'given'
    if file is None and running:
        file, why = _nearest(running, embodiment), 'nearest to what the dispatcher runs with'
    elif file is None:
        file, why = _folder() / DEFAULT, 'the default: no dispatcher runs'
        if running is not None:
            why = 'the default: the dispatcher tells no parameters'
    findings = [
        info(
            'files',
            'robot',
            f'{file}: {why}',
            '' if robot_file else 'give --params FILE if it is another',
        )
    ]
    why = 'given'
    if source is None and embodiment is not None:
        source, why = _source(pathlib.Path(running['embodiment'])), 'what the dispatcher runs with'
    elif source is None:
        source, why = _shipped(file), 'the default for this robot file'
    findings.append(info('files', 'checkpoint', f'{source}: {why}'))
    return Judged(robot_file=file, source=source, findings=tuple(findings))


def _folder() -> pathlib.Path:
    return paths.share_dir() / 'config' / 'robots'


def _robots() -> Iterator[tuple[Robot, pathlib.Path]]:
    """Yield every shipped robot with each of its files, the real one's first."""
    for kind in (SINGLE_ARM, DUAL_ARM, R1LITE_WBC):
        for robot in kind.robots:
            played = (s.parameter_file for s in robot.simulated.values())
            for name in dict.fromkeys((robot.parameter_file, *played)):
                yield robot, _folder() / name


def _embodiment(running: Mapping[str, Any]) -> Embodiment | None:
    """Return the embodiment of a dispatcher; None if its file is not on this computer."""
    try:
        return Embodiment.load(pathlib.Path(running.get('embodiment') or ''))
    except EmbodimentError:
        return None


def _nearest(running: Mapping[str, Any], embodiment: Embodiment | None) -> pathlib.Path:
    found = {}
    for robot, file in _robots():
        own = Embodiment.load(paths.embodiment_file(robot.embodiment)).name
        number = len(list(differences(robot_file_parameters(file, DISPATCHER), running)))
        # Without the embodiment only a file that agrees in everything is sure to be the robot's.
        if own == embodiment.name if embodiment is not None else not number:
            found[file] = number
    if not found:
        raise ConfigError(
            f'the dispatcher runs with {running.get("embodiment")}, which is of no shipped robot: '
            'give the robot file with --params'
        )
    return min(found, key=found.__getitem__)


def _source(embodiment: pathlib.Path) -> pathlib.Path:
    folder = embodiment.parent
    whole = embodiment.name == 'embodiment.yaml' and (folder / 'metadata.json').is_file()
    return folder if whole else embodiment


def _shipped(file: pathlib.Path) -> pathlib.Path:
    """Return the shipped embodiment for a robot file; else the checkpoint of the R1 Lite."""
    demos = [r.name for r in R1LITE_WBC.robots]
    for robot, own in _robots():
        if own.resolve() == file.resolve() and robot.name not in demos:
            return paths.embodiment_file(robot.embodiment)
    return paths.demo_checkpoint()
