"""Which chunks hours in simulation call lost, and which replaced, without the hours."""

import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from faster_vla_msgs.msg import ActionChunk, ChunkReport
from scripts.reliability.soak import numbers, Watch

pytestmark = pytest.mark.ros

TICK = 0.02
FIRST = 5


def watched(sent, reported):
    """Return what is found of chunks (ms when they were sent, rows), of which some are told of.

    A report may come before the chunk that it is on, as in another process.
    """
    ears = {}
    node = types.SimpleNamespace(
        create_subscription=lambda kind, topic, take, qos: ears.update({kind: take})
    )
    watch = Watch(types.SimpleNamespace(node=node), {})
    for number in reported:
        ears[ChunkReport](ChunkReport(sequence_id=number))
    for number, (ms, rows) in sent.items():
        chunk = ActionChunk(sequence_id=number, num_steps=rows)
        ears[ActionChunk](chunk, {'source_timestamp': round(ms * 1e6)})
    return numbers(watch.sent, watch.reported, TICK)


def every_80_ms(count):
    return {FIRST + n: (80.0 * n, 32) for n in range(count)}


def test_chunks_that_are_all_told_of_are_fine():
    sent = every_80_ms(6)

    assert watched(sent, sent) == {'gaps_in_sequence': 0, 'replaced': [], 'lost': []}


def test_no_chunks_are_no_gap():
    assert watched({}, []) == {'gaps_in_sequence': 0, 'replaced': [], 'lost': []}


def test_a_chunk_that_did_not_arrive_here_is_a_gap():
    sent = every_80_ms(6)
    del sent[FIRST + 2], sent[FIRST + 3]

    assert watched(sent, sent)['gaps_in_sequence'] == 2


@pytest.mark.parametrize(('ms', 'kind'), [(2.65, 'replaced'), (20.0, 'replaced'), (20.5, 'lost')])
def test_one_without_a_report_is_replaced_if_the_next_came_within_a_tick(ms, kind):
    sent = every_80_ms(4)
    sent[FIRST + 4] = (sent[FIRST + 3][0] + ms, 0)

    found = watched(sent, [n for n in sent if n != FIRST + 3])

    one = {'number': FIRST + 3, 'rows': 32, 'next_rows': 0, 'next_after_ms': ms}
    assert found == {'gaps_in_sequence': 0, 'replaced': [], 'lost': []} | {kind: [one]}


@pytest.mark.parametrize('place', [0, -1], ids=['first', 'last'])
def test_the_first_and_the_last_are_judged_as_well(place):
    sent = every_80_ms(4)
    silent = sorted(sent)[place]

    found = watched(sent, [n for n in sent if n != silent])

    assert [c['number'] for c in found['lost']] == [silent]
    assert not found['replaced']


def test_one_whose_next_did_not_arrive_here_is_lost():
    sent = every_80_ms(4)
    del sent[FIRST + 2]

    found = watched(sent, [FIRST, FIRST + 2, FIRST + 3])

    assert found['lost'] == [
        {'number': FIRST + 1, 'rows': 32, 'next_rows': None, 'next_after_ms': None}
    ]


def test_a_dispatcher_that_falls_silent_loses_all_that_follow():
    sent = every_80_ms(10)

    found = watched(sent, sorted(sent)[:4])

    assert [c['number'] for c in found['lost']] == sorted(sent)[4:]
