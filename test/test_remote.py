"""A policy behind a server: the same answers and errors, and what happens when it is not there."""

from concurrent import futures
import contextlib
import dataclasses
import inspect
import json
import multiprocessing
import signal
import socket
import subprocess
import sys
import threading
import time

from fake_policy import TIMING
import grpc
import numpy as np
from project_files import ROOT
import pytest
import remote_helpers as h
from warm_processes import CONTEXT

from faster_core.embodiment import Embodiment
from faster_core.errors import (
    CheckpointError,
    ConfigError,
    DecodeError,
    EmbodimentError,
    InstructionError,
    ObservationError,
    RemoteError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
)
from faster_core.remote import protocol, wire
from faster_core.remote import server as server_module
from faster_core.remote.client import RemotePolicy
from faster_core.remote.server import PolicyServer

PATIENT = 20.0


def equal(a, b):
    """Whether two chunks agree in all but times."""
    np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_array_equal(a.codes, b.codes)
    fields = ('stamp', 'first_step_offset', 'step_period', 'embodiment_checksum')
    return a.values.dtype == b.values.dtype and all(getattr(a, f) == getattr(b, f) for f in fields)


def raw_call(address, method, data):
    """Return the bytes a server answers to bytes."""
    with grpc.insecure_channel(address) as channel:
        return channel.unary_unary(f'/{protocol.SERVICE}/{method}')(data, timeout=PATIENT)


@contextlib.contextmanager
def impostor(**methods):
    """A gRPC server whose methods answer constant bytes; gives its address."""
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(lambda request, context, answer=answer: answer)
        for name, answer in methods.items()
    }
    grpc_server = grpc.server(futures.ThreadPoolExecutor(1))
    grpc_server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(protocol.SERVICE, handlers),)
    )
    port = grpc_server.add_insecure_port('127.0.0.1:0')
    grpc_server.start()
    try:
        yield f'127.0.0.1:{port}'
    finally:
        grpc_server.stop(None).wait()


@contextlib.contextmanager
def silence():
    """Something that accepts connections and says nothing; gives its address."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        yield f'127.0.0.1:{listener.getsockname()[1]}'


# --- the same as a policy ---------------------------------------------------------------------


def test_the_client_has_the_methods_of_a_policy_that_others_use():
    from faster_core.policy import Policy

    for name in ('embodiment', 'image_size'):
        for kind in (Policy, RemotePolicy):
            assert isinstance(inspect.getattr_static(kind, name), property)
    methods = {
        'predict': ('observation', 'num_levels', 'on_chunk'),
        'check_instruction': ('text',),
        'make_example': (),
        'warmup': ('iterations', 'coarse'),
        'reset': ('seed',),
    }
    for name, parameters in methods.items():
        kinds = (inspect.signature(getattr(k, name)).parameters for k in (Policy, RemotePolicy))
        theirs, ours = kinds
        for parameter in parameters:
            assert ours[parameter].default == theirs[parameter].default, name
        assert list(ours)[: len(parameters) + 1] == ['self', *parameters]


def test_a_chunk_comes_as_the_policy_made_it_and_times_are_those_of_the_whole_call():
    with h.connected() as (client, served):
        observation = h.observation()
        chunk = client.predict(observation)
        assert equal(chunk, served.predict(observation))
        assert chunk.sequence_id == 7
        total = chunk.timing.total_ms
        assert dataclasses.replace(chunk.timing, total_ms=TIMING.total_ms) == TIMING
        last = client.last_call
        assert total == last.total_ms > last.predict_ms + last.decode_ms > 0
        assert last.num_bytes > 1000


def test_raw_images_and_state_reach_the_policy_bit_by_bit():
    with h.connected(images='raw') as (client, served):
        observation = h.observation(stamp=1e9 + 1 / 3)
        client.predict(observation)
        seen = served.observations[-1]
        for camera, image in observation.images.items():
            np.testing.assert_array_equal(seen.images[camera], image)
        np.testing.assert_array_equal(seen.state, observation.state)
        assert (seen.instruction, seen.stamp) == (observation.instruction, observation.stamp)
        assert seen.state.dtype == np.float32


@pytest.mark.parametrize('given_as', ['array', 'file'])
def test_a_jpeg_reaches_the_policy_as_a_local_decoder_sees_it(given_as):
    observation = h.observation()
    files = {c: wire.encode_jpeg(image) for c, image in observation.images.items()}
    images = files if given_as == 'file' else observation.images
    with h.connected() as (client, served):
        client.predict(dataclasses.replace(observation, images=images))
        for camera, file in files.items():
            expected = wire.decode_jpeg(camera, file)
            np.testing.assert_array_equal(served.observations[-1].images[camera], expected)


def test_large_images_are_decoded_in_the_right_order():
    observation = h.observation(size=(480, 640))
    with h.connected() as (client, served):
        client.predict(observation)
        assert client.last_call.num_bytes > server_module.PARALLEL_BYTES
        for camera, image in observation.images.items():
            seen = served.observations[-1].images[camera]
            assert np.abs(seen.astype(int) - image).mean() < 6


@pytest.fixture(scope='module')
def tiny():
    from tiny_checkpoint import tiny_parts

    from faster_core.policy import Policy

    return Policy(tiny_parts(), device='cpu')


@pytest.mark.timeout(300)
def test_the_real_policy_answers_the_same_over_the_wire(tiny):
    # Noise: a JPEG of it is another image.
    noise = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)
    raw = h.observation(
        images=dict(zip(h.CAMERAS, noise, strict=True)), instruction='pick up the red block'
    )
    jpeg = dataclasses.replace(
        raw, images={c: wire.encode_jpeg(image) for c, image in raw.images.items()}
    )
    decoded = dataclasses.replace(
        raw, images={c: wire.decode_jpeg(c, file) for c, file in jpeg.images.items()}
    )
    with h.serving(tiny) as (server, _):
        with RemotePolicy(server.address, timeout=PATIENT, images='raw') as client:
            local = tiny.predict(raw)
            assert equal(client.predict(raw), local)
            assert equal(client.predict(raw, num_levels=1), tiny.predict(raw, num_levels=1))
            assert equal(client.predict(jpeg), tiny.predict(decoded))
            assert client.image_size == tiny.image_size
            assert client.embodiment == tiny.embodiment
            # JPEG is lossy, and this policy answers another chunk to other pixels.
            assert (tiny.predict(decoded).values != local.values).any()
            levels = []
            client.predict(raw, on_chunk=lambda c: levels.append((c.num_levels, c.values)))
            assert [n for n, _ in levels] == [1, 2]
            np.testing.assert_array_equal(levels[0][1], tiny.predict(raw, num_levels=1).values)
            with pytest.raises(ValueError, match=r'num_levels: expected 1\.\.3, found 9'):
                client.predict(raw, num_levels=9)
            with pytest.raises(InstructionError, match='words'):
                client.check_instruction('xyzzy plugh quux')
            client.check_instruction('pick up the red block')
            example, expected = client.make_example(), tiny.make_example()
            assert example.instruction == expected.instruction
            np.testing.assert_array_equal(example.state, expected.state)
            np.testing.assert_array_equal(example.images['head'], expected.images['head'])
            client.warmup(1)
            assert client.predict(raw).sequence_id == 1


def test_coarser_chunks_come_before_the_last_one_in_the_callers_thread():
    with h.connected() as (client, served):
        seen = []

        def on_chunk(chunk):
            seen.append((chunk.num_levels, chunk.stamp, threading.current_thread()))

        chunk = client.predict(h.observation(stamp=3.0), on_chunk=on_chunk)
        me = threading.current_thread()
        assert seen == [(1, 3.0, me), (2, 3.0, me)]
        assert equal(chunk, served.predict(h.observation(stamp=3.0)))
        assert chunk.num_levels is None
        served.error = DecodeError('nan')
        with pytest.raises(DecodeError, match='nan'):
            client.predict(h.observation(), on_chunk=on_chunk)
        served.error = None
        served.gate.clear()
        with pytest.raises(RemoteTimeoutError, match=r'within 0\.3 s'):
            client.predict(h.observation(), on_chunk=on_chunk, timeout=0.3)
        served.gate.set()
        assert len(seen) == 2


def test_an_error_of_on_chunk_is_the_callers_and_the_next_call_works():
    def on_chunk(chunk):
        raise ValueError('of the caller')

    with h.connected() as (client, _):
        with pytest.raises(ValueError, match='of the caller'):
            client.predict(h.observation(), on_chunk=on_chunk)
        client.predict(h.observation())


def test_a_missing_camera_is_for_the_server_to_judge():
    with h.connected() as (client, served):
        images = {'head': h.picture()}
        with pytest.raises(ObservationError, match='no image of camera wrist_left, wrist_right'):
            client.predict(h.observation(images=images))
        assert len(served.observations) == 1


def test_levels_and_seeds_reach_the_policy():
    with h.connected() as (client, served):
        client.predict(h.observation(), num_levels=2)
        assert served.num_levels == 2
        client.predict(h.observation())
        assert served.num_levels is None
        seeds = []
        served.reset = lambda seed=None: seeds.append(seed)
        client.reset()
        client.reset(5)
        assert seeds == [None, 5]


def test_warming_up_goes_the_whole_way_and_resets():
    with h.connected() as (client, served):
        client.warmup(2)
        assert [o.instruction for o in served.observations] == ['an example'] * 2
        assert len(served.resets) == 1
        client.warmup(0)
        assert len(served.observations) == 2


def test_the_server_warms_the_policy_in_the_thread_that_runs_it():
    policy, threads = h.ServedFake(), []
    policy.warmup = lambda iterations, coarse=False: threads.append(
        (threading.current_thread().name, iterations, coarse)
    )
    with h.serving(policy) as (server, _):
        server.warmup(4)
        with RemotePolicy(server.address, timeout=PATIENT) as client:
            client.predict(h.observation())
    (name,) = policy.threads
    assert threads == [(name, 4, False), (name, 1, True)]  # coarse chunks may be wanted


# --- errors of the policy ---------------------------------------------------------------------


@pytest.mark.parametrize(
    'error',
    [
        *(ObservationError('camera head: dark'), InstructionError('unknown'), DecodeError('nan')),
        *(
            ConfigError('x'),
            CheckpointError('y'),
            EmbodimentError('z'),
            ValueError('num_levels: 9'),
        ),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_error_of_the_policy_arrives_as_the_same_error(error):
    with h.connected() as (client, served):
        served.error = error
        with pytest.raises(type(error)) as found:
            client.predict(h.observation())
        assert (type(found.value), str(found.value)) == (type(error), str(error))
        served.error = None
        client.predict(h.observation())


def test_any_other_error_arrives_as_a_remote_error_and_is_logged_by_the_server(caplog):
    with h.connected() as (client, served):
        served.error = ZeroDivisionError('of the policy')
        with pytest.raises(RemoteError, match='ZeroDivisionError: of the policy') as found:
            client.predict(h.observation())
        assert type(found.value) is RemoteError
        assert 'Traceback' in caplog.text
        served.error = None
        client.predict(h.observation())


@pytest.mark.parametrize(
    ('changes', 'error', 'expected'),
    [
        ({'images': {}}, ObservationError, 'no image of camera head, wrist_left, wrist_right'),
        ({'images': {'rear': h.picture()}}, ObservationError, 'no image|unknown camera rear'),
        ({'state': np.zeros(3)}, ObservationError, r'state: expected \[21\], found \[3\]'),
        ({'state': np.full(21, np.nan)}, ObservationError, 'state: not finite'),
        (
            {'images': dict.fromkeys(h.CAMERAS, np.zeros((4, 4)))},
            ObservationError,
            'found float64',
        ),
        ({'instruction': ' '}, InstructionError, 'empty'),
        ({'instruction': 'x' * 9999}, InstructionError, '9999 characters'),
        ({'instruction': None}, InstructionError, 'not a text'),
    ],
)
def test_an_unusable_observation_is_refused_without_asking_the_server(changes, error, expected):
    with h.connected() as (client, served):
        with pytest.raises(error, match=expected):
            client.predict(dataclasses.replace(h.observation(), **changes))
        assert not served.observations


def test_a_damaged_jpeg_is_an_observation_error_that_names_the_camera():
    with h.connected() as (client, served):
        images = {**h.observation().images, 'wrist_left': b'\xff\xd8\xff' + bytes(90)}
        with pytest.raises(ObservationError, match='camera wrist_left: 93 bytes are not a JPEG'):
            client.predict(h.observation(images=images))
        assert not served.observations


def test_instructions_are_checked_here_and_there():
    with h.connected() as (client, _):
        client.check_instruction('grasp the cup')
        with pytest.raises(InstructionError, match='too few words'):
            client.check_instruction('xyzzy')
        with pytest.raises(InstructionError, match='empty'):
            client.check_instruction('')


def test_instructions_are_checked_while_an_inference_runs():
    with h.connected() as (client, served):
        served.gate.clear()
        thread = threading.Thread(target=client.predict, args=(h.observation(),))
        thread.start()
        assert served.entered.wait(PATIENT)
        client.check_instruction('grasp the cup')
        assert not served.gate.is_set()
        served.gate.set()
        thread.join(PATIENT)


# --- handshake --------------------------------------------------------------------------------


def test_the_handshake_tells_robot_version_and_checkpoint():
    with h.serving(checkpoint_sha='abc') as (server, served):
        with RemotePolicy(server.address, timeout=PATIENT) as client:
            assert client.server.checkpoint_sha == 'abc'
            assert client.server.protocol == protocol.PROTOCOL
            assert client.server.cameras == h.CAMERAS
            assert client.embodiment == served.embodiment


def test_an_expected_embodiment_is_compared():
    with h.serving() as (server, served):
        good = served.embodiment.checksum
        RemotePolicy(server.address, timeout=PATIENT, embodiment_checksum=good).close()
        with pytest.raises(EmbodimentError, match=r'r1_lite \(79ad.*expected the checksum 000'):
            RemotePolicy(server.address, timeout=PATIENT, embodiment_checksum='0' * 64)


def test_a_client_of_another_protocol_is_told_both_numbers():
    with h.serving() as (server, _):
        request = wire.pack({'protocol': 99, 'version': '9.9', 'more': 1})
        reply = wire.unpack(raw_call(server.address, 'Handshake', request))
        error = protocol.decode_error(reply['error'])
        assert type(error) is RemoteProtocolError
        assert 'client speaks protocol 99 (version 9.9), this side protocol 1' in str(error)


def test_a_server_of_another_protocol_is_refused_with_both_numbers():
    answer = wire.pack({'result': {'protocol': 2, 'version': '9.9', 'whatever': None}})
    with impostor(Handshake=answer) as address:
        expected = r'server speaks protocol 2 \(version 9\.9\), this side protocol 1'
        with pytest.raises(RemoteProtocolError, match=expected):
            RemotePolicy(address, timeout=PATIENT)


@pytest.mark.parametrize(
    'answer', [b'', b'\xc1', wire.pack({}), wire.pack({'result': 3}), b'\x01']
)
def test_a_server_that_answers_nonsense_is_refused(answer):
    with impostor(Handshake=answer) as address:
        with pytest.raises(RemoteProtocolError):
            RemotePolicy(address, timeout=PATIENT)


def test_another_grpc_server_is_no_policy_server():
    with impostor(Other=b'') as address:
        with pytest.raises(RemoteProtocolError, match=f'listens at {address} is no policy server'):
            RemotePolicy(address, timeout=PATIENT)


@pytest.mark.parametrize(
    'options',
    [{'timeout': 0.0}, {'timeout': float('nan')}, {'images': 'png'}],
    ids=['zero', 'nan', 'png'],
)
def test_a_wrong_option_is_refused_before_anything_is_sent(options):
    with pytest.raises(ConfigError, match='expected'):
        RemotePolicy('127.0.0.1:1', **options)
    with pytest.raises(ConfigError, match="expected host:port, found 'nowhere'"):
        RemotePolicy('nowhere')


# --- what the server refuses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ('method', 'request_bytes', 'expected'),
    [
        ('Predict', b'', '0 bytes are no message'),
        ('Predict', b'\x80\x80', 'no message'),
        ('Predict', wire.pack({'observation': {}}), 'a map with a session'),
        ('Predict', wire.pack({'session': 3}), 'a map with a session'),
        ('Handshake', wire.pack({'protocol': 1}), 'request: missing version'),
        ('Handshake', b'\x90', 'expected a map, found list'),
    ],
)
def test_a_malformed_request_is_answered_and_the_next_one_works(method, request_bytes, expected):
    with h.connected() as (client, served):
        reply = wire.unpack(raw_call(client._address, method, request_bytes))
        error = protocol.decode_error(reply['error'])
        assert type(error) is RemoteProtocolError
        assert expected in str(error)
        assert not served.observations
        client.predict(h.observation())


@pytest.mark.parametrize(
    ('request_map', 'expected'),
    [
        ({}, 'missing num_levels, observation'),
        ({'observation': {}, 'num_levels': None}, 'observation: missing images'),
        (
            {'observation': {}, 'num_levels': 'x'},
            'num_levels: expected int or NoneType, found str',
        ),
        ({'observation': {}, 'num_levels': None, 'x': 1}, 'unknown x'),
    ],
)
def test_a_request_with_wrong_fields_is_answered(request_map, expected):
    with h.connected() as (client, served):
        with pytest.raises(RemoteProtocolError, match=expected):
            client._call('Predict', request_map)
        assert not served.observations


def test_a_message_that_is_too_large_is_refused_and_the_next_one_works(monkeypatch):
    monkeypatch.setattr(protocol, 'MAX_MESSAGE_BYTES', 20_000)
    with h.connected(images='raw') as (client, served):
        with pytest.raises(RemoteError, match=r'RESOURCE_EXHAUSTED.*20000'):
            client.predict(h.observation(size=(200, 200)))
        assert not served.observations
        client.predict(h.observation(size=(10, 10)))


@pytest.mark.parametrize('host', ['0.0.0.0', '192.0.2.1', 'workstation', '::'])
def test_an_address_other_machines_reach_needs_to_be_asked_for(host):
    with pytest.raises(ConfigError, match=f'host: {host} .*no authentication.*--allow-network'):
        PolicyServer(h.ServedFake(), host=host, port=0)


@pytest.mark.parametrize('host', ['127.0.0.1', '127.1.2.3', '::1', 'localhost'])
def test_an_address_of_the_machine_itself_does_not(host):
    assert server_module._is_loopback(host)


def test_once_asked_for_any_address_is_listened_on(monkeypatch):
    monkeypatch.setattr(server_module, '_is_loopback', lambda host: False)
    with h.serving(allow_network=True) as (server, _):
        RemotePolicy(server.address, timeout=PATIENT).close()


def test_two_servers_do_not_share_a_port():
    with h.serving() as (server, _):
        port = protocol.split_address(server.address)[1]
        with pytest.raises(ConfigError, match=f'cannot listen on 127.0.0.1:{port}'):
            PolicyServer(h.ServedFake(), port=port)


# --- a server that is slow, gone, back --------------------------------------------------------


def test_a_server_that_does_not_answer_is_a_time_out_that_names_address_and_time():
    with h.connected() as (client, served):
        served.gate.clear()
        start = time.monotonic()
        with pytest.raises(RemoteTimeoutError) as found:
            client.predict(h.observation(), timeout=0.4)
        assert 0.3 < time.monotonic() - start < 5.0
        assert str(found.value) == (
            f'the policy server at {client._address} did not answer within 0.4 s'
        )
        served.gate.set()
        assert client.predict(h.observation(stamp=3.0)).stamp == 3.0


def test_what_nobody_waits_for_any_more_is_not_computed():
    with h.connected() as (client, served), futures.ThreadPoolExecutor(1) as pool:
        served.gate.clear()
        with RemotePolicy(client._address, timeout=PATIENT) as patient:
            answer = pool.submit(patient.predict, h.observation(stamp=1.0))
            assert served.entered.wait(PATIENT)
            for stamp in (2.0, 3.0):
                with pytest.raises(RemoteTimeoutError):
                    client.predict(h.observation(stamp=stamp), timeout=0.4)
            time.sleep(0.5)  # the server hears of it a little later
            served.gate.set()
            assert answer.result(PATIENT).stamp == 1.0
        client.predict(h.observation(stamp=4.0))
        assert [o.stamp for o in served.observations] == [1.0, 4.0]


def test_silence_is_a_time_out():
    with silence() as address:
        with pytest.raises(RemoteTimeoutError, match=f'{address} did not answer within 0.5 s'):
            RemotePolicy(address, timeout=0.5)


def test_nobody_there_is_told_at_once_with_the_address():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(RemoteUnavailableError, match=rf'127\.0\.0\.1:{port} \(time-out 15 s\)'):
        RemotePolicy(f'127.0.0.1:{port}', timeout=15.0)
    assert time.monotonic() - start < 10.0


def test_a_server_that_is_gone_is_told_and_the_first_call_after_its_return_works():
    with h.serving() as (server, _):
        address, port = server.address, protocol.split_address(server.address)[1]
        client = RemotePolicy(address, timeout=PATIENT)
        client.predict(h.observation())
    for call in (
        lambda: client.predict(h.observation()),
        lambda: client.check_instruction('grasp the cup'),
        client.make_example,
        client.reset,
    ):
        with pytest.raises(RemoteUnavailableError, match=address):
            call()
    for _ in range(2):  # back, gone and back
        with h.serving(port=port):
            assert client.predict(h.observation(stamp=4.0)).stamp == 4.0
    client.close()


def test_a_server_that_ends_during_an_inference_is_told():
    policy = h.ServedFake()
    with h.serving(policy) as (server, _):
        client = RemotePolicy(server.address, timeout=PATIENT)
        policy.gate.clear()
        with futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.predict, h.observation())
            assert policy.entered.wait(PATIENT)
            server._grpc.stop(None).wait()
            with pytest.raises(RemoteUnavailableError):
                answer.result(PATIENT)
        client.close()


def test_another_process_at_the_address_is_shaken_hands_with_before_it_is_asked():
    with h.serving() as (server, _):
        port = protocol.split_address(server.address)[1]
        client = RemotePolicy(server.address, timeout=PATIENT)
        session = client.server.session
    with h.serving(port=port, checkpoint_sha='new') as (_, served):
        # As if the connection had survived, say through a tunnel.
        client._connection = dataclasses.replace(
            client._connection, channel=grpc.insecure_channel(client._address)
        )
        client.predict(h.observation())
        assert len(served.observations) == 1
        assert client.server.session != session
        assert client.server.checkpoint_sha == 'new'
    client.close()


def test_a_server_that_comes_back_with_another_robot_is_refused():
    with h.serving() as (server, _):
        port = protocol.split_address(server.address)[1]
        client = RemotePolicy(server.address, timeout=PATIENT)
    other = h.ServedFake()
    text = other.embodiment.source.replace('action_horizon: 32', 'action_horizon: 16')
    other.embodiment = Embodiment.from_text(text)
    assert other.embodiment.action_horizon == 16
    with h.serving(other, port=port):
        for _ in range(2):
            with pytest.raises(EmbodimentError, match='expected the checksum 79ad'):
                client.predict(h.observation())
    assert not other.observations
    client.close()


def test_a_chunk_for_another_robot_is_refused():
    with h.connected() as (client, served):
        predict = served.predict
        served.predict = lambda o: dataclasses.replace(predict(o), embodiment_checksum='f' * 64)
        with pytest.raises(EmbodimentError, match='fff'):
            client.predict(h.observation())


def test_a_closed_client_says_so():
    with h.connected() as (client, _):
        client.close()
        client.close()
        with pytest.raises(RemoteUnavailableError, match='closed'):
            client.predict(h.observation())


# --- several clients --------------------------------------------------------------------------


def test_clients_get_their_own_answers_and_inferences_never_overlap():
    policy, count = h.ServedFake(), 15

    def use(client, index):
        stamps = [index + k / 64 for k in range(count)]
        return stamps == [client.predict(h.observation(stamp=s)).stamp for s in stamps]

    with h.serving(policy) as (server, _), contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(RemotePolicy(server.address, timeout=PATIENT)) for _ in range(4)
        ]
        with futures.ThreadPoolExecutor(8) as pool:  # two threads share a client
            answers = [pool.submit(use, clients[i % 4], i) for i in range(8)]
            assert all(a.result(60.0) for a in answers)
    assert len(policy.observations) == 8 * count
    assert policy.overlaps == 0
    assert len(policy.threads) == 1


def test_a_call_through_the_loopback_takes_milliseconds():
    # The figure is `faster-vla bench-remote`'s; this is about a delay of the wrong order.
    with h.connected() as (client, _):
        for _ in range(10):
            client.predict(h.observation(size=(96, 96)))
        times = []
        for _ in range(50):
            client.predict(h.observation(size=(96, 96)))
            times.append(client.last_call.total_ms - client.last_call.predict_ms)
        assert np.median(times) < 30.0


# --- commands ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'tiny')


SIGNALS = {'INT': signal.SIGINT, 'TERM': signal.SIGTERM}


@pytest.fixture(scope='module')
def servers(checkpoint):
    """A process for each of the signals, started together: the import of torch takes seconds."""
    command = [sys.executable, '-m', 'faster_vla_ros.cli', 'serve', '--checkpoint', checkpoint]
    processes = {
        name: subprocess.Popen(
            [*map(str, command), '--port', '0', '--device', 'cpu', '--warmup', '1'],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in SIGNALS
    }
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate(timeout=30)


@pytest.mark.timeout(400)
@pytest.mark.parametrize('name', SIGNALS)
def test_serve_serves_a_checkpoint_until_it_is_told_to_end(checkpoint, servers, name):
    from faster_core.policy import Policy
    from faster_core.policy.checkpoint import checkpoint_sha256

    process = servers[name]
    try:
        line = next((t for t in process.stdout if 'serving on' in t), '')
        address = line.split('serving on ')[1].split(';')[0]
        with RemotePolicy(address, timeout=60.0, images='raw') as client:
            assert client.server.checkpoint_sha == checkpoint_sha256(checkpoint)
            observation = h.observation(instruction='pick up the red block')
            local = Policy.from_pretrained(checkpoint, device='cpu').predict(observation)
            assert equal(client.predict(observation), local)
            process.send_signal(SIGNALS[name])
            assert process.wait(60.0) == 0
            with pytest.raises(RemoteUnavailableError):
                client.predict(observation)
    finally:
        process.kill()
        rest = process.communicate(timeout=30)[0]
    assert 'Traceback' not in rest


@pytest.mark.timeout(400)
def test_bench_remote_measures_every_size_and_way(checkpoint, capsys, monkeypatch):
    from faster_core.evaluation import remote as module
    from faster_core.evaluation.remote import SIZES, WAYS
    from faster_vla_ros import cli

    monkeypatch.setattr(module, 'WARMUP', 3)
    options = ['--checkpoint', str(checkpoint), '--device', 'cpu', '--warmup', '1']
    assert cli.main(['bench-remote', *options, '--iterations', '3', '--json']) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    rows = report['rows']
    found = [(r['width'], r['height'], r['images']) for r in rows]
    assert found == [(*size, way) for size in SIZES for way in WAYS]
    for row in rows:
        assert row['iterations'] == 3
        assert 0 < row['overhead_less_decode_ms']['p50'] < row['overhead_ms']['p50']
        assert row['overhead_ms']['p50'] < row['total_ms']['p99']
        assert row['overhead_ms']['p50'] <= row['overhead_ms']['p95'] <= row['overhead_ms']['p99']
    sizes = {(r['width'], r['images']): r['request_kb'] for r in rows}
    assert sizes[640, 'raw'] > 2700 > 1000 > sizes[640, 'jpeg']
    assert sizes[640, 'jpeg'] == sizes[640, 'camera']
    assert report['loopback'] is True


@pytest.mark.timeout(200)
def test_the_commands_say_what_is_wrong_without_a_traceback(tmp_path, capsys, monkeypatch):
    from faster_vla_ros import cli

    monkeypatch.setattr(multiprocessing, 'get_context', lambda method: CONTEXT)
    none = str(tmp_path / 'none')
    for command in ('serve', 'bench-remote'):
        assert cli.main([command, '--checkpoint', none]) == 2
        assert none in capsys.readouterr().err
    assert cli.main(['bench-remote', '--address', 'nowhere']) == 2
    assert 'expected host:port' in capsys.readouterr().err
    for option in (['--port', '70000'], ['--threads', '0']):
        with pytest.raises(SystemExit):
            cli.main(['serve', *option])


@pytest.mark.parametrize('command', ['serve', 'bench-remote'])
def test_the_help_names_the_engines_that_auto_chooses(capsys, command):
    from faster_core.policy.engines.cuda_graph import CudaGraphEngine
    from faster_core.policy.engines.plain import StaticEngine
    from faster_vla_ros import cli

    with pytest.raises(SystemExit):
        cli.main([command, '--help'])
    expected = f'auto: {CudaGraphEngine.name} on a GPU, {StaticEngine.name} on a CPU'
    assert expected in ' '.join(capsys.readouterr().out.split())


def test_serve_refuses_the_network_before_it_answers(checkpoint, capsys):
    from faster_vla_ros import cli

    options = ['--checkpoint', str(checkpoint), '--device', 'cpu', '--host', '0.0.0.0']
    assert cli.main(['serve', *options]) == 2
    assert '--allow-network' in capsys.readouterr().err
