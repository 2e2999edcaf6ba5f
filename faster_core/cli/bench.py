"""`faster-vla bench`: latency of the policy alone; `bench policy` compares engines and heads."""

import argparse
import contextlib
import json
import math
import pathlib
import sys
import time
from typing import Any

from faster_core.errors import ConfigError

POLICY, CHECKPOINT, AGREEMENT = 'policy', 'checkpoint', 'agreement'


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `bench` command."""
    parser = subparsers.add_parser('bench', help='latency of the policy alone')
    parser.add_argument(
        'what',
        nargs='?',
        default=CHECKPOINT,
        choices=[CHECKPOINT, POLICY, AGREEMENT],
        help='one checkpoint with one engine; policy: all engines and heads, interleaved; '
        'agreement: whether engines give the codes of eager on recorded episodes',
    )
    parser.add_argument('--checkpoint', default='', help='folder; default: the shipped one')
    parser.add_argument('--engine', default='auto', help='of a checkpoint: auto, eager, static, …')
    parser.add_argument(
        '--preset', default='demo', help='of policy: demo, paper_single, paper_whole_body'
    )
    parser.add_argument(
        '--small', action='store_true', help='of policy: the same shape with a small backbone'
    )
    parser.add_argument('--engines', default='', help='of policy: names, comma-separated')
    parser.add_argument('--heads', default='', help='of policy: block,token,fast,bins,flow')
    parser.add_argument(
        '--only',
        action='append',
        default=[],
        type=_only,
        metavar='ENGINE=HEADS',
        help='of policy: an engine that runs these heads only, e.g. eager=block,flow',
    )
    parser.add_argument('--episodes', default='', help='of agreement: folder of *.npz')
    parser.add_argument('--dtype', default='auto', help='of policy: auto, float32, bfloat16')
    parser.add_argument('--figure', default='', help='of policy: PNG with stacked bars')
    parser.add_argument(
        '--out', default='', help='of policy and agreement: the JSON; of policy kept up to date'
    )
    parser.add_argument(
        '--seconds',
        type=_positive,
        default=None,
        help='of policy and agreement: begin nothing new after so long; fewer inferences count',
    )
    parser.add_argument('--iterations', type=_positive, default=200, help='inferences that count')
    parser.add_argument('--threads', type=_positive, default=None, help='default: all cores')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, …')
    parser.add_argument('--json', action='store_true', help='one JSON object as the last line')
    parser.set_defaults(run=_run)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number > 0, found {text!r}')
    return value


def _only(text: str) -> tuple[str, tuple[str, ...]]:
    engine, separator, heads = text.partition('=')
    if not (engine and separator and heads):
        raise argparse.ArgumentTypeError(f'expected ENGINE=HEADS, found {text!r}')
    return engine, tuple(filter(None, heads.split(',')))


def _deadline(args: argparse.Namespace) -> float:
    """Return when to begin nothing new (`time.monotonic`, seconds)."""
    return time.monotonic() + (math.inf if args.seconds is None else args.seconds)


def _write(report: dict[str, Any] | None, path: str) -> None:
    """Write JSON; a half-written file never carries the final name.

    Args:
        report: None: only find out whether it could be written.
        path: of the file; empty: nothing is written.

    Raises:
        ConfigError: it cannot be written.
    """
    if not path:
        return
    file = pathlib.Path(path)
    partial = file.with_name(f'{file.name}.partial')
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(report, allow_nan=False) + '\n', encoding='utf-8')
        partial.unlink() if report is None else partial.replace(file)
    except OSError as e:
        raise ConfigError(f'--out: cannot write {path}: {e}') from e


def _run(args: argparse.Namespace) -> int:
    return {POLICY: _compare, AGREEMENT: _agreement, CHECKPOINT: _checkpoint}[args.what](args)


def _agreement(args: argparse.Namespace) -> int:
    deadline = _deadline(args)
    import itertools

    import torch
    from tqdm import tqdm

    from faster_core import paths
    from faster_core.evaluation.machine import describe_machine, describe_software, num_cores
    from faster_core.evaluation.speed.agreement import agreement, recorded
    from faster_core.evaluation.speed.measure import available_engines
    from faster_core.policy.checkpoint import checkpoint_sha256
    from faster_core.policy.policy import choose_device
    from faster_core.provenance import git_commit

    torch.set_num_threads(args.threads or num_cores())
    folder = args.checkpoint or paths.demo_checkpoint()
    engines = tuple(filter(None, args.engines.split(',')))
    engines = engines or tuple(available_engines(choose_device(args.device)))
    observations = recorded(args.episodes, args.iterations)
    _write(None, args.out)
    with tqdm(total=args.iterations, unit='observation', file=sys.stderr) as bar:
        report = agreement(
            folder,
            [name for name in engines if name != 'eager'],
            itertools.takewhile(lambda _: time.monotonic() < deadline, observations),
            on_observation=bar.update,
            device=args.device,
        )
    report |= {
        **describe_software(),
        'checkpoint_sha': checkpoint_sha256(folder),
        'machine': describe_machine(),
        'git_sha': git_commit() or None,
    }
    if args.json:
        print(json.dumps(report, allow_nan=False), flush=True)
    else:
        for name, row in report['engines'].items():
            print(f'{name}: {row["same"]} of {report["observations"]} the same, ', end='')
            print(f'{row["close"]} differ where eager is undecided, {row["wrong"]} elsewhere')
    _write(report, args.out)
    _say_skipped(report)
    wrong = any(row['wrong'] for row in report['engines'].values())
    return int(wrong or bool(report['skipped']))


def _compare(args: argparse.Namespace) -> int:
    deadline = _deadline(args)
    from tqdm import tqdm

    from faster_core.evaluation.speed.report import draw, table
    from faster_core.evaluation.speed.run import compare

    _write(None, args.out)  # minutes later would be late to learn that it cannot be

    def keep(report: dict[str, Any]) -> None:
        with contextlib.suppress(ConfigError):  # at the end it is said, after the report
            _write(report, args.out)

    with tqdm(total=args.iterations, unit='round', file=sys.stderr) as bar:
        report = compare(
            args.preset,
            small=args.small,
            checkpoint=args.checkpoint,
            engines=tuple(filter(None, args.engines.split(','))),
            heads=tuple(filter(None, args.heads.split(','))),
            only=dict(args.only),
            device=args.device,
            dtype=args.dtype,
            threads=args.threads,
            runs=args.iterations,
            deadline=deadline,
            on_round=bar.update,
            on_report=keep,
        )
    # First, and at once: whatever becomes of the figure, the measurement is not lost.
    print(json.dumps(report, allow_nan=False) if args.json else table(report), flush=True)
    _write(report, args.out)
    _say_skipped(report)
    if report['n_runs'] < args.iterations:
        print(f'{report["n_runs"]} of {args.iterations} rounds were run', file=sys.stderr)
    if args.figure:
        try:
            draw(report, args.figure)
        except (OSError, ValueError) as e:
            raise ConfigError(f'--figure: cannot write {args.figure}: {e}') from e
    # What was asked for by name must be there; what is not installed here need not.
    return int(bool(args.engines and report['skipped']))


def _say_skipped(report: dict[str, Any]) -> None:
    for name, reason in report['skipped'].items():
        print(f'left out: {name}: {reason}', file=sys.stderr)


def _checkpoint(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from faster_core import paths
    from faster_core.evaluation.latency import measure, summarize_latency, WARMUP
    from faster_core.evaluation.machine import describe_machine, num_cores
    from faster_core.policy import checkpoint, Policy
    from faster_core.provenance import git_commit

    torch.set_num_threads(args.threads or num_cores())
    folder = pathlib.Path(args.checkpoint or paths.demo_checkpoint())
    parts = checkpoint.load(folder)
    policy = Policy(parts, device=args.device, engine=args.engine)
    with tqdm(total=args.iterations, unit='inference', file=sys.stderr) as bar:
        timings = measure(policy, iterations=args.iterations, on_run=bar.update)
    model, weight = parts.model, parts.model.head.weight
    report = {
        'robot': parts.embodiment.name,
        'engine': policy.engine,
        **summarize_latency(timings),
        'warmup': WARMUP,
        'parameters': {
            'policy': sum(p.numel() for p in model.parameters()),
            'tokenizer': sum(p.numel() for p in parts.tokenizer.model.parameters()),
        },
        'cameras': len(parts.embodiment.cameras),
        'image_size': policy.image_size,
        'tokens': model.num_tokens,
        'blocks': model.num_blocks,
        'device': str(weight.device),
        'dtype': str(weight.dtype).removeprefix('torch.'),
        'threads': torch.get_num_threads(),
        'machine': describe_machine(),
        'checkpoint_sha': checkpoint.checkpoint_sha256(folder),
        'git_sha': git_commit() or None,
    }
    print(json.dumps(report, allow_nan=False) if args.json else _table(report))
    return 0


def _table(report: dict) -> str:
    rows = {name.removesuffix('_ms'): values for name, values in report['stages_ms'].items()}
    lines = [f'{"milliseconds":<14}' + ''.join(f'{name:>9}' for name in ('p50', 'p95', 'p99'))]
    for name, values in rows.items():
        numbers = ''.join(f'{values[q]:9.2f}' for q in ('p50', 'p95', 'p99'))
        lines.append(f'{name:<14}{numbers}')
    lines.append(
        f'{report["iterations"]} inferences, {report["cameras"]} cameras of '
        f'{report["image_size"]} pixels, {report["tokens"]} tokens in {report["blocks"]} blocks, '
        f'{report["parameters"]["policy"]:,} parameters, {report["device"]} {report["dtype"]}, '
        f'{report["threads"]} threads'
    )
    return '\n'.join(lines)
