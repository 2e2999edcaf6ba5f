"""The policy server: one policy, one inference at a time, any number of clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
import contextlib
import ipaddress
import logging
import queue
import secrets
import time
from typing import Any, Protocol

import grpc

from faster_core import __version__
from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.errors import (
    ConfigError,
    FasterVlaError,
    RemoteProtocolError,
)
from faster_core.observation import Observation
from faster_core.remote import protocol, wire

DEFAULT_HOST = '127.0.0.1'
# Calls that are read and answered at the same time; more wait, and far more are refused.
NUM_WORKERS = 8
MAX_CALLS = 32
NUM_DECODERS = 3
# Below it, handing images to other threads costs more than it saves.
PARALLEL_BYTES = 50_000
MAX_WARMUP = 100
STOP_GRACE = 1.0  # s that calls in progress get

_log = logging.getLogger(__name__)


class ServedPolicy(Protocol):
    """What the server needs of `faster_core.policy.Policy`."""

    embodiment: Embodiment
    image_size: int

    def predict(
        self,
        observation: Observation,
        num_levels: int | None = None,
        on_chunk: Callable[[ActionChunk], None] | None = None,
    ) -> ActionChunk:
        """Return a chunk, after coarser ones for `on_chunk`."""

    def check_instruction(self, text: str) -> None:
        """Refuse what the policy does not understand; called beside an inference."""

    def make_example(self) -> Observation:
        """Return an observation of the right shapes."""

    def reset(self, seed: int | None = None) -> None:
        """Start anew."""

    def warmup(self, iterations: int = 3, *, coarse: bool = False) -> None:
        """Run a few inferences; `coarse`: with `on_chunk`."""


class PolicyServer:
    """Serves a policy over gRPC. There is no authentication: whoever reaches the port may call.

    All inference runs in one thread of its own, in the order the calls came: a policy is not
    thread-safe, and captured graphs belong to the thread that captured them.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        *,
        host: str = DEFAULT_HOST,
        port: int = protocol.DEFAULT_PORT,
        checkpoint_sha: str = '',
        allow_network: bool = False,
    ) -> None:
        """Bind the address; `start` answers.

        Args:
            policy: ready to run.
            host: address to listen on.
            port: 0 takes a free one, see `address`.
            checkpoint_sha: told to clients, '' if unknown.
            allow_network: without it only an address of this machine itself is accepted.

        Raises:
            ConfigError: an address of the network without `allow_network`, or one that cannot be
                listened on.
        """
        if not allow_network and not _is_loopback(host):
            raise ConfigError(
                f'host: {host} can be reached from other machines, and there is no '
                'authentication; --allow-network accepts that, an SSH tunnel to '
                f'{DEFAULT_HOST} avoids it'
            )
        self._policy, embodiment = policy, policy.embodiment
        self._handshake = protocol.Handshake(
            protocol=protocol.PROTOCOL,
            version=__version__,
            session=secrets.token_hex(8),
            embodiment=embodiment.source,
            checksum=embodiment.checksum,
            cameras=embodiment.cameras,
            image_size=policy.image_size,
            checkpoint_sha=checkpoint_sha,
        )
        self._inference = futures.ThreadPoolExecutor(1, 'inference')
        self._decoders = futures.ThreadPoolExecutor(NUM_DECODERS, 'decode')
        self._grpc = grpc.server(
            futures.ThreadPoolExecutor(NUM_WORKERS, 'call'),
            options=[
                ('grpc.max_receive_message_length', protocol.MAX_MESSAGE_BYTES),
                ('grpc.max_send_message_length', protocol.MAX_MESSAGE_BYTES),
                ('grpc.so_reuseport', 0),  # or two servers would share a port
            ],
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        handlers = {
            'Handshake': _unary(self._shake_hands),
            'Predict': _unary(self._in_session(self._predict)),
            'PredictByLevel': _stream(self._in_session(self._predict_by_level)),
            'CheckInstruction': _unary(self._in_session(self._check_instruction)),
            'Example': _unary(self._in_session(self._example)),
            'Reset': _unary(self._in_session(self._reset)),
        }
        self._grpc.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(protocol.SERVICE, handlers),)
        )
        self.address = protocol.join_address(host, self._bind(host, port))

    def _bind(self, host: str, port: int) -> int:
        address = protocol.join_address(host, port)
        try:
            bound = self._grpc.add_insecure_port(address)
        except RuntimeError:
            bound = 0
        if not bound:
            self.stop()
            raise ConfigError(f'cannot listen on {address}: in use, or no address of this machine')
        return bound

    def warmup(self, iterations: int) -> None:
        """Warm the policy in the thread that will run it; before `start`.

        Coarse chunks too: whether a client will want them is not known.
        """
        self._inference.submit(self._policy.warmup, iterations).result()
        self._inference.submit(self._policy.warmup, 1, coarse=True).result()

    def start(self) -> None:
        """Answer from now on."""
        self._grpc.start()

    def stop(self, grace: float = STOP_GRACE) -> None:
        """Answer no more; an inference in progress is waited for."""
        self._grpc.stop(grace).wait()
        self._inference.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)

    def __enter__(self) -> PolicyServer:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    # --- methods ------------------------------------------------------------------------------

    def _shake_hands(self, request: Any, context: grpc.ServicerContext) -> dict[str, Any]:
        if isinstance(request, dict):
            protocol.check_protocol(request.get('protocol'), request.get('version'), 'client')
        wire.fields(request, 'request', protocol=int, version=str)
        return self._handshake.encode()

    def _in_session(self, method: _Method) -> _Method:
        """Refuse a client that shook hands with another process: its robot may be another."""

        def checked(request: Any, context: grpc.ServicerContext) -> Any:
            if not isinstance(request, dict) or type(request.get('session')) is not str:
                raise RemoteProtocolError('request: expected a map with a session')
            if request['session'] != self._handshake.session:
                raise _StaleSession
            return method({k: v for k, v in request.items() if k != 'session'}, context)

        return checked

    def _predict(self, request: Any, context: grpc.ServicerContext) -> dict[str, Any]:
        return self._result(self._submit(self._inference_of(request), context), context)

    def _predict_by_level(
        self, request: Any, context: grpc.ServicerContext
    ) -> Iterator[dict[str, Any]]:
        """As `_predict`, with the coarser chunks before the last one."""
        coarse: queue.SimpleQueue[ActionChunk | None] = queue.SimpleQueue()
        task = self._inference_of(request, on_chunk=coarse.put)
        future = self._submit(task, context)
        future.add_done_callback(lambda _: coarse.put(None))
        with contextlib.suppress(queue.Empty):  # the time is over, as `_result` will find
            while (chunk := coarse.get(timeout=context.time_remaining())) is not None:
                yield {'coarse': wire.encode_chunk(chunk)}
        yield {'result': self._result(future, context)}

    def _inference_of(self, request: Any, **options: Any) -> Callable[[], dict[str, Any]]:
        """Read a request; returns what is left to do in the inference thread."""
        f = wire.fields(request, 'request', observation=dict, num_levels=(int, type(None)))
        start = time.perf_counter_ns()
        observation = wire.decode_observation(
            f['observation'], parallel=self._decoders.map, parallel_bytes=PARALLEL_BYTES
        )
        decode_ms = (time.perf_counter_ns() - start) / 1e6
        if f['num_levels'] is not None:  # a policy without levels needs no such argument
            options['num_levels'] = f['num_levels']

        def infer() -> dict[str, Any]:
            begin = time.perf_counter_ns()
            chunk = self._policy.predict(observation, **options)
            predict_ms = (time.perf_counter_ns() - begin) / 1e6
            return {
                'chunk': wire.encode_chunk(chunk),
                'decode_ms': decode_ms,
                'predict_ms': predict_ms,
            }

        return infer

    def _check_instruction(self, request: Any, context: grpc.ServicerContext) -> dict[str, Any]:
        f = wire.fields(request, 'request', text=str)
        self._policy.check_instruction(f['text'])
        return {}

    def _example(self, request: Any, context: grpc.ServicerContext) -> dict[str, Any]:
        wire.fields(request, 'request')
        return {'observation': wire.encode_observation(self._policy.make_example(), 'raw')}

    def _reset(self, request: Any, context: grpc.ServicerContext) -> dict[str, Any]:
        f = wire.fields(request, 'request', seed=(int, type(None)))
        future = self._submit(lambda: self._policy.reset(f['seed']), context)
        self._result(future, context)
        return {}

    def _submit(
        self, task: Callable[[], Any], context: grpc.ServicerContext
    ) -> futures.Future[Any]:
        """Queue a task for the inference thread; it is left out if its client has gone by then."""

        def run() -> Any:
            if not context.is_active():
                raise _GaveUp
            return task()

        return self._inference.submit(run)

    def _result(self, future: futures.Future[Any], context: grpc.ServicerContext) -> Any:
        done, _ = futures.wait([future], context.time_remaining())
        if not done:
            future.cancel()
            raise _GaveUp
        return future.result()


_Method = Callable[[Any, grpc.ServicerContext], Any]


class _StaleSession(Exception):  # noqa: N818 - an answer, not an error
    """The client knows another process."""


class _GaveUp(Exception):  # noqa: N818 - nobody is there to be told
    """The client has cancelled the call, or its time is over."""


def _unary(method: _Method) -> grpc.RpcMethodHandler:
    """Return the handler of a method that gives a result."""

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        with _errors(context) as errors:
            return wire.pack({'result': method(wire.unpack(request), context)})
        return errors[0]

    return grpc.unary_unary_rpc_method_handler(answer)


def _stream(method: _Method) -> grpc.RpcMethodHandler:
    """Return the handler of a method that gives several replies."""

    def answers(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with _errors(context) as errors:
            yield from map(wire.pack, method(wire.unpack(request), context))
        yield from errors

    return grpc.unary_stream_rpc_method_handler(answers)


@contextlib.contextmanager
def _errors(context: grpc.ServicerContext) -> Iterator[list[bytes]]:
    """Give a list that holds the reply about an error, if there was one."""
    replies: list[bytes] = []
    error = None
    try:
        yield replies
    except _StaleSession:
        error = {'type': protocol.STALE_SESSION, 'message': ''}
    except _GaveUp:
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, 'nobody waits for the answer')
    except FasterVlaError as e:
        error = protocol.encode_error(e)
    except Exception as e:  # the client gets a line, this side the whole story
        _log.exception('a call failed')
        error = protocol.encode_error(e)
    if error is not None:
        replies.append(wire.pack({'error': error}))


def _is_loopback(host: str) -> bool:
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
