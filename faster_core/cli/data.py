"""`faster-vla data prepare|info`: motions for training and comparing action tokenizers."""

import argparse
import json

# Of how a set was made.
SHOWN = ('attempts', 'failed', 'repeated', 'messages', 'repeated_messages')


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `data` command."""
    data = subparsers.add_parser('data', help='motions for action tokenizers (docs/data.md)')
    commands = data.add_subparsers(dest='data_command', required=True)
    prepare = commands.add_parser('prepare', help='generate or convert a set of motions, once')
    prepare.add_argument('source', help='metaworld, aloha, r1_lite, g1 or franka')
    prepare.add_argument('--input', help='the recordings, for sources that read some')
    prepare.add_argument('--config', help='YAML file of fields that differ from the published set')
    prepare.add_argument('--out', required=True, help='folder of the set')
    prepare.add_argument('--json', action='store_true', help='one JSON object as the last line')
    prepare.set_defaults(run=_prepare)
    info = commands.add_parser('info', help='what a folder holds, checked against its checksums')
    info.add_argument('folder')
    info.set_defaults(run=_info)


def _prepare(args: argparse.Namespace) -> int:
    import functools
    import time

    from tqdm import tqdm

    from faster_core.data.prepare import configuration, prepare

    config = configuration(args.source, _values(args), source=args.config or 'the command line')
    start = time.perf_counter()
    track = functools.partial(tqdm, desc=args.source)
    motions, kept = prepare(args.source, config, args.out, track)
    if kept:
        print(f'{args.out} holds this set already; nothing done')
    summary = motions.summary() | {
        'folder': args.out,
        'kept': kept,
        **{k: v for k, v in motions.provenance.items() if k in SHOWN},
        'seconds': round(time.perf_counter() - start, 1),
    }
    print(json.dumps(summary) if args.json else summary)
    return 0


def _values(args: argparse.Namespace) -> dict:
    """Return the fields of the configuration that the command line names."""
    import pathlib

    import yaml

    from faster_core.errors import ConfigError

    values = {}
    if args.config:
        try:
            values = yaml.safe_load(pathlib.Path(args.config).read_text(encoding='utf-8')) or {}
        except (OSError, ValueError, yaml.YAMLError) as e:
            raise ConfigError(f'{args.config}: {e}') from e
        if not isinstance(values, dict):
            raise ConfigError(f'{args.config}: expected a mapping, found {type(values).__name__}')
    return values | ({'input': args.input} if args.input else {})


def _info(args: argparse.Namespace) -> int:
    from faster_core.data.motions import MotionSet

    motions = MotionSet.load(args.folder)
    print(json.dumps(motions.summary() | {'columns': motions.columns()}, indent=1))
    return 0
