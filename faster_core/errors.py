"""Typed errors of the core.

Each class maps to one result code of `ExecuteInstruction.action`; a message names the value found
and the value expected.
"""


class FasterVlaError(Exception):
    """Base of every error raised on purpose by this project."""


class EmbodimentError(FasterVlaError, ValueError):
    """An embodiment file is missing, malformed or disagrees with another one."""


class CheckpointError(FasterVlaError, ValueError):
    """A checkpoint folder is missing, truncated or does not fit what is asked of it."""


class ConfigError(FasterVlaError, ValueError):
    """A configuration has an unknown key or a value out of range."""


class ObservationError(FasterVlaError, ValueError):
    """An observation lacks an input or carries a wrong shape, type or non-finite value."""


class InstructionError(FasterVlaError, ValueError):
    """An instruction is empty, too long or made of words the policy never saw."""


class DecodeError(FasterVlaError, RuntimeError):
    """Codes could not be decoded into a finite action chunk."""


class RemoteError(FasterVlaError, RuntimeError):
    """The policy server failed; the errors of its policy keep their own classes."""


class RemoteUnavailableError(RemoteError):
    """There is no policy server at the address, or it is gone."""


class RemoteTimeoutError(RemoteError):
    """The policy server did not answer in time."""


class RemoteProtocolError(RemoteError):
    """Client and server speak different protocols, or a message is malformed."""
