#!/usr/bin/env python3
"""Fills the generated parts of the documentation; `--check` only says whether they are up to date.

A generated part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`: parameter tables in
docs/ros.md come from the tables the nodes check against, the file tree in README.md from the first
line of every file's docstring, and measured figures from the reports in docs/results/.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
import functools
import json
import pathlib
import re
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What a line of the tree says about files that carry no docstring; folders first.
ABOUT = {
    '.ci/run': 'what a submission must pass: lint, two episodes through DDS, tests',
    'LICENSE': 'Apache-2.0',
    'MANIFEST.in': 'files of a source distribution',
    'Makefile': 'every command by name',
    'colcon_defaults.yaml': 'makes plain `colcon build` see both packages',
    'config/embodiments/aloha.yaml': 'two arms of gym-aloha',
    'config/embodiments/franka.yaml': 'Franka arm, joint positions (recording)',
    'config/embodiments/g1_inspire.yaml': 'Unitree G1 with Inspire hands (recordings)',
    'config/embodiments/libero.yaml': "LIBERO's Franka: displacements of the hand (training only)",
    'config/embodiments/metaworld.yaml': 'Sawyer arm of Meta-World: displacements of the hand',
    'config/embodiments/r1_lite.yaml': 'what the robot is: the single source of truth',
    'config/fastdds_shm.xml': 'shared-memory segment large enough for images',
    'config/robots/r1_lite.yaml': 'topics and limits of the R1 Lite for both nodes',
    'config/diagnostics/': 'groups of diagnostics for rqt_robot_monitor',
    'config/embodiments/aloha_stationary.yaml': 'ALOHA on a table: two arms, four cameras',
    'config/embodiments/franka_fr3.yaml': 'Franka FR3 with its hand',
    'config/embodiments/trossen_stationary.yaml': 'two WidowX AI arms, four cameras',
    'config/embodiments/ur5e.yaml': 'UR5e with a parallel gripper',
    'config/embodiments/xarm7.yaml': 'xArm 7 with its gripper',
    'config/foxglove/': 'layouts for Foxglove, one per graph',
    'config/robots/aloha.yaml': 'topics and limits of ALOHA',
    'config/robots/franka_fr3.yaml': 'of the Franka FR3',
    'config/robots/gazebo/': 'of ros2_control in simulation',
    'config/robots/isaac/': "of Isaac Sim's joint topics",
    'config/robots/trossen.yaml': 'of the Trossen stationary kit',
    'config/robots/ur5e.yaml': 'of the UR5e',
    'config/robots/xarm7.yaml': 'of the xArm 7',
    'config/rviz/': 'layouts for RViz, one per graph',
    'config/study/': 'comparison of action tokenizers',
    'config/train/': "recipes: the shipped checkpoint's, and the paper's settings",
    'constraints.txt': 'every version that `make setup` installs',
    'docs/': 'architecture, ROS interface, execution, training',
    'faster_core/assets/': 'shipped checkpoint and tokenizers, mean trajectories of the baseline',
    'faster_core/sim/models/': 'MJCF of the robots: R1 Lite, FR3, UR5e, ViperX 300 S, and a table',
    'scripts/matrix_constraints/': 'pins of the other ROS distributions',
    'faster_vla_msgs/': 'messages, service and action; a package of its own (colcon and pip)',
    'package.xml': 'ROS package (format 3)',
    'pyproject.toml': 'ruff, pytest, coverage',
    'resource/': 'marker of the ament index',
    'scripts/system_packages.sh': 'Debian packages that pip cannot bring',
    'setup.cfg': 'where ros2 run looks for executables',
    'setup.py': 'one packaging file for colcon and pip',
    'test/': 'tests; their names are sentences',
}


def file_tree() -> str:
    """Return the tracked files, one line each, with what they are for."""
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    rows: dict[str, str] = {}
    for name in sorted(n for n in listed if (ROOT / n).is_file()):
        folder = next((f for f in ABOUT if f.endswith('/') and name.startswith(f)), None)
        if folder:
            rows[folder] = ABOUT[folder]
        elif not name.startswith(('.git', 'README')) and not _is_marker(name):
            rows[name] = ABOUT.get(name) or _first_line(name)
    return '```\n' + '\n'.join(_tree_lines(rows)) + '\n```'


def _is_marker(name: str) -> bool:
    """Whether a file only makes its folder a package."""
    return name.endswith('__init__.py') and len((ROOT / name).read_text().splitlines()) < 2


def _tree_lines(rows: Mapping[str, str]) -> list[str]:
    lines, shown = [], set()
    for name, about in rows.items():
        parts = name.rstrip('/').split('/')
        for depth in range(1, len(parts)):
            folder = '/'.join(parts[:depth])
            if folder not in shown:
                shown.add(folder)
                lines.append(f'{"  " * (depth - 1)}{parts[depth - 1]}/')
        label = parts[-1] + ('/' if name.endswith('/') else '')
        lines.append(f'{"  " * (len(parts) - 1)}{label:<{34 - 2 * len(parts)}} {about}'.rstrip())
    return lines


def _first_line(name: str) -> str:
    text = (ROOT / name).read_text(encoding='utf-8')
    if name.endswith('.py'):
        documentation = ast.get_docstring(ast.parse(text)) or _only_class(text)
        return documentation.splitlines()[0].rstrip('.') if documentation else ''
    return ''


def _only_class(text: str) -> str:
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            return ast.get_docstring(node) or ''
    return ''


def parameter_table(table: Mapping[str, Any], prefix: str = '') -> str:
    """Return a Markdown table of `parameters.Spec` entries."""
    from faster_vla_ros.parameters import REQUIRED

    names = {tuple: 'list', str: 'string', float: 'double', int: 'int', bool: 'bool'}
    lines = ['| parameter | type | default | meaning |', '|---|---|---|---|']
    for name, spec in table.items():
        default = '**required**' if spec.default is REQUIRED else _shown(spec.default)
        allowed = f' ({", ".join(map(str, spec.one_of))})' if len(spec.one_of) > 1 else ''
        lines.append(
            f'| `{prefix}{name}` | {names[spec.type]} | {default} | {spec.help}{allowed} |'
        )
    return '\n'.join(lines)


def _shown(default: Any) -> str:
    if default is None or default == '':
        return '–'
    return f'`{str(default).lower() if isinstance(default, bool) else default}`'


def overfit_table() -> str:
    """Return how well every backbone family learnt 64 chunks by heart."""
    report = json.loads((ROOT / 'docs' / 'results' / 'overfit.json').read_text(encoding='utf-8'))
    rows = [
        f'| {name} | {r["accuracy"]:.2%} | {r["steps"]} | {r["seconds"]:.0f} |'
        for name, r in report['families'].items()
    ]
    head = ['| family | codes right | steps | seconds |', '|---|---|---|---|']
    return '\n'.join([*head, *rows, '', f'{_machine(report["machine"])}.'])


def _guard_parameters() -> str:
    from faster_vla_ros.guard import PARAMETERS

    return parameter_table(PARAMETERS)


def _policy_parameters() -> str:
    from faster_vla_ros import policy_parameters as p

    return '\n\n'.join(
        (
            parameter_table(p.TABLE),
            parameter_table(p.CAMERA_TABLE, '<camera>.'),
            parameter_table(p.SOURCE_TABLE, '<source>.'),
        )
    )


def _dispatcher_parameters() -> str:
    from faster_vla_ros import dispatcher_parameters as p

    component = p.LIMIT_TABLE | p.POSITION_TABLE | p.OUTPUT_TABLE
    feedback = {f'feedback.{k}': spec for k, spec in p.FEEDBACK_TABLE.items()}
    return '\n\n'.join(
        (
            parameter_table(p.NODE_TABLE | p.RULES_TABLE),
            parameter_table(component | feedback, '<component>.'),
        )
    )


def _report(name: str) -> dict[str, Any]:
    return json.loads((ROOT / 'docs' / 'results' / f'{name}.json').read_text(encoding='utf-8'))


def success_table() -> str:
    """Return success per instruction, without ROS and through it, from the two reports."""
    offline, ros = _report('eval'), _report('eval_ros')
    lines = ['| instruction | without ROS | through ROS |', '|---|---|---|']
    rows = {**offline['per_instruction'], '**all**': offline}
    other = {**ros['per_instruction'], '**all**': ros}
    lines += [
        f'| {text} | {_rate(row)} | {_rate(other.get(text))} |' for text, row in rows.items()
    ]
    pairs, machine = ros['paired'], offline['machine']
    return '\n'.join(
        (
            *lines,
            '',
            f'Seeds {_seeds(offline)} without ROS and {_seeds(ros)} through it, 95 % Wilson '
            f'intervals; {_machine(machine)}. Paired: {pairs["pairs"]} episodes, difference '
            f'{100 * pairs["difference"]:+.1f} points through ROS.',
        )
    )


def control_table() -> str:
    """Return what the policy does with another instruction, without sight, and the baselines."""
    if not (ROOT / 'docs' / 'results' / 'controls.json').exists():
        return 'Not measured for this checkpoint yet.'
    controls, changed = _report('controls'), _report('eval_ros')['changed']
    swapped = controls['swapped']
    lines = [
        '| control | episodes | success |',
        '|---|---|---|',
        f'| same scenes, another instruction: the given task | {swapped["episodes"]} | '
        f'{_percent(swapped["given_rate"])} |',
        f"| … the scene's original task | {swapped['episodes']} | "
        f'{_percent(swapped["original_rate"])} |',
        _control('images of another scene', controls['other_images']),
        _control('zero action', controls['baselines']['zero_action']),
        _control('mean trajectory of the instruction', controls['baselines']['mean_trajectory']),
    ]
    if changed:
        lines.append(_control('instruction changed after 1.5 s of motion, through ROS', changed))
    return '\n'.join(lines)


def latency_table() -> str:
    """Return milliseconds by stage, alone and in the running graph, and what the wire showed."""
    alone, ros = _report('bench'), _report('eval_ros')
    lines = ['| milliseconds | p50 | p95 | p99 |', '|---|---|---|---|']
    lines.append(_percentiles('**policy alone**', alone['latency_ms']))
    for stage, values in alone['stages_ms'].items():
        if stage != 'total_ms':
            lines.append(_percentiles(stage.removesuffix('_ms'), values))
    lines.append(_percentiles('**inside the running graph**', ros['latency_ms']))
    for stage, values in ros['stages_ms'].items():
        if stage != 'total_ms':
            lines.append(_percentiles(stage.removesuffix('_ms'), values))
    lines.append(_percentiles('first command less inference', ros['first_command_ms']))
    return '\n'.join(
        (
            *lines,
            '',
            f'Batch 1, {alone["cameras"]} cameras, {alone["tokens"]} tokens in {alone["blocks"]} '
            f'blocks, {alone["dtype"]}, {alone["threads"]} threads alone and 1 in the graph; '
            f'{_machine(alone["machine"])}. Graph: {ros["chunks"]} chunks, real-time factor '
            f'{ros["rtf"]:.3f} on average and {ros["rtf_min"]:.3f} in the worst episode.',
        )
    )


def tokenizer_table() -> str:
    """Return VRR, L1 and tokens of every tokenizer on every data set, and who wins where."""
    report = _report('tokenizers')
    sets = list(report['datasets'])
    names = list(dict.fromkeys(n for rows in report['datasets'].values() for n in rows))
    names.sort(key=lambda n: n != 'faster')
    lines = ['| | ' + ' | '.join(sets) + ' |', '|---' * (len(sets) + 1) + '|']
    for name in names:
        cells = []
        for data in sets:
            row = report['datasets'][data].get(name)
            cells.append(
                f'{row["vrr_1e-3"]:.3f}, {row["l1"]:.4f}, {row["tokens_mean"]:.0f}' if row else '–'
            )
        lines.append(f'| {f"**{name}**" if name == "faster" else name} | {" | ".join(cells)} |')
    rivals = list(dict.fromkeys(n for v in report['against'].values() for n in v))
    lines += [
        '',
        '| at equal tokens against | ' + ' | '.join(sets) + ' |',
        '|---' * (len(sets) + 1) + '|',
    ]
    for rival in rivals:
        cells = [_versus(report['against'].get(data, {}).get(rival)) for data in sets]
        lines.append(f'| {rival} | {" | ".join(cells)} |')
    chunks = {d: r['faster']['n_chunks'] for d, r in report['datasets'].items() if 'faster' in r}
    return '\n'.join(
        (
            *lines,
            '',
            'First table: VRR at 1e-3 (SI units, per value), L1 (normalised), mean tokens per '
            'chunk. Second: points of the rival where ours is better in VRR *and* L1 at the same '
            'number of tokens (interpolated along our curve); mean VRR over the tokens both '
            'cover, ours against theirs. Held-out episodes, '
            + ', '.join(f'{n:,} chunks of {d}' for d, n in chunks.items())
            + f'; {_machine(report["machine"])}.',
        )
    )


def _versus(result: Mapping[str, Any] | None) -> str:
    if result is None or not result['matched']:
        return '–'
    better = [
        row['vrr'][0] > row['vrr'][1] and row['l1'][0] < row['l1'][1] for row in result['matched']
    ]
    text = f'{sum(better)} of {len(better)}'
    if result['areas'] is not None:
        ours, theirs = result['areas']
        text += f'; {ours:.3f} to {theirs:.3f}'
    return text


def comparison() -> str:
    """Return the whole report of `faster-vla tokenizer compare`."""
    from faster_core.tokenizer.study.table import tables

    return tables(_report('tokenizers')).rstrip()


def tokenizer_times() -> str:
    """Return what `faster-vla tokenizer bench` measured."""
    report = _report('tokenizer_bench')
    lines = ['| preset | tokens | parameters | decode p50, p99 | encode p50 |', '|---' * 5 + '|']
    for name, r in report['presets'].items():
        decode = r['decode_ms']
        lines.append(
            f'| `{name}` | {r["tokens"]} | {r["params"] / 1e6:.1f} M | {decode["p50"]:.1f}, '
            f'{decode["p99"]:.1f} ms | {r["encode_ms"]["p50"]:.1f} ms |'
        )
    lines += ['', '| quantiser | ms per step | encode, ms | error | code use | largest code |']
    lines.append('|---' * 6 + '|')
    for name, r in report['quantizer'].items():
        use = ', '.join(f'{level["code_use"]:.0%}' for level in r['levels'])
        largest = ', '.join(f'{level["largest_code"]:.1%}' for level in r['levels'])
        lines.append(
            f'| {name} | {r["step_ms"]:.1f} | {r["encode_ms"]:.0f} | {r["error"]:.3f} | {use} | '
            f'{largest} |'
        )
    threads = f'{report["threads"]} thread' + ('s' if report['threads'] > 1 else '')
    return '\n'.join((*lines, '', f'{threads}; {_machine(report["machine"])}.'))


def speed_table() -> str:
    """Return the table of `faster-vla bench policy` on the shipped policy."""
    from faster_core.evaluation.speed.report import table

    report = _report('bench_policy')
    command = '`faster-vla bench policy --json`'
    return f'{table(report)} {command}, {_machine(report["machine"])}.'


def engine_agreement() -> str:
    """Return whether engines give the oracle's codes."""
    report = _report('engines')
    rows = [
        f'| {name} | {row["same"]:,} | {row["close"]} | {row["wrong"]} | {row["error"]:.1e} |'
        for name, row in report['engines'].items()
    ]
    return '\n'.join(
        [
            f'Greedy codes of {report["observations"]:,} recorded observations (`faster-vla bench '
            'agreement --episodes DEMOS --iterations 1000`), all of an observation the same as '
            f"`eager`'s, or different where its two best logits are closer than "
            f'{report["margin"]:g}, or elsewhere; and the largest difference of a value:',
            '',
            '| engine | same | close | wrong | difference |',
            '|---|---|---|---|---|',
            *rows,
        ]
    )


def remote_table() -> str:
    """Return what `faster-vla bench-remote` measured."""
    report = _report('remote')
    lines = ['| milliseconds | request | p50 | p95 | p99 | less decoding: p50 | p95 | p99 |']
    lines.append('|---' * 8 + '|')
    for row in report['rows']:
        cells = [
            f'{row[key][q]:.1f}'
            for key in ('overhead_ms', 'overhead_less_decode_ms')
            for q in ('p50', 'p95', 'p99')
        ]
        name = f'{row["width"]} x {row["height"]}, {row["images"]}'
        lines.append(f'| {name} | {row["request_kb"]:.0f} kB | {" | ".join(cells)} |')
    first = report['rows'][0]
    return '\n'.join(
        (
            *lines,
            '',
            f'{first["iterations"]} calls each, {first["cameras"]} cameras, one client, the '
            f'shipped checkpoint ({first["predict_ms"]["p50"]:.0f} ms an inference); '
            f'{_machine(report["machine"])}.',
        )
    )


def reliability_table(name: str) -> str:
    """Return what a script of scripts/reliability measured."""
    from scripts.reliability.tables import table

    return table(name)


def _seeds(report: Mapping[str, Any]) -> str:
    return f'{report["seeds"][0]}–{report["seeds"][-1]}'


def _control(text: str, row: Mapping[str, Any]) -> str:
    return f'| {text} | {row["episodes"]} | {_percent(row["success_rate"])} |'


def _rate(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return '–'
    low, high = (_percent(v) for v in row['wilson'])
    done = round(row['success_rate'] * row['episodes'])
    return f'{done} of {row["episodes"]} ({low}–{high})'


def _percentiles(text: str, values: Mapping[str, float]) -> str:
    return f'| {text} | ' + ' | '.join(f'{values[q]:.1f}' for q in ('p50', 'p95', 'p99')) + ' |'


def _percent(rate: float) -> str:
    return f'{100 * rate:.0f} %'


def _machine(machine: Mapping[str, Any]) -> str:
    return f'{machine["cores"]} cores of an {machine["cpu"]}, torch {machine["torch"]}'


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    'README.md': {
        'success': success_table,
        'controls': control_table,
        'latency': latency_table,
        'tokenizers': tokenizer_table,
        'file tree': file_tree,
    },
    'docs/tokenizer.md': {
        'comparison': comparison,
        'times': tokenizer_times,
    },
    'docs/policy.md': {
        'engines': engine_agreement,
        'speed': speed_table,
    },
    'docs/remote.md': {
        'overhead': remote_table,
    },
    'docs/training.md': {
        'overfit': overfit_table,
    },
    'docs/execution.md': {
        'guard parameters': _guard_parameters,
    },
    'docs/reliability.md': {
        name: functools.partial(reliability_table, name)
        for name in ('failures', 'fuzz', 'jitter', 'motion', 'overhead', 'soak')
    },
    'docs/ros.md': {
        'policy_node parameters': _policy_parameters,
        'action_dispatcher parameters': _dispatcher_parameters,
    },
}


def rendered(name: str) -> str:
    """Return a documentation file with its generated parts renewed.

    Raises:
        ValueError: a part's markers are missing.
    """
    text = (ROOT / name).read_text(encoding='utf-8')
    for part, make in PARTS[name].items():
        begin, end = f'<!-- begin {part} -->', f'<!-- end {part} -->'
        if begin not in text or end not in text:
            raise ValueError(f'{name}: no markers of {part!r}')
        pattern = re.compile(f'{re.escape(begin)}.*?{re.escape(end)}', re.DOTALL)
        new = f'{begin}\n{make()}\n{end}'
        text = pattern.sub(lambda _, new=new: new, text)
    return text


def main() -> int:
    """Write the files, or check them; 1 if a checked one is out of date."""
    sys.path.insert(0, str(ROOT))
    check, old = '--check' in sys.argv[1:], []
    for name in PARTS:
        new = rendered(name)
        if new != (ROOT / name).read_text(encoding='utf-8'):
            old.append(name)
            if not check:
                (ROOT / name).write_text(new, encoding='utf-8')
    print(f'{"out of date" if check else "renewed"}: {", ".join(old) or "nothing"}')
    return 1 if check and old else 0


if __name__ == '__main__':
    sys.exit(main())
