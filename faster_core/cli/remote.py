"""`faster-vla serve`: the policy for other machines; `bench-remote`: what that costs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import contextlib
import json
from typing import Any

ADDRESS_TIMEOUT = 300.0  # s until the server of `bench-remote` has loaded its policy


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the commands `serve` and `bench-remote`."""
    serve = subparsers.add_parser('serve', help='the policy, for clients on other machines')
    _add_policy_options(serve)
    serve.add_argument('--host', default='127.0.0.1', help='address to listen on')
    serve.add_argument('--port', type=_port, default=7447, help='0: a free one')
    serve.add_argument(
        '--allow-network',
        action='store_true',
        help='listen on an address other machines reach; there is no authentication',
    )
    serve.set_defaults(run=_serve)
    bench = subparsers.add_parser('bench-remote', help='what a policy server costs per call')
    _add_policy_options(bench)
    bench.add_argument(
        '--address', default='', help='host:port; default: starts a server on this machine'
    )
    bench.add_argument('--iterations', type=_positive, default=200, help='calls that count')
    bench.add_argument('--json', action='store_true', help='one JSON object as the last line')
    bench.set_defaults(run=_bench)


def _add_policy_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--checkpoint', default='', help='folder; default: the shipped one')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, …')
    parser.add_argument('--dtype', default='auto', help='auto, float32 or bfloat16')
    parser.add_argument(
        '--engine',
        default='auto',
        help='how inference runs; auto: cuda_graph on a GPU, static on a CPU (docs/policy.md)',
    )
    parser.add_argument('--threads', type=_positive, default=1, help='torch threads on the CPU')
    parser.add_argument('--temperature', type=float, default=0.0, help='0: greedy')
    parser.add_argument('--seed', type=int, default=0, help='of sampling')
    parser.add_argument('--warmup', type=_positive, default=10, help='inferences at the start')


def _positive(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number > 0, found {text!r}')
    return value


def _port(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= value < 2**16:
        raise argparse.ArgumentTypeError(f'expected 0..65535, found {text!r}')
    return value


def _server(args: argparse.Namespace, *, host: str, port: int, allow_network: bool) -> Any:
    """Return a warmed `PolicyServer` that does not answer yet; torch is imported here."""
    import pathlib

    import torch

    from faster_core import paths
    from faster_core.policy import checkpoint, Policy
    from faster_core.remote.server import PolicyServer

    torch.set_num_threads(args.threads)
    folder = pathlib.Path(args.checkpoint or paths.demo_checkpoint())
    policy = Policy.from_pretrained(
        folder,
        device=args.device,
        dtype=args.dtype,
        engine=args.engine,
        temperature=args.temperature,
        seed=args.seed,
    )
    server = PolicyServer(
        policy,
        host=host,
        port=port,
        checkpoint_sha=checkpoint.checkpoint_sha256(folder),
        allow_network=allow_network,
    )
    server.warmup(args.warmup)
    return server


def _serve(args: argparse.Namespace) -> int:
    import sys
    import threading

    try:
        with _server(
            args, host=args.host, port=args.port, allow_network=args.allow_network
        ) as server:
            print(f'[faster-vla] serving on {server.address}; Ctrl-C ends it', flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:  # also SIGTERM: the ordinary end
        print('[faster-vla] ending', file=sys.stderr, flush=True)
    return 0


# --- bench-remote --------------------------------------------------------------------------------


def _bench(args: argparse.Namespace) -> int:
    import sys

    from faster_core.evaluation.machine import describe_machine
    from faster_core.evaluation.remote import measure_overhead, SIZES, WARMUP, WAYS
    from faster_core.provenance import git_commit
    from faster_core.remote.client import RemotePolicy

    with contextlib.ExitStack() as stack:
        address = args.address or stack.enter_context(_own_server(args))
        with RemotePolicy(address) as policy:
            server = policy.server
        rows = []
        for size in SIZES:
            for way in WAYS:
                print(f'{size[0]} x {size[1]} {way} ...', file=sys.stderr, flush=True)
                rows.append(
                    measure_overhead(address, size=size, way=way, iterations=args.iterations)
                )
    report = {
        'rows': rows,
        'loopback': not args.address,
        'warmup': WARMUP,
        'image_size': server.image_size,
        'checkpoint_sha': server.checkpoint_sha or None,
        'machine': describe_machine(),
        'git_sha': git_commit() or None,
    }
    print(json.dumps(report, allow_nan=False) if args.json else _table(rows))
    return 0


@contextlib.contextmanager
def _own_server(args: argparse.Namespace) -> Iterator[str]:
    """A server in a process of its own, as on another machine; gives its address."""
    import multiprocessing

    from faster_core.errors import RemoteUnavailableError

    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_for_bench, args=(theirs, args), daemon=True)
    process.start()
    theirs.close()
    try:
        try:
            address = ours.recv() if ours.poll(ADDRESS_TIMEOUT) else None
        except EOFError:
            address = None
        if not isinstance(address, str):
            raise address or RemoteUnavailableError('the server did not start')
        yield address
    finally:
        ours.close()  # tells the server to end
        process.join(10.0)
        if process.is_alive():
            process.kill()
            process.join()


def _serve_for_bench(pipe: Any, args: argparse.Namespace) -> None:
    from faster_core.errors import FasterVlaError

    try:
        with _server(args, host='127.0.0.1', port=0, allow_network=False) as server:
            pipe.send(server.address)
            with contextlib.suppress(EOFError):
                pipe.recv()
    except FasterVlaError as e:
        pipe.send(e)
    except KeyboardInterrupt:
        pass


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f'{"milliseconds":<18}{"kB":>8} | {"overhead":>8}{"":>16} | less decoding',
        f'{"":<26} | {"p50":>8}{"p95":>8}{"p99":>8} | {"p50":>8}{"p95":>8}{"p99":>8}',
    ]
    for row in rows:
        name = f'{row["width"]} x {row["height"]} {row["images"]}'
        cells = (
            ''.join(f'{row[key][q]:8.2f}' for q in ('p50', 'p95', 'p99'))
            for key in ('overhead_ms', 'overhead_less_decode_ms')
        )
        lines.append(f'{name:<18}{row["request_kb"]:>8.1f} | ' + ' | '.join(cells))
    lines.append(f'{rows[0]["iterations"]} calls each, {rows[0]["cameras"]} cameras')
    return '\n'.join(lines)
