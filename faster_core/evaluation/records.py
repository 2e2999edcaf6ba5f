"""One line per episode on disk (JSONL), and two such files compared episode by episode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import json
import pathlib
from typing import Any, Protocol

from faster_core.config import from_mapping
from faster_core.errors import ConfigError
from faster_core.evaluation.run import POLICY
from faster_core.evaluation.statistics import mcnemar_p


class Outcome(Protocol):
    """What `EpisodeResult` and its twin through ROS have in common."""

    seed: int
    task: str
    success: bool
    seconds: float
    num_chunks: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One line of the file.

    Attributes:
        seconds: simulated time until success or the limit.
        who: what was evaluated: 'policy', 'swapped', 'other_images', a baseline, 'changed'.
        via_ros: through the ROS graph.
    """

    seed: int
    task: str
    success: bool
    seconds: float
    chunks: int
    who: str
    via_ros: bool

    @classmethod
    def of(cls, result: Outcome, *, who: str, via_ros: bool) -> EpisodeRecord:
        """Take from a result what the file keeps."""
        return cls(
            seed=result.seed,
            task=result.task,
            success=bool(result.success),
            seconds=round(float(result.seconds), 3),
            chunks=result.num_chunks,
            who=who,
            via_ros=via_ros,
        )


@contextlib.contextmanager
def record_writer(path: str | pathlib.Path | None) -> Iterator[Callable[[EpisodeRecord], None]]:
    """Give a function that writes a record at once: what is done survives a later failure.

    Args:
        path: new file, an old one is replaced, its folder is created; None writes nothing.

    Raises:
        ConfigError: the file cannot be written.
    """
    if path is None:
        yield lambda record: None
        return
    try:
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open('w', encoding='utf-8')
    except OSError as e:
        raise ConfigError(f'cannot write episodes: {e}') from e
    with file:

        def write(record: EpisodeRecord) -> None:
            file.write(json.dumps(dataclasses.asdict(record)) + '\n')
            file.flush()

        yield write


def read_records(path: str | pathlib.Path) -> list[EpisodeRecord]:
    """Read what `record_writer` wrote.

    Raises:
        ConfigError: the file cannot be read, or a line is not a record; names the line.
    """
    try:
        lines = pathlib.Path(path).read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f'cannot read episodes of {path}: {e}') from e
    records = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
        except ValueError as e:
            raise ConfigError(f'{path}:{number}: {e}') from e
        records.append(from_mapping(EpisodeRecord, values, source=f'{path}:{number}'))
    return records


def paired(here: Sequence[EpisodeRecord], there: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Compare the policy's episodes with the same seed and task in two files.

    Returns:
        'pairs'; 'difference' of the success rates, here minus there; 'only_here', 'only_there':
        pairs in which only that one succeeded; 'mcnemar_p'. Without a pair all but 'pairs' are
        None.
    """
    ours, theirs = _by_episode(here), _by_episode(there)
    both = ours.keys() & theirs.keys()
    if not both:
        return dict.fromkeys(('difference', 'only_here', 'only_there', 'mcnemar_p')) | {'pairs': 0}
    only_here = sum(ours[k] and not theirs[k] for k in both)
    only_there = sum(theirs[k] and not ours[k] for k in both)
    return {
        'pairs': len(both),
        'difference': round((only_here - only_there) / len(both), 4),
        'only_here': only_here,
        'only_there': only_there,
        'mcnemar_p': round(mcnemar_p(only_here, only_there), 4),
    }


def _by_episode(records: Sequence[EpisodeRecord]) -> dict[tuple[int, str], bool]:
    return {(r.seed, r.task): r.success for r in records if r.who == POLICY}
