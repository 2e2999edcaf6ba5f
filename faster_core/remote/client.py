"""A policy that runs on another machine; needs neither torch nor a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
import threading
import time
from typing import Any

import grpc
import numpy as np

from faster_core import __version__
from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.errors import (
    ConfigError,
    EmbodimentError,
    RemoteError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
)
from faster_core.observation import check_instruction, Observation
from faster_core.remote import protocol, wire

# The first inference of a server that was not warmed may compile for long.
WARMUP_TIMEOUT = 120.0
# A connection is made anew by the next call, not by gRPC behind our back after a pause of its own.
_OPTIONS = (
    ('grpc.max_receive_message_length', protocol.MAX_MESSAGE_BYTES),
    ('grpc.max_send_message_length', protocol.MAX_MESSAGE_BYTES),
    ('grpc.use_local_subchannel_pool', 1),
    ('grpc.enable_http_proxy', 0),
    ('grpc.enable_retries', 0),
)
_PIXEL = np.zeros((1, 1, 3), np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallTiming:
    """Milliseconds of one `predict`.

    Attributes:
        total_ms: the whole call, as the caller saw it.
        predict_ms: `Policy.predict` in the server.
        decode_ms: decoding of the images in the server.
        num_bytes: size of the request.
    """

    total_ms: float
    predict_ms: float
    decode_ms: float
    num_bytes: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Connection:
    channel: grpc.Channel
    server: protocol.Handshake
    embodiment: Embodiment


class RemotePolicy:
    """`faster_core.policy.Policy` over the network: same methods, same errors.

    Beside the policy's own errors every method may raise a `RemoteError`: the server is gone
    (`RemoteUnavailableError`), silent (`RemoteTimeoutError`), or speaks another protocol
    (`RemoteProtocolError`). The next call connects again. Sampling state is the server's: clients
    of one server share it. Methods may be called from several threads.

    Attributes:
        takes_jpeg: images may also be JPEG files (bytes); they travel as they are.
        last_call: times of the newest `predict`.
    """

    takes_jpeg = True

    def __init__(
        self,
        address: str,
        *,
        timeout: float = protocol.DEFAULT_TIMEOUT,
        images: str = 'jpeg',
        embodiment_checksum: str = '',
    ) -> None:
        """Connect and shake hands.

        Args:
            address: 'host:port'.
            timeout: seconds a call may take, connecting included.
            images: how arrays are sent: 'jpeg' (lossy, small) or 'raw'.
            embodiment_checksum: what the server's embodiment must have; '' takes any.

        Raises:
            ConfigError: an argument out of range.
            RemoteError: no server there, no answer, or another protocol.
            EmbodimentError: the server's embodiment has another checksum.
        """
        protocol.split_address(address)
        if images not in wire.IMAGES:
            raise ConfigError(f'images: expected {" or ".join(wire.IMAGES)}, found {images!r}')
        self._address, self._images = address, images
        self._timeout = _positive(timeout)
        self._checksum = embodiment_checksum
        self._lock = threading.Lock()
        self._closed = False
        self._connection: _Connection | None = None
        self.last_call: CallTiming | None = None
        connection, _ = self._connected(self._timeout, None)
        self._embodiment, self._server = connection.embodiment, connection.server
        # Whoever answers later must serve the same robot.
        self._checksum = connection.server.checksum

    @property
    def embodiment(self) -> Embodiment:
        """The robot the server's policy was trained for."""
        return self._embodiment

    @property
    def image_size(self) -> int:
        """Side of the square the policy sees, pixels."""
        return self._server.image_size

    @property
    def server(self) -> protocol.Handshake:
        """What the server said about itself at the newest connection."""
        return self._server

    def predict(
        self,
        observation: Observation,
        num_levels: int | None = None,
        on_chunk: Callable[[ActionChunk], None] | None = None,
        *,
        timeout: float | None = None,
    ) -> ActionChunk:
        """Have the server compute the chunk for an observation.

        Args:
            observation: as for `Policy.predict`; an image may also be the bytes of a JPEG file.
            num_levels: decode only the first levels of the residual quantiser.
            on_chunk: called with every coarser chunk, in the caller's thread.
            timeout: seconds for this call; None takes the client's.

        Returns:
            Chunk as of `Policy.predict`; stages are the server's, `timing.total_ms` is the whole
            call.

        Raises:
            ObservationError, InstructionError, DecodeError: as `Policy.predict`.
            EmbodimentError: another server answers now, for another robot.
            RemoteError: the server did not answer.
        """
        start = time.perf_counter_ns()
        self._validate(observation)
        request = {
            'observation': wire.encode_observation(observation, self._images),
            'num_levels': num_levels,
        }
        if on_chunk is None:
            result, num_bytes = self._call('Predict', request, timeout)
        else:
            result, num_bytes = self._call(
                'PredictByLevel', request, timeout, lambda c: on_chunk(self._chunk(c, start))
            )
        f = wire.fields(result, 'result', chunk=dict, decode_ms=float, predict_ms=float)
        chunk = self._chunk(f['chunk'], start)
        self.last_call = CallTiming(
            total_ms=chunk.timing.total_ms,
            predict_ms=f['predict_ms'],
            decode_ms=f['decode_ms'],
            num_bytes=num_bytes,
        )
        return chunk

    def _validate(self, observation: Observation) -> None:
        """Refuse what no policy of this robot takes, before it is sent."""
        files = {c: _PIXEL for c, image in observation.images.items() if isinstance(image, bytes)}
        # How many cameras may be missing is the server's to say.
        dataclasses.replace(observation, images={**observation.images, **files}).validate(
            self._embodiment, len(self._embodiment.cameras)
        )

    def _chunk(self, value: Any, start: int) -> ActionChunk:
        chunk = wire.decode_chunk(value, self._embodiment)
        total = (time.perf_counter_ns() - start) / 1e6
        return dataclasses.replace(chunk, timing=dataclasses.replace(chunk.timing, total_ms=total))

    def check_instruction(self, text: str) -> None:
        """Refuse an empty, over-long or unknown instruction (InstructionError, RemoteError)."""
        check_instruction(text)
        self._call('CheckInstruction', {'text': text})

    def make_example(self) -> Observation:
        """Return the server's example: an observation of the right shapes."""
        result, _ = self._call('Example', {})
        return wire.decode_observation(
            wire.fields(result, 'result', observation=dict)['observation']
        )

    def warmup(self, iterations: int = 3, *, coarse: bool = False) -> None:
        """Run a few inferences over the whole way, then `reset` (`Policy.warmup`)."""
        if not iterations:
            return
        example, on_chunk = self.make_example(), (lambda _: None) if coarse else None
        for _ in range(iterations):
            self.predict(example, on_chunk=on_chunk, timeout=max(self._timeout, WARMUP_TIMEOUT))
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Start an episode: the server's sampling starts from `seed` again, for all clients."""
        self._call('Reset', {'seed': seed})

    def close(self) -> None:
        """Disconnect; calls in progress end, and later ones fail."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.channel.close()

    def __enter__(self) -> RemotePolicy:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self.close()

    # --- the wire -----------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        request: dict[str, Any],
        timeout: float | None = None,
        on_coarse: Callable[[Any], None] | None = None,
    ) -> tuple[dict[str, Any], int]:
        """Return the result of a method and the size of the request in bytes."""
        timeout = self._timeout if timeout is None else _positive(timeout)
        deadline = None
        for _ in range(2):
            connection, deadline = self._connected(timeout, deadline)
            data = wire.pack({'session': connection.server.session, **request})
            try:
                replies = self._send(
                    connection.channel, method, data, timeout, deadline, on_coarse is not None
                )
                reply = next(replies)
                while 'coarse' in reply and on_coarse is not None:
                    on_coarse(reply['coarse'])
                    reply = next(replies)
            except RemoteError:
                # Whatever it was, a new connection is the better start of the next call: a dead
                # one looks like a slow one for minutes.
                self._forget(connection)
                raise
            if 'result' in reply:
                return wire.fields(reply, 'reply', result=dict)['result'], len(data)
            error = wire.fields(reply, 'reply', error=dict)['error']
            if error.get('type') != protocol.STALE_SESSION:
                raise protocol.decode_error(error)
            self._forget(connection)  # another process than before: shake hands, ask again
        raise RemoteUnavailableError(f'the policy server at {self._address} restarts all the time')

    def _connected(self, timeout: float, deadline: float | None) -> tuple[_Connection, float]:
        """Return the connection, and the deadline of a call, which may just begin."""
        # While another thread connects time does not count: none would be left to the call.
        if not self._lock.acquire(timeout=timeout):
            raise self._failure(grpc.StatusCode.DEADLINE_EXCEEDED, 'connecting', timeout)
        try:
            deadline = time.monotonic() + timeout if deadline is None else deadline
            if self._closed:
                raise RemoteUnavailableError(f'the client of {self._address} is closed')
            if self._connection is None:
                self._connection = self._connect(timeout, deadline)
                self._server = self._connection.server
            return self._connection, deadline
        finally:
            self._lock.release()

    def _connect(self, timeout: float, deadline: float) -> _Connection:
        channel = grpc.insecure_channel(self._address, options=_OPTIONS)
        try:
            request = wire.pack({'protocol': protocol.PROTOCOL, 'version': __version__})
            reply = next(self._send(channel, 'Handshake', request, timeout, deadline))
            if 'error' in reply:
                raise protocol.decode_error(reply['error'])
            result = wire.fields(reply, 'reply', result=dict)['result']
            server, embodiment = protocol.decode_handshake(result)
            if self._checksum and server.checksum != self._checksum:
                raise EmbodimentError(
                    f'the policy server at {self._address} has the embodiment {embodiment.name} '
                    f'({server.checksum[:12]}…), expected the checksum {self._checksum[:12]}…'
                )
        except BaseException:
            channel.close()
            raise
        return _Connection(channel=channel, server=server, embodiment=embodiment)

    def _forget(self, connection: _Connection) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None
        connection.channel.close()

    def _send(
        self,
        channel: grpc.Channel,
        method: str,
        data: bytes,
        timeout: float,
        deadline: float,
        stream: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Give the replies, maps; RemoteError if one does not come."""
        call = (channel.unary_stream if stream else channel.unary_unary)(
            f'/{protocol.SERVICE}/{method}'
        )
        left = max(deadline - time.monotonic(), 1e-3)
        try:
            answers = call(data, timeout=left)
        except grpc.RpcError as e:
            raise self._failure(e.code(), e.details(), timeout) from e
        except ValueError as e:  # another thread has closed the channel
            raise self._failure(grpc.StatusCode.CANCELLED, str(e), timeout) from e
        answers = iter(answers if stream else (answers,))
        while True:
            try:
                answer = next(answers)
            except StopIteration:
                raise RemoteProtocolError(
                    f'the policy server at {self._address} sent no result'
                ) from None
            except grpc.RpcError as e:
                raise self._failure(e.code(), e.details(), timeout) from e
            reply = wire.unpack(answer)
            if not isinstance(reply, dict):
                raise RemoteProtocolError(f'the policy server at {self._address} sent no map')
            yield reply

    def _failure(self, code: grpc.StatusCode, details: str | None, timeout: float) -> RemoteError:
        where = f'policy server at {self._address}'
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return RemoteTimeoutError(f'the {where} did not answer within {timeout:g} s')
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return RemoteUnavailableError(f'no {where} (time-out {timeout:g} s): {details}')
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return RemoteProtocolError(f'what listens at {self._address} is no policy server')
        return RemoteError(f'the {where} refused the call: {code.name}: {details}')


def _positive(timeout: float) -> float:
    if not 0 < timeout < float('inf'):
        raise ConfigError(f'timeout: expected seconds > 0, found {timeout}')
    return timeout
