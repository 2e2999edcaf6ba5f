"""`faster-vla tokenizer fit-all|compare`: every tokenizer on every data set."""

import argparse
import json


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add both commands to those of `tokenizer`."""
    fit = commands.add_parser(
        'fit-all', help='fit every tokenizer on every data set; resumes; several may run at once'
    )
    _add_common(fit)
    fit.add_argument('--max-minutes', type=float, default=None, help='start nothing new after')
    fit.set_defaults(run=_fit_all)
    compare = commands.add_parser('compare', help='evaluate what fit-all left: table and figures')
    _add_common(compare)
    compare.add_argument('--out', default=None, help='folder for compare.json, table.md, figures')
    compare.add_argument(
        '--ship', default=None, help='copy our headline tokenizers to this folder'
    )
    compare.set_defaults(run=_compare)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='YAML file, e.g. config/study/small.yaml')
    parser.add_argument('--data', required=True, help='folder with a motion set per name')
    parser.add_argument('--cache', required=True, help='folder of what is fitted')
    parser.add_argument('--json', action='store_true', help='one JSON object as the last line')


def _study(args: argparse.Namespace):
    import pathlib

    import yaml

    from faster_core.config import from_mapping
    from faster_core.tokenizer.study.fit_all import Study
    from faster_core.tokenizer.study.plan import StudyConfig

    values = yaml.safe_load(pathlib.Path(args.config).read_text(encoding='utf-8'))
    config = from_mapping(StudyConfig, values, source=args.config)
    return Study(config, args.data, args.cache)


def _fit_all(args: argparse.Namespace) -> int:
    import time

    from tqdm import tqdm

    study = _study(args)
    todo = [e for e in study.entries if not study.is_fitted(e)]
    start, fitted = time.perf_counter(), []
    with tqdm(total=len(study.entries), initial=len(study.entries) - len(todo), unit='fit') as bar:
        for entry in todo:
            spent = (time.perf_counter() - start) / 60
            if args.max_minutes is not None and spent > args.max_minutes:
                break

            def show(step: int, steps: int, title: str = entry.title) -> None:
                if step % 50 == 0 or step == steps:
                    bar.set_postfix_str(f'{title} {step}/{steps}')

            bar.set_postfix_str(entry.title)
            if study.fit(entry, show):
                fitted.append(entry.title)
            bar.update()
    missing = [e.title for e in study.entries if not study.is_fitted(e)]
    summary = {
        'fitted_now': len(fitted),
        'missing': missing,
        'minutes': round((time.perf_counter() - start) / 60, 1),
    }
    print(json.dumps(summary) if args.json else json.dumps(summary, indent=2))
    return 0


def _compare(args: argparse.Namespace) -> int:
    import pathlib

    from tqdm import tqdm

    from faster_core.config import write_json
    from faster_core.evaluation.machine import describe_machine
    from faster_core.tokenizer.study.compare import compare
    from faster_core.tokenizer.study.figures import draw_all
    from faster_core.tokenizer.study.table import tables

    study = _study(args)
    with tqdm(total=len(study.entries), unit='tokenizer') as bar:

        def show(entry) -> None:
            bar.set_postfix_str(entry.title)
            bar.update()

        report = {**compare(study, show), 'machine': describe_machine()}
    if args.out is not None:
        folder = pathlib.Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / 'compare.json', report)
        (folder / 'table.md').write_text(tables(report), encoding='utf-8')
        draw_all(study, report, folder)
    if args.ship is not None:
        study.ship(args.ship)
    print(json.dumps(report) if args.json else tables(report))
    return 0
