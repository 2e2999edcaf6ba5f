"""`faster-vla tokenizer`: train, evaluate, time and compare action tokenizers."""

import argparse
import json

from faster_core.cli import study


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `tokenizer` command."""
    tokenizer = subparsers.add_parser('tokenizer', help='train or evaluate the action tokenizer')
    commands = tokenizer.add_subparsers(dest='tokenizer_command', required=True)
    train = commands.add_parser('train', help='train FASTerVQ or a learned rival')
    train.add_argument('config', help='YAML file, e.g. config/train/r1_lite_tokenizer.yaml')
    _add_data(train, 'give it several times to train one model on several robots')
    train.add_argument('--out', required=True, help='run folder; a second run resumes')
    train.add_argument('--json', action='store_true', help='one JSON object as the last line')
    train.set_defaults(run=_train)
    evaluate = commands.add_parser('eval', help='reconstruction error on held-out episodes')
    evaluate.add_argument('path', help='tokenizer folder of any kind')
    _add_data(evaluate, 'of the robot the tokenizer is for')
    evaluate.add_argument('--split', default='held_out', help='train, held_out or held_out_task')
    evaluate.add_argument('--stride', type=int, default=1, help='rows between two chunks')
    evaluate.add_argument('--json', action='store_true', help='one JSON object as the last line')
    evaluate.set_defaults(run=_evaluate)
    bench = commands.add_parser('bench', help='times of the presets and of the quantiser')
    bench.add_argument('--threads', type=int, default=1, help='of torch')
    bench.add_argument('--json', action='store_true', help='one JSON object as the last line')
    bench.set_defaults(run=_bench)
    study.add_parsers(commands)


def _add_data(parser: argparse.ArgumentParser, note: str) -> None:
    parser.add_argument(
        '--data',
        required=True,
        action='append',
        help=f'motion set (`faster-vla data prepare`) or folder of demonstrations; {note}',
    )


def _train(args: argparse.Namespace) -> int:
    import pathlib

    from tqdm import tqdm
    import yaml

    from faster_core.config import from_mapping
    from faster_core.tokenizer.train import train
    from faster_core.tokenizer.train_config import TokenizerTrainConfig

    values = yaml.safe_load(pathlib.Path(args.config).read_text(encoding='utf-8'))
    config = from_mapping(TokenizerTrainConfig, values, source=args.config)
    last: dict[str, float] = {}
    with tqdm(total=config.steps, unit='step') as bar:
        for row in train(config, args.data, args.out):
            bar.update(int(row.pop('step')) - bar.n)
            if row:
                last = row
                bar.set_postfix({k: f'{v:.4f}' for k, v in row.items()})
    summary = {'steps': config.steps, **last, 'checkpoint': f'{args.out}/checkpoint'}
    print(json.dumps(summary) if args.json else summary)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from faster_core.errors import ConfigError
    from faster_core.tokenizer.evaluate import evaluate_set
    from faster_core.tokenizer.registry import load_tokenizer
    from faster_core.tokenizer.robots import load_data

    if len(args.data) != 1:
        raise ConfigError(f'--data: expected one data set, found {args.data}')
    report = evaluate_set(
        load_tokenizer(args.path), load_data(args.data[0]), args.split, stride=args.stride
    )
    print(json.dumps(report) if args.json else json.dumps(report, indent=2))
    return 0


def _bench(args: argparse.Namespace) -> int:
    import torch

    from faster_core.evaluation.machine import describe_machine
    from faster_core.provenance import git_commit
    from faster_core.tokenizer.bench import preset_times, quantizer_times

    torch.set_num_threads(args.threads)
    report = {
        'git_sha': git_commit(),
        'machine': describe_machine(),
        'threads': args.threads,
        'presets': preset_times(),
        'quantizer': quantizer_times(),
    }
    print(json.dumps(report) if args.json else json.dumps(report, indent=2))
    return 0
