"""`faster-vla bench`: latency of the policy alone; `bench policy` compares engines and heads."""

import argparse
import json

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
    parser.add_argument('--episodes', default='', help='of agreement: folder of *.npz')
    parser.add_argument('--dtype', default='auto', help='of policy: auto, float32, bfloat16')
    parser.add_argument('--figure', default='', help='of policy: PNG with stacked bars')
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


def _run(args: argparse.Namespace) -> int:
    return {POLICY: _compare, AGREEMENT: _agreement, CHECKPOINT: _checkpoint}[args.what](args)


def _agreement(args: argparse.Namespace) -> int:
    import sys

    import torch
    from tqdm import tqdm

    from faster_core import paths
    from faster_core.evaluation.machine import describe_machine, num_cores
    from faster_core.evaluation.speed.agreement import agreement, recorded
    from faster_core.evaluation.speed.measure import available_engines
    from faster_core.policy.checkpoint import checkpoint_sha256
    from faster_core.provenance import git_commit

    torch.set_num_threads(args.threads or num_cores())
    folder = args.checkpoint or paths.demo_checkpoint()
    engines = tuple(filter(None, args.engines.split(',')))
    engines = engines or tuple(available_engines(torch.device('cpu')))
    with tqdm(total=args.iterations, unit='observation', file=sys.stderr) as bar:
        report = agreement(
            folder,
            [name for name in engines if name != 'eager'],
            recorded(args.episodes, args.iterations),
            on_observation=bar.update,
        )
    report |= {
        'checkpoint_sha': checkpoint_sha256(folder),
        'machine': describe_machine(),
        'git_sha': git_commit() or None,
    }
    if args.json:
        print(json.dumps(report, allow_nan=False))
    else:
        for name, row in report['engines'].items():
            print(f'{name}: {row["same"]} of {report["observations"]} the same, ', end='')
            print(f'{row["close"]} differ where eager is undecided, {row["wrong"]} elsewhere')
    return int(any(row['wrong'] for row in report['engines'].values()))


def _compare(args: argparse.Namespace) -> int:
    import sys

    from tqdm import tqdm

    from faster_core.errors import ConfigError
    from faster_core.evaluation.speed.report import draw, table
    from faster_core.evaluation.speed.run import compare

    with tqdm(total=args.iterations, unit='round', file=sys.stderr) as bar:
        report = compare(
            args.preset,
            small=args.small,
            checkpoint=args.checkpoint,
            engines=tuple(filter(None, args.engines.split(','))),
            heads=tuple(filter(None, args.heads.split(','))),
            device=args.device,
            dtype=args.dtype,
            threads=args.threads,
            runs=args.iterations,
            on_round=bar.update,
        )
    # First, and at once: whatever becomes of the figure, the measurement is not lost.
    print(json.dumps(report, allow_nan=False) if args.json else table(report), flush=True)
    if args.figure:
        try:
            draw(report, args.figure)
        except (OSError, ValueError) as e:
            raise ConfigError(f'--figure: cannot write {args.figure}: {e}') from e
    return 0


def _checkpoint(args: argparse.Namespace) -> int:
    import pathlib
    import sys

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
