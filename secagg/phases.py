"""Who may do what next: the transition tables of both machines, as data.

`CLIENT[adversary][phase][event]` and `SERVER[adversary][phase][event]` give the next phase; an event
without an entry raises. An event is the type of an arriving message, or a call of the machine's owner
(`MASK`, `ADVANCE`). `docs/protocol.md` draws its state diagrams from these tables.

- The order of rounds is Bonawitz et al. 2017, Fig. 4, with the consistency round in malicious mode.
- A machine that raised while it handled an event is in `FAILED` for good, its secrets dropped; only the
  server survives a client's bad message, which it refuses without a trace in its state.

Not here: what the machines do on the way (`secagg.client`, `secagg.server`).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from secagg.errors import LocalProtocolError, UnexpectedMessage

__all__ = ["ADVANCE", "CLIENT", "MASK", "SERVER", "STAGES", "Kind", "Phase", "Table", "after"]


class Kind(IntEnum):
    """Type of a message; the number is on the wire."""

    OFFER = 1
    ADVERTISE = 2
    ROSTER = 3
    SHARE = 4
    INBOX = 5
    MASKED_INPUT = 6
    SURVIVORS = 7
    CONSISTENCY = 8
    TAGS = 9
    UNMASK = 10


class Phase(StrEnum):
    """Where a machine stands. A client is named after what it did, a server after what it collects."""

    NEW = "new"
    ADVERTISED = "advertised"
    SHARED = "shared"
    READY = "ready"
    MASKED = "masked"
    TAGGED = "tagged"

    ADVERTISE = "advertise"
    SHARE = "share"
    MASKED_INPUT = "masked_input"
    CONSISTENCY = "consistency"
    UNMASK = "unmask"

    DONE = "done"
    FAILED = "failed"


MASK = "mask"
ADVANCE = "advance"

Event = Kind | str
Table = dict[Phase, dict[Event, Phase]]

_CLIENT: Table = {
    Phase.NEW: {Kind.OFFER: Phase.ADVERTISED},
    Phase.ADVERTISED: {Kind.ROSTER: Phase.SHARED},
    Phase.SHARED: {Kind.INBOX: Phase.READY},
    Phase.READY: {MASK: Phase.MASKED},
}
_SERVER: Table = {
    Phase.ADVERTISE: {Kind.ADVERTISE: Phase.ADVERTISE, ADVANCE: Phase.SHARE},
    Phase.SHARE: {Kind.SHARE: Phase.SHARE, ADVANCE: Phase.MASKED_INPUT},
    Phase.UNMASK: {Kind.UNMASK: Phase.UNMASK, ADVANCE: Phase.DONE},
}

CLIENT: dict[str, Table] = {
    "semi_honest": {**_CLIENT, Phase.MASKED: {Kind.SURVIVORS: Phase.DONE}},
    "malicious": {
        **_CLIENT,
        Phase.MASKED: {Kind.SURVIVORS: Phase.TAGGED},
        Phase.TAGGED: {Kind.TAGS: Phase.DONE},
    },
}

SERVER: dict[str, Table] = {
    "semi_honest": {
        **_SERVER,
        Phase.MASKED_INPUT: {Kind.MASKED_INPUT: Phase.MASKED_INPUT, ADVANCE: Phase.UNMASK},
    },
    "malicious": {
        **_SERVER,
        Phase.MASKED_INPUT: {Kind.MASKED_INPUT: Phase.MASKED_INPUT, ADVANCE: Phase.CONSISTENCY},
        Phase.CONSISTENCY: {Kind.CONSISTENCY: Phase.CONSISTENCY, ADVANCE: Phase.UNMASK},
    },
}

STAGES: dict[str, tuple[Phase, ...]] = {
    adversary: tuple(phase for phase in Phase if phase in table) for adversary, table in SERVER.items()
}
"""The stages of a round, in order: the phases in which the server collects."""


def after(table: Table, phase: Phase, event: Event, *, sender: int | None = None) -> Phase:
    """Look up the next phase.

    Raises:
        UnexpectedMessage: no entry for a message; its sender's fault.
        LocalProtocolError: no entry for a call; the caller's fault.
    """
    following = table.get(phase, {}).get(event)
    if following is not None:
        return following
    if isinstance(event, Kind):
        name = event.name.lower()
        raise UnexpectedMessage(
            f"{name} is not allowed in phase {phase.value}", sender=sender, phase=phase.value
        )
    raise LocalProtocolError(f"{event} is not allowed in phase {phase.value}")
