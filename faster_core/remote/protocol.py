"""How policy server and client agree: handshake, errors by name, addresses.

A request is `{'session', ...}`, a reply `{'result': {...}}` or `{'error': {'type', 'message'}}`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from faster_core import errors
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError, FasterVlaError, RemoteError, RemoteProtocolError
from faster_core.remote import wire

PROTOCOL = 1
SERVICE = 'faster_vla.Policy'
DEFAULT_PORT = 7447
DEFAULT_TIMEOUT = 2.0  # s
# Three raw images of 1920 x 1080 are 19 MB.
MAX_MESSAGE_BYTES = 64 * 2**20
# An error of the server's that asks for a new handshake: it is another process than before.
STALE_SESSION = 'StaleSession'
MAX_ERROR_CHARS = 4000

_ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, FasterVlaError)
} | {'ValueError': ValueError}  # a wrong argument of `predict`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Handshake:
    """What a server says about itself before anything else.

    Attributes:
        protocol: of the messages; client and server must have the same.
        version: of the package.
        session: changes with every start of a server.
        embodiment: text of the embodiment file.
        checksum: sha256 of that text.
        cameras: names, as the embodiment has them.
        image_size: side of the square the policy sees, pixels.
        checkpoint_sha: sha256 of the checkpoint's metadata, '' if unknown.
    """

    protocol: int
    version: str
    session: str
    embodiment: str
    checksum: str
    cameras: tuple[str, ...]
    image_size: int
    checkpoint_sha: str = ''

    def encode(self) -> dict[str, Any]:
        """Return it as a map."""
        return {**dataclasses.asdict(self), 'cameras': list(self.cameras)}


def check_protocol(theirs: Any, version: Any, who: str) -> None:
    """Refuse another protocol than ours (RemoteProtocolError names both)."""
    if theirs != PROTOCOL:
        raise RemoteProtocolError(
            f'the {who} speaks protocol {theirs!r} (version {version}), this side protocol '
            f'{PROTOCOL}: install the same version on both machines'
        )


def decode_handshake(value: Any) -> tuple[Handshake, Embodiment]:
    """Return what a server said about itself, and its robot.

    Raises:
        RemoteProtocolError: another protocol, a malformed map, a checksum or cameras that do not
            belong to the embodiment.
        EmbodimentError: the text is no embodiment file.
    """
    if isinstance(value, dict):  # first: another protocol may have other keys
        check_protocol(value.get('protocol'), value.get('version'), 'server')
    f = wire.fields(
        value,
        'handshake',
        protocol=int,
        version=str,
        session=str,
        embodiment=str,
        checksum=str,
        cameras=list,
        image_size=int,
        checkpoint_sha=str,
    )
    embodiment = Embodiment.from_text(f['embodiment'])
    if embodiment.checksum != f['checksum']:
        raise RemoteProtocolError(
            f'handshake: the checksum {f["checksum"][:12]}… is not that of the embodiment, '
            f'{embodiment.checksum[:12]}…'
        )
    if list(embodiment.cameras) != f['cameras']:
        raise RemoteProtocolError(
            f'handshake: cameras {f["cameras"]}, the embodiment has {list(embodiment.cameras)}'
        )
    return Handshake(**{**f, 'cameras': embodiment.cameras}), embodiment


def encode_error(error: Exception) -> dict[str, Any]:
    """Return an error as a map: one of ours under its name, any other as a RemoteError."""
    for kind in type(error).__mro__:
        known = kind is type(error) or issubclass(kind, FasterVlaError)
        if known and _ERRORS.get(kind.__name__) is kind:
            return {'type': kind.__name__, 'message': str(error)[:MAX_ERROR_CHARS]}
    text = f'the policy server failed: {type(error).__name__}: {error}'
    return {'type': RemoteError.__name__, 'message': text[:MAX_ERROR_CHARS]}


def decode_error(value: Any) -> Exception:
    """Return the error of a map; a RemoteError for a class this version does not know."""
    f = wire.fields(value, 'error', type=str, message=str)
    kind = _ERRORS.get(f['type'])
    return RemoteError(f'{f["type"]}: {f["message"]}') if kind is None else kind(f['message'])


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of 'host:port' or '[IPv6]:port' (ConfigError)."""
    host, colon, port = address.rpartition(':')
    bare = host[1:-1] if host.startswith('[') and host.endswith(']') else host
    valid = colon and bare and not set(bare) & set('[]/ ') and (':' in bare) == (bare != host)
    if not valid or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(f'remote: expected host:port, found {address!r}')
    return bare, int(port)


def join_address(host: str, port: int) -> str:
    """Return 'host:port', brackets around an IPv6 address."""
    return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'
