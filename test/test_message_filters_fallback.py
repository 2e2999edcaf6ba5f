"""The stand-in for `message_filters`, against an exhaustive search and the real one's promises.

Kept of the real synchroniser: one call per set with the messages in the order of the filters, no
message twice, at most `queue_size` remembered per filter, `slop` in seconds. Different on purpose:
every message is compared with that of the first filter (the real one allows `slop` between the
earliest and the latest), what is older than an emitted message is forgotten, and the oldest by
arrival leaves a full queue, so that a clock that went back does not starve it.
"""

import importlib.util
import itertools
import pathlib
import random
import sys
import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import faster_vla_ros.compat

pytestmark = pytest.mark.ros

MS = 1_000_000


@pytest.fixture(scope='module')
def fallback():
    """The module as it is where `message_filters` is missing."""
    path = pathlib.Path(faster_vla_ros.compat.__file__).parent / 'message_filters.py'
    spec = importlib.util.spec_from_file_location('fallback_message_filters', path)
    module = importlib.util.module_from_spec(spec)
    missing, before = object(), sys.modules.get('message_filters')
    sys.modules['message_filters'] = None  # importing it fails
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules['message_filters'] = before or missing
        if before is None:
            del sys.modules['message_filters']
    return module


def stamped(nanoseconds):
    sec, nanosec = divmod(nanoseconds, 10**9)
    stamp = types.SimpleNamespace(sec=sec, nanosec=nanosec)
    return types.SimpleNamespace(header=types.SimpleNamespace(stamp=stamp), ns=nanoseconds)


class Bench:
    """Filters, a synchroniser, and the sets it emitted as tuples of nanoseconds."""

    def __init__(self, module, count=3, queue_size=5, slop=0.05):
        self.filters = [module.SimpleFilter() for _ in range(count)]
        self.sets = []
        synchronizer = module.ApproximateTimeSynchronizer(self.filters, queue_size, slop)
        synchronizer.registerCallback(lambda *m: self.sets.append(tuple(x.ns for x in m)))

    def feed(self, events):
        for index, nanoseconds in events:
            self.filters[index].signalMessage(stamped(nanoseconds))
        return self.sets


def exhaustive(events, count, queue_size, slop):
    """Try every combination at every event: newest first stamp, then nearest others, wins."""
    memory, sets = [[] for _ in range(count)], []
    for index, stamp in events:
        memory[index] = [*memory[index], stamp][-queue_size:]
        fitting = [
            c for c in itertools.product(*memory) if all(abs(s - c[0]) <= slop for s in c[1:])
        ]
        if fitting:
            best = min(fitting, key=lambda c: (-c[0], [abs(s - c[0]) for s in c[1:]]))
            sets.append(best)
            memory = [[s for s in m if s > b] for m, b in zip(memory, best, strict=True)]
    return sets


def random_events(seed, count):
    """Return events of cameras with own phases, jitter, delays and losses; no stamp twice."""
    rng = random.Random(seed)
    period = rng.choice([20, 33, 66, 100]) * MS
    events = []
    for index in range(count):
        phase = rng.randrange(period)
        for k in range(40):
            if rng.random() < 0.85:
                stamp = phase + k * period + rng.randrange(-3 * MS, 3 * MS)
                events.append((stamp + rng.randrange(80 * MS), index, stamp))
    return [(index, stamp) for _, index, stamp in sorted(events)]


@pytest.mark.parametrize('seed', range(25))
def test_sets_equal_those_of_an_exhaustive_search(fallback, seed):
    count, queue_size = 2 + seed % 3, 1 + seed % 5
    events = random_events(seed, count)
    bench = Bench(fallback, count, queue_size, 0.04)
    assert bench.feed(events) == exhaustive(events, count, queue_size, 40 * MS)


def test_no_message_is_used_twice(fallback):
    total = 0
    for seed in range(20):
        sets = Bench(fallback, slop=0.04).feed(random_events(100 + seed, 3))
        total += len(sets)
        for stamps in zip(*sets, strict=True):
            assert len(set(stamps)) == len(stamps)
    assert total > 100


def test_streams_in_order_give_sets_in_order(fallback):
    total = 0
    for seed in range(20):
        newest, in_order = [-1] * 3, []
        for index, stamp in random_events(200 + seed, 3):
            if stamp > newest[index]:
                newest[index] = stamp
                in_order.append((index, stamp))
        sets = Bench(fallback, slop=0.04).feed(in_order)
        total += len(sets)
        for stamps in zip(*sets, strict=True):
            assert all(a < b for a, b in itertools.pairwise(stamps))
    assert total > 100


@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
def test_equal_stamps_give_one_set_each_in_the_order_of_the_filters(fallback, order):
    bench = Bench(fallback)
    for k in range(10):
        bench.feed((index, k * 66 * MS) for index in order)
    assert bench.sets == [(k * 66 * MS,) * 3 for k in range(10)]


def test_callback_gets_its_extra_arguments_after_the_message(fallback):
    source, got = fallback.SimpleFilter(), []
    source.registerCallback(lambda *a: got.append(a), 'extra', 2)
    source.signalMessage('m')
    assert got == [('m', 'extra', 2)]


@pytest.mark.parametrize(
    ('distance', 'emitted'), [(50 * MS, True), (50 * MS + 1, False)], ids=['at', 'beyond']
)
def test_slop_is_the_largest_distance_to_the_first_filter(fallback, distance, emitted):
    for stamp in (10**9 - distance, 10**9 + distance):
        bench = Bench(fallback, count=2, slop=0.05)
        assert bool(bench.feed([(0, 10**9), (1, stamp)])) is emitted


def test_others_may_lie_on_both_sides_of_the_first(fallback):
    sets = Bench(fallback, slop=0.05).feed([(1, 960 * MS), (2, 1040 * MS), (0, 1000 * MS)])
    assert sets == [(1000 * MS, 960 * MS, 1040 * MS)]


def test_nearest_message_is_chosen(fallback):
    sets = Bench(fallback, count=2).feed([(1, 970 * MS), (1, 1010 * MS), (0, 1000 * MS)])
    assert sets == [(1000 * MS, 1010 * MS)]


def test_only_the_newest_messages_are_remembered(fallback):
    bench = Bench(fallback, count=2, queue_size=3, slop=0.01)
    bench.feed((1, k * 100 * MS) for k in range(4))
    assert bench.feed([(0, 0)]) == []
    assert bench.feed([(0, 100 * MS)]) == [(100 * MS, 100 * MS)]


def test_missing_filter_emits_nothing(fallback):
    assert Bench(fallback).feed((k % 2, k * 10 * MS) for k in range(100)) == []


def test_clock_that_went_back_does_not_starve_it(fallback):
    bench = Bench(fallback, count=2, queue_size=3)
    bench.feed((0, 10**12 + k * 66 * MS) for k in range(5))
    bench.feed((k % 2, (k // 2) * 66 * MS) for k in range(8))
    assert bench.sets[-1] == (198 * MS, 198 * MS)
