"""Everything that can go wrong in a round, sorted by whose fault it is.

The branches are: the caller's order of calls (`LocalProtocolError`), a peer's bytes or behaviour
(`RemoteProtocolError` and its leaves), nobody's (`TooFewClients`), and settings that cannot be met
(`ParameterError`). Invariants:

- no message ever carries key material, a share, a seed or an input value;
- every error names the value, the limit and the way out where there is one;
- any error out of a machine (`secagg.client`, `secagg.server`) that is not about one refused message
  leaves that machine in its error state for good.

Not here: who may be blamed for a wrong share; that is a result, not an exception (`secagg.server`).
"""

from __future__ import annotations

__all__ = [
    "AuthenticationFailed",
    "DuplicateMessage",
    "InconsistentSets",
    "LocalProtocolError",
    "MalformedMessage",
    "ParameterError",
    "RecordError",
    "RefusedParameters",
    "RemoteProtocolError",
    "SecAggError",
    "TooFewClients",
    "UnexpectedMessage",
]


class SecAggError(Exception):
    """Root of every error that `secagg` raises on purpose."""


class ParameterError(SecAggError, ValueError):
    """Settings that are out of range or that no protocol parameters can meet."""


class LocalProtocolError(SecAggError):
    """The caller asked for a step that the machine's phase does not allow."""


class RecordError(SecAggError):
    """The single-use record refuses this round, or cannot be written; nothing was released."""


class TooFewClients(SecAggError):
    """Fewer clients than the threshold or the floor remain; nothing is released.

    Args:
        have: As the attribute.
        need: As the attribute.
        what: Who is counted, for the message.

    Attributes:
        have: how many remain.
        need: how many are needed.
    """

    def __init__(self, have: int, need: int, what: str = "clients") -> None:
        """Say how many of `what` remain and how many are needed."""
        super().__init__(f"{have} {what} remain and {need} are needed; run a new round with more")
        self.have = have
        self.need = need


class RemoteProtocolError(SecAggError):
    """A peer sent something it must not send.

    Args:
        message: What was wrong with it.
        sender: As the attribute.
        phase: As the attribute.

    Attributes:
        sender: id of the peer, or None where the server itself is the peer or it is not known.
        phase: the phase the receiving machine was in, or "" outside a machine.
    """

    def __init__(self, message: str, *, sender: int | None = None, phase: str = "") -> None:
        """Keep whose message it was and where it arrived."""
        super().__init__(message)
        self.sender = sender
        self.phase = phase


class MalformedMessage(RemoteProtocolError, ValueError):
    """Bytes of the wrong length, version or type, or with a field out of range."""


class UnexpectedMessage(RemoteProtocolError):
    """A well-formed message that this phase has no row for: early, late or never allowed."""


class DuplicateMessage(RemoteProtocolError):
    """A second, different message where exactly one is allowed."""


class AuthenticationFailed(RemoteProtocolError):
    """A signature, tag or ciphertext that does not verify."""


class InconsistentSets(RemoteProtocolError):
    """A set of clients, or a roster, that contradicts what this machine knows."""


class RefusedParameters(RemoteProtocolError):
    """The server offers a round below what this client pins."""
