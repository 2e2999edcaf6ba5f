"""`faster-vla tokenizer train|eval`: FASTerVQ on recorded actions."""

import argparse
import json


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `tokenizer` command."""
    tokenizer = subparsers.add_parser('tokenizer', help='train or evaluate the action tokenizer')
    commands = tokenizer.add_subparsers(dest='tokenizer_command', required=True)
    train = commands.add_parser('train', help='train FASTerVQ on a folder of demonstrations')
    train.add_argument('config', help='YAML file, e.g. config/train/r1_lite_tokenizer.yaml')
    train.add_argument('--demos', required=True, help='folder of episodes')
    train.add_argument('--out', required=True, help='run folder; a second run resumes')
    train.add_argument('--json', action='store_true', help='one JSON object as the last line')
    train.set_defaults(run=_train)
    evaluate = commands.add_parser('eval', help='reconstruction error on held-out episodes')
    evaluate.add_argument('path', help='tokenizer folder, e.g. runs/tokenizer/checkpoint')
    evaluate.add_argument('--demos', required=True, help='folder of episodes')
    evaluate.add_argument('--embodiment', default=None, help='file of the robot')
    evaluate.add_argument('--every', type=int, default=20, help='take every n-th episode')
    evaluate.add_argument('--json', action='store_true', help='one JSON object as the last line')
    evaluate.set_defaults(run=_evaluate)


def _train(args: argparse.Namespace) -> int:
    import pathlib

    from tqdm import tqdm
    import yaml

    from faster_core.config import from_mapping
    from faster_core.tokenizer.train import TokenizerTrainConfig, train

    values = yaml.safe_load(pathlib.Path(args.config).read_text(encoding='utf-8'))
    config = from_mapping(TokenizerTrainConfig, values, source=args.config)
    last: dict[str, float] = {}
    with tqdm(total=config.steps, unit='step') as bar:
        for row in train(config, args.demos, args.out):
            bar.update(int(row.pop('step')) - bar.n)
            if row:
                last = row
                bar.set_postfix({k: f'{v:.4f}' for k, v in row.items()})
    summary = {'steps': config.steps, **last, 'checkpoint': f'{args.out}/checkpoint'}
    print(json.dumps(summary) if args.json else summary)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from faster_core import paths
    from faster_core.embodiment import Embodiment
    from faster_core.tokenizer.evaluate import evaluate
    from faster_core.tokenizer.faster_vq import FasterVQ
    from faster_core.tokenizer.train import held_out_chunks

    path = args.embodiment or paths.embodiment_file('r1_lite')
    embodiment = Embodiment.load(path)
    tokenizer = FasterVQ.from_pretrained(args.path)
    reference = tokenizer.config.reference
    chunks = held_out_chunks(args.demos, embodiment, args.every, reference)
    report = {
        'chunks': len(chunks),
        **evaluate(tokenizer, embodiment, chunks),
    }
    print(json.dumps(report) if args.json else json.dumps(report, indent=2))
    return 0
