"""The machine's noise floor: how late a bare loop of sleeps wakes up.

Prints, once ended, the lateness of every wake-up against its own fixed schedule and the jitter of
the intervals, in milliseconds, as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import signal
import threading
import time


def main() -> None:
    """Sleep until ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--period', type=float, default=0.01, help='s')
    parser.add_argument('--out', type=pathlib.Path, required=True)
    args = parser.parse_args()
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    jitter, last, due = [], None, time.perf_counter() + args.period
    while not ending.is_set():
        time.sleep(max(0.0, due - time.perf_counter()))
        now = time.perf_counter()
        if last is not None:
            jitter.append(abs(now - last - args.period) * 1e3)
        last, due = now, due + args.period
    args.out.write_text(json.dumps(jitter))


if __name__ == '__main__':
    main()
