"""`faster-vla policy train`: FASTerVLA on a folder of demonstrations."""

import argparse
import json


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `policy` command."""
    policy = subparsers.add_parser('policy', help='train the policy')
    commands = policy.add_subparsers(dest='policy_command', required=True)
    train = commands.add_parser('train', help='train FASTerVLA on a folder of demonstrations')
    train.add_argument('config', help='YAML file, e.g. config/train/r1_lite_policy.yaml')
    train.add_argument('--demos', required=True, nargs='+', help='folders of episodes')
    train.add_argument('--tokenizer', required=True, help='folder of the trained tokenizer')
    train.add_argument('--out', required=True, help='run folder; a second run resumes')
    train.add_argument('--json', action='store_true', help='one JSON object as the last line')
    train.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    import os
    import pathlib

    from tqdm import tqdm
    import yaml

    from faster_core.config import from_mapping
    from faster_core.policy.train import train
    from faster_core.policy.train_config import PolicyTrainConfig
    from faster_core.provenance import git_commit

    values = yaml.safe_load(pathlib.Path(args.config).read_text(encoding='utf-8'))
    config = from_mapping(PolicyTrainConfig, values, source=args.config)
    metadata = {'config': pathlib.Path(args.config).name, 'commit': git_commit()}
    last: dict[str, float] = {}
    first = os.environ.get('RANK', '0') == '0'  # of the processes of torchrun one speaks
    with tqdm(
        total=100.0, unit='%', disable=not first, bar_format='{l_bar}{bar}| {elapsed}{postfix}'
    ) as bar:
        for row in train(config, args.demos, args.tokenizer, args.out, metadata):
            bar.update(100.0 * row.get('progress', 0.0) - bar.n)
            if len(row) > 2:
                last |= row
                bar.set_postfix({k: f'{v:.4g}' for k, v in last.items() if k != 'progress'})
    if not first:
        return 0
    summary = {**last, 'checkpoint': f'{args.out}/checkpoint'}
    print(json.dumps(summary) if args.json else summary)
    return 0
