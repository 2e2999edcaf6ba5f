"""`faster-vla draft-robot URDF`: a first draft of embodiment and robot file."""

from __future__ import annotations

import argparse
import pathlib
import re

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError, FasterVlaError
from faster_core.execution.config import DispatcherConfig
from faster_vla_ros.draft import files, urdf
from faster_vla_ros.draft.files import Draft
from faster_vla_ros.draft.layout import layout

_NAME = re.compile(r'[a-z][a-z0-9_]*\Z')


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `draft-robot` command."""
    parser = subparsers.add_parser(
        'draft-robot', help='embodiment and robot file of your own robot, drafted from its URDF'
    )
    parser.add_argument('urdf', type=pathlib.Path, help='file, xacro expanded')
    parser.add_argument('--name', required=True, help='of the robot: a-z, 0-9, _')
    parser.add_argument(
        '--arm',
        action='append',
        default=[],
        metavar='LINK',
        help='last link of an arm, its sliding joints included, once per arm; default: the chain '
        'with most turning joints',
    )
    parser.add_argument(
        '--camera',
        action='append',
        default=[],
        metavar='ID',
        help='once per camera, the first is the reference; default: scene, wrist',
    )
    parser.add_argument('--base', action='store_true', help='it drives: vx, vy, wz')
    parser.add_argument('--rate', type=float, default=15.0, help='rows of a chunk per second')
    parser.add_argument('--horizon', type=int, default=20, help='rows of a chunk')
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path(), help='folder')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if not _NAME.match(args.name):
        raise ConfigError(f'--name: expected a-z, 0-9 and _, found {args.name!r}')
    robot = urdf.load(args.urdf)
    draft = Draft(
        name=args.name,
        parts=layout(robot, args.arm),
        cameras=args.camera or ['scene', 'wrist'],
        base=args.base,
        frequency=args.rate,
        horizon=args.horizon,
    )
    _refuse_ambiguous(draft)
    texts = {
        args.out / f'{args.name}_embodiment.yaml': files.embodiment_text(draft),
        args.out / f'{args.name}_robot.yaml': files.robot_text(draft),
    }
    _write(texts)
    left = _unused(robot, draft)
    for path, text in texts.items():
        print(f'wrote {path}; to be answered:')
        for line in files.todo_lines(text) or ['nothing']:
            print(f'  {line}')
    if left:
        print(f'left out, no arm and no gripper: {", ".join(left)}')
    print('then: docs/robots.md, "Bring your own robot"')
    return 0


def _refuse_ambiguous(draft: Draft) -> None:
    """Refuse what the policy node would: an id is one camera, or one component.

    Raises:
        ConfigError: names the camera.
    """
    parts = {p.name for p in draft.parts}
    for camera in draft.cameras:
        if camera in parts:
            raise ConfigError(
                f'--camera {camera}: expected another name than those of the parts of the robot '
                f'({", ".join(sorted(parts))})'
            )


def _write(texts: dict[pathlib.Path, str]) -> None:
    """Write both files or none, and over nothing.

    Raises:
        ConfigError, EmbodimentError: one is there already, cannot be written, or would be refused.
    """
    if there := [p for p in texts if p.exists()]:
        raise ConfigError(f'{there[0]} is there already: nothing is overwritten, give --out')
    written: list[pathlib.Path] = []
    try:
        for path, text in texts.items():
            with path.open('x', encoding='utf-8') as file:
                written.append(path)
                file.write(text)
        # As the dispatcher reads them: a draft that it refuses would be no help.
        embodiment, robot = texts
        DispatcherConfig.load(robot, Embodiment.load(embodiment))
    except (OSError, FasterVlaError) as e:
        for path in written:
            path.unlink()
        if isinstance(e, OSError):
            raise ConfigError(f'{e.filename}: {e.strerror}') from e
        raise


def _unused(robot: urdf.Robot, draft: Draft) -> list[str]:
    used = {j.name for p in draft.parts for j in p.joints}
    return [j.name for j in robot.joints.values() if j.moves and j.name not in used]
