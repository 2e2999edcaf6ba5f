"""The stand-in for `message_filters` keeps the promises of the original.

Where the original is installed, the same tests run against it. What it does is read from
ros2/message_filters, `src/message_filters/__init__.py`.
"""

import importlib
import importlib.util
import itertools
import pathlib
import random
import sys
import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from builtin_interfaces.msg import Time

import faster_vla_ros.compat

pytestmark = pytest.mark.ros

MS = 1_000_000
ORIGINAL = importlib.util.find_spec('message_filters') is not None


def load_fallback():
    """Return the module as it is where `message_filters` is missing."""
    path = pathlib.Path(faster_vla_ros.compat.__file__).parent / 'message_filters.py'
    spec = importlib.util.spec_from_file_location('fallback_message_filters', path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'message_filters', None)  # importing it fails
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module', params=['fallback', 'original'] if ORIGINAL else ['fallback'])
def filters(request):
    if request.param == 'fallback':
        return load_fallback()
    return importlib.import_module('message_filters')


@pytest.fixture(scope='module')
def fallback():
    return load_fallback()


def stamped(nanoseconds):
    sec, nanosec = divmod(nanoseconds, 10**9)
    header = types.SimpleNamespace(stamp=Time(sec=sec, nanosec=nanosec))
    return types.SimpleNamespace(header=header, ns=nanoseconds)


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


def by_the_rule(events, count, queue_size, slop):
    """The documented rule, written plainly: rank all combinations with the new message."""
    memory, sets = [set() for _ in range(count)], []
    for index, now in events:
        memory[index].add(now)
        if len(memory[index]) > queue_size:
            memory[index].remove(min(memory[index]))
        fitting = [
            c
            for c in itertools.product(*memory)
            if c[index] == now and all(abs(s - now) <= slop for s in c) and max(c) - min(c) < slop
        ]
        if fitting:
            best = min(fitting, key=lambda c: [abs(s - now) for s in c])
            sets.append(best)
            for stamps, used in zip(memory, best, strict=True):
                stamps.remove(used)
    return sets


def random_events(seed, count, jitter=3 * MS, period=None, lost=0.15):
    """Return events of cameras with own phases, jitter, delays and losses; no stamp twice."""
    rng = random.Random(seed)
    period = period or rng.choice([20, 33, 66, 100]) * MS
    events = []
    for index in range(count):
        phase = rng.randrange(period)
        for k in range(40):
            if rng.random() >= lost:
                stamp = phase + k * period + rng.randrange(-jitter, jitter) + 10**9
                events.append((stamp + rng.randrange(80 * MS), index, stamp))
    return [(index, stamp) for _, index, stamp in sorted(events)]


@pytest.mark.parametrize('seed', range(25))
def test_sets_equal_those_of_the_documented_rule(filters, seed):
    count, queue_size = 1 + seed % 4, 1 + seed % 5
    events = random_events(seed, count)
    bench = Bench(filters, count, queue_size, 0.04)
    expected = by_the_rule(events, count, queue_size, 40 * MS)
    assert bench.feed(events) == expected
    assert len(expected) > 5 or queue_size < 3


def test_no_message_is_used_twice_and_no_set_is_wider_than_the_slop(filters):
    total = 0
    for seed in range(20):
        sets = Bench(filters, slop=0.04).feed(random_events(100 + seed, 3))
        total += len(sets)
        assert all(max(s) - min(s) < 40 * MS for s in sets)
        for stamps in zip(*sets, strict=True):
            assert len(set(stamps)) == len(stamps)
    assert total > 100


@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_cameras_with_any_phase_give_nearly_a_set_per_image(filters, count):
    for seed in range(10):
        events = random_events(300 + seed, count, jitter=MS, period=33 * MS, lost=0.0)
        newest, later = 0, 0
        for stamps in Bench(filters, count, slop=0.05).feed(events):
            later += stamps[0] > newest
            newest = max(newest, stamps[0])
        assert later >= 30, f'{later} sets of 40 images per camera'


@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
def test_equal_stamps_give_one_set_each_in_the_order_of_the_filters(filters, order):
    bench = Bench(filters)
    for k in range(10):
        bench.feed((index, k * 66 * MS) for index in order)
    assert bench.sets == [(k * 66 * MS,) * 3 for k in range(10)]


def test_callback_gets_its_extra_arguments_after_the_messages_and_a_number(filters):
    source, got = filters.SimpleFilter(), []
    assert source.registerCallback(lambda *a: got.append(a), 'extra', 2) == 0
    assert source.registerCallback(lambda *a: got.append(a)) == 1
    source.signalMessage('m', 'n')
    assert got == [('m', 'n', 'extra', 2), ('m', 'n')]


@pytest.mark.parametrize(
    ('distance', 'emitted'), [(50 * MS - 1, True), (50 * MS, False)], ids=['less', 'equal']
)
@pytest.mark.parametrize('sign', [-1, 1])
def test_stamps_must_lie_less_than_the_slop_apart(filters, distance, emitted, sign):
    bench = Bench(filters, count=2, slop=0.05)
    assert bool(bench.feed([(0, 10**9), (1, 10**9 + sign * distance)])) is emitted


def test_the_slop_holds_between_all_messages_not_to_the_first(filters):
    events = [(1, 960 * MS), (2, 1040 * MS), (0, 1000 * MS)]
    assert Bench(filters, slop=0.05).feed(events) == []
    assert Bench(filters, slop=0.081).feed(events) == [(1000 * MS, 960 * MS, 1040 * MS)]


def test_without_slop_nothing_matches_and_with_a_nanosecond_equal_stamps_do(filters):
    assert Bench(filters, count=2, slop=0.0).feed([(0, MS), (1, MS)]) == []
    assert Bench(filters, count=2, slop=1e-9).feed([(0, MS), (1, MS)]) == [(MS, MS)]


def test_message_nearest_to_the_new_one_is_chosen(filters):
    sets = Bench(filters, count=2).feed([(1, 970 * MS), (1, 1010 * MS), (0, 1000 * MS)])
    assert sets == [(1000 * MS, 1010 * MS)]


def test_only_the_newest_stamps_are_remembered(filters):
    bench = Bench(filters, count=2, queue_size=3, slop=0.01)
    bench.feed((1, k * 100 * MS) for k in range(4))
    assert bench.feed([(0, 0)]) == []
    assert bench.feed([(0, 100 * MS)]) == [(100 * MS, 100 * MS)]


def test_messages_older_than_an_emitted_one_stay_and_may_give_an_older_set(filters):
    # Why `SensorInputs` takes no set that is older than the last.
    bench = Bench(filters, count=2, slop=0.05)
    bench.feed([(0, 66 * MS), (0, 100 * MS), (1, 90 * MS), (1, 110 * MS)])
    assert bench.sets == [(100 * MS, 90 * MS), (66 * MS, 110 * MS)]


def test_missing_filter_emits_nothing(filters):
    assert Bench(filters).feed((k % 2, k * 10 * MS) for k in range(100)) == []


def test_clock_that_went_back_starves_a_synchroniser_with_full_queues(filters):
    # Why `SensorInputs` makes a new one then.
    bench = Bench(filters, count=2, queue_size=3)
    bench.feed((0, 10**12 + k * 66 * MS) for k in range(3))
    assert bench.feed((k % 2, (k // 2) * 66 * MS) for k in range(20)) == []


def test_callback_that_raises_does_not_block_the_fallback(fallback):
    source, seen = fallback.SimpleFilter(), []

    def explode(message):
        seen.append(message.ns)
        raise RuntimeError('of the callback')

    fallback.ApproximateTimeSynchronizer([source], 5, 0.05).registerCallback(explode)
    for k in (1, 2):
        with pytest.raises(RuntimeError, match='of the callback'):
            source.signalMessage(stamped(k * MS))
    assert seen == [MS, 2 * MS]


def test_message_without_header_is_an_error_of_the_caller_in_the_fallback(fallback):
    source = fallback.SimpleFilter()
    fallback.ApproximateTimeSynchronizer([source], 5, 0.05)
    with pytest.raises(AttributeError, match='header'):
        source.signalMessage(types.SimpleNamespace())


@pytest.mark.skipif(not ORIGINAL, reason='message_filters is not installed: fallback tested only')
def test_where_the_original_is_there_it_is_used():
    module = importlib.import_module('faster_vla_ros.compat.message_filters')
    assert module.ApproximateTimeSynchronizer.__module__ == 'message_filters'
