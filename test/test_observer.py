"""What an observer makes of the messages on the wire, fabricated here one by one."""

import time
import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool, Float32, Header

from faster_vla_msgs.msg import ChunkReport, InferenceTiming
from faster_vla_ros import observer as module
from faster_vla_ros.compat import message_info
from faster_vla_ros.observer import Observer
from faster_vla_ros.session import Session

pytestmark = pytest.mark.ros
DOMAIN = 43
PATIENT = 30.0
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
MS = 1_000_000


class Tape:
    """Feeds an observer: times are milliseconds after `START`."""

    def __init__(self, **callbacks):
        self._take = {}
        node = types.SimpleNamespace(
            create_subscription=lambda _kind, topic, take, _qos: self._take.update({topic: take})
        )
        self.observer = Observer(types.SimpleNamespace(node=node), **callbacks)

    def timing(self, sequence, *, stamp, total=100.0):
        msg = InferenceTiming(
            header=_header(stamp),
            sequence_id=sequence,
            observation_age_ms=7.0,
            preprocess_ms=1.0,
            vision_ms=2.0,
            prefill_ms=3.0,
            decode_block_ms=[4.0, 5.0],
            detokenize_ms=6.0,
            total_ms=total,
        )
        self._take[module.TIMING_TOPIC](msg)

    def report(self, sequence, *, stamp, sent, rows=32, reason=''):
        msg = ChunkReport(
            header=_header(stamp),
            sequence_id=sequence,
            accepted=not reason,
            reason=reason,
            num_rows=rows,
        )
        self._take[module.REPORT_TOPIC](msg, _info(sent, sent + 1))

    def command(self, *, sent, received=None):
        received = sent + 1 if received is None else received
        self._take[module.COMMAND_TOPIC](JointState(), _info(sent, received))

    def give(self, topic, msg):
        self._take[topic](msg)


def _header(ms):
    at = START + round(ms * MS)
    return Header(stamp=Time(sec=at // SECOND, nanosec=at % SECOND))


def _info(sent, received):
    return {
        'source_timestamp': START + round(sent * MS),
        'received_timestamp': START + round(received * MS),
    }


def first_commands(tape):
    return {
        c.sequence_id: (c.first_command_ns - START) / MS
        for c in tape.observer.chunks
        if c.first_command_ns is not None
    }


# --- first command ----------------------------------------------------------------------------


def test_the_first_command_is_the_first_one_sent_after_the_report():
    tape = Tape()
    tape.command(sent=100)
    tape.report(1, stamp=0, sent=110)
    tape.command(sent=120, received=123)
    tape.command(sent=140)
    assert first_commands(tape) == {1: 123.0}


def test_a_command_that_arrives_before_the_report_it_followed_still_counts():
    tape = Tape()
    tape.command(sent=100)
    tape.command(sent=120, received=121)
    tape.report(1, stamp=0, sent=110)  # overtaken on the wire
    assert first_commands(tape) == {1: 121.0}


def test_a_command_sent_at_the_very_time_of_the_report_was_computed_before_it():
    tape = Tape()
    tape.report(1, stamp=0, sent=110)
    tape.command(sent=110)
    assert first_commands(tape) == {}


def test_every_chunk_has_a_first_command_of_its_own():
    tape = Tape()
    for sequence, at in ((1, 100), (2, 300)):
        tape.report(sequence, stamp=at - 90, sent=at)
        tape.command(sent=at + 10)
    assert first_commands(tape) == {1: 111.0, 2: 311.0}


def test_a_rejected_chunk_has_no_first_command():
    tape = Tape()
    tape.report(1, stamp=0, sent=110, reason='too_old')
    tape.command(sent=120)
    assert first_commands(tape) == {}
    assert tape.observer.chunks[0].report.reason == 'too_old'


def test_latency_of_the_first_command_leaves_inference_out():
    tape = Tape()
    tape.timing(1, stamp=50, total=100.0)
    tape.report(1, stamp=50, sent=160)
    tape.command(sent=170, received=175)
    assert tape.observer.chunks[0].first_command_ms == pytest.approx(175 - 50 - 100)


def test_latency_of_the_first_command_is_unknown_without_its_timing():
    tape = Tape()
    tape.report(1, stamp=50, sent=160)
    tape.command(sent=170)
    assert tape.observer.chunks[0].first_command_ms is None


# --- chunks -----------------------------------------------------------------------------------


@pytest.mark.parametrize('report_first', [False, True])
def test_a_chunk_is_told_once_when_timing_and_report_are_there(report_first):
    told = []
    tape = Tape(on_chunk=told.append)
    steps = [lambda: tape.timing(4, stamp=0), lambda: tape.report(4, stamp=0, sent=110)]
    if report_first:
        steps.reverse()
    steps[0]()
    assert told == []
    steps[1]()
    tape.command(sent=120)
    assert [c.sequence_id for c in told] == [4]
    assert told[0].stamp_ns == START
    assert told[0].observation_age_ms == 7.0
    assert told[0].timing.decode_block_ms == (4.0, 5.0)
    assert told[0].timing.total_ms == 100.0


def test_a_chunk_without_rows_is_a_flush_and_no_chunk():
    told = []
    tape = Tape(on_chunk=told.append)
    tape.report(1, stamp=0, sent=110)
    tape.report(2, stamp=100, sent=210, rows=0)
    tape.command(sent=220)
    assert tape.observer.flushes_ns == [START + 210 * MS]
    assert [c.sequence_id for c in tape.observer.chunks] == [1]
    assert told == []


def test_chunks_are_in_order_even_if_their_reports_are_not():
    tape = Tape()
    for sequence in (3, 1, 2):
        tape.report(sequence, stamp=sequence, sent=100 + sequence)
    assert [c.sequence_id for c in tape.observer.chunks] == [1, 2, 3]


def test_clear_forgets_the_episode_before():
    tape = Tape()
    tape.timing(1, stamp=0)
    tape.report(1, stamp=0, sent=110)
    tape.report(2, stamp=0, sent=115, rows=0)
    tape.give(module.SUCCESS_TOPIC, Bool(data=True))
    tape.give(module.FACTOR_TOPIC, Float32(data=0.5))
    tape.observer.clear()
    tape.command(sent=120)
    observer = tape.observer
    assert observer.chunks == [] and observer.flushes_ns == []
    assert observer.success is False and observer.real_time_factors == []


# --- the rest ---------------------------------------------------------------------------------


def test_success_is_what_was_said_last():
    tape = Tape()
    tape.give(module.SUCCESS_TOPIC, Bool(data=True))
    assert tape.observer.success
    tape.give(module.SUCCESS_TOPIC, Bool(data=False))
    assert not tape.observer.success


def test_frames_are_counted_and_handed_on_with_their_own_time():
    frames = []
    tape = Tape(on_frame=lambda seconds, jpeg: frames.append((seconds, bytes(jpeg))))
    tape.give(module.CAMERA_TOPIC, CompressedImage(header=_header(250), data=b'jpeg'))
    assert frames == [(pytest.approx(START / SECOND + 0.25), b'jpeg')]
    assert tape.observer.num_frames == 1


def test_the_wire_gives_the_times_the_matching_needs():
    """rclpy passes the DDS times of a message to a callback with two arguments."""
    with Session(domain=DOMAIN, name='test') as session:
        observer = Observer(session)
        reports = session.node.create_publisher(ChunkReport, module.REPORT_TOPIC, 10)
        commands = session.node.create_publisher(JointState, module.COMMAND_TOPIC, 1)
        assert session.spin_until(
            lambda: reports.get_subscription_count() and commands.get_subscription_count(), PATIENT
        )
        before = time.time_ns()
        reports.publish(ChunkReport(sequence_id=1, accepted=True, num_rows=32))
        assert session.spin_until(lambda: observer.chunks, PATIENT)
        commands.publish(JointState())
        assert session.spin_until(lambda: observer.chunks[0].first_command_ns, PATIENT)
        assert before < observer.chunks[0].first_command_ns < time.time_ns()


@pytest.mark.parametrize('supported', [True, False], ids=['newer', 'humble'])
def test_times_of_messages_are_there_on_every_distribution(supported, monkeypatch):
    monkeypatch.setattr(message_info, 'SUPPORTED', supported)
    seen = []
    with Session(domain=DOMAIN, localhost=True) as session:
        take = message_info.with_info(lambda message, info: seen.append((message, info)))
        session.node.create_subscription(Bool, 'told', take, 1)
        publisher = session.node.create_publisher(Bool, 'told', 1)
        assert session.spin_until(publisher.get_subscription_count, PATIENT)
        before = time.time_ns()
        publisher.publish(Bool(data=True))
        assert session.spin_until(lambda: seen, PATIENT)
    ((message, info),) = seen
    assert message.data
    assert before <= info['source_timestamp'] <= info['received_timestamp'] <= time.time_ns()
    assert (info['source_timestamp'] == info['received_timestamp']) is not supported
