"""`faster-vla demos collect`: demonstrations of the scripted expert."""

import argparse
import json

import yaml


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `demos` command."""
    demos = subparsers.add_parser('demos', help='collect demonstrations in simulation')
    commands = demos.add_subparsers(dest='demos_command', required=True)
    collect = commands.add_parser('collect', help='let the scripted expert solve tasks')
    collect.add_argument('config', help='YAML file, e.g. config/train/r1_lite_demos.yaml')
    collect.add_argument('--out', required=True, help='folder of episodes; a second run resumes')
    collect.add_argument('--workers', type=int, default=2, help='processes')
    collect.add_argument('--json', action='store_true', help='one JSON object as the last line')
    collect.set_defaults(run=_collect)
    means = commands.add_parser('means', help='mean trajectories, for the baseline of `eval`')
    means.add_argument('demos', help='folder of episodes')
    means.add_argument('--out', required=True, help='.npz file')
    means.set_defaults(run=_means)


def _means(args: argparse.Namespace) -> int:
    from faster_core.evaluation.baselines import mean_trajectories, save_means

    means = mean_trajectories(args.demos)
    save_means(means, args.out)
    print(json.dumps({'file': args.out, 'rows': {text: len(m) for text, m in means.items()}}))
    return 0


def _collect(args: argparse.Namespace) -> int:
    import pathlib
    import time

    from tqdm import tqdm

    from faster_core.config import from_mapping
    from faster_core.sim.demos import collect, DemoConfig

    text = pathlib.Path(args.config).read_text(encoding='utf-8')
    config = from_mapping(DemoConfig, yaml.safe_load(text), source=args.config)
    start = time.perf_counter()
    done: dict[str, list[int]] = {task: [] for task in config.episodes}
    with tqdm(total=sum(config.episodes.values()), unit='episode') as bar:
        for result in collect(config, args.out, args.workers):
            done[result['task']].append(result['steps'])
            bar.update()
        bar.total = bar.n
    summary = {
        'episodes': sum(bool(s) for steps in done.values() for s in steps),
        'failed': sum(not s for steps in done.values() for s in steps),
        'steps': sum(s for steps in done.values() for s in steps),
        'expert_success': {
            t: sum(map(bool, steps)) / len(steps) for t, steps in done.items() if steps
        },
        'seconds': round(time.perf_counter() - start, 1),
    }
    print(json.dumps(summary) if args.json else summary)
    return 0
