"""Whether a server received anything beyond masked vectors, keys, shares and tags.

Every message is parsed with the protocol's own codec, so that every byte of it has a name; then what ought to look
random is tested for looking random:

* of each masked vector, how its values spread over sixteenths of the ring: a vector that was not masked does not;
* of each coordinate, the same over all clients and rounds: a metric in the clear stays where it is;
* of sealed shares and commitments, how bytes spread over their 256 values.

Each test is an exact binomial tail of the fullest bin, paid for by the number of bins, so that together they err with
probability at most `level`.

A record that leaves these things out of the transcript is not seen: see `PROVES_NOT`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.auditing.findings import Finding
from fedavg.auditing.recording import Message, Transcript
from secagg import MalformedMessage, RoundParameters, SecAggError
from secagg.messages import HEADER_BYTES, Codec, kind_of
from secagg.phases import Kind
from secagg.ring import packed_size, unpack
from secagg.shamir import PRIME

__all__ = ["PROVES_NOT", "TranscriptAudit", "audit_transcript"]

PROVES_NOT = (
    "A transcript audit proves only that these bytes, as logged, hold no clear input. It does not prove that the log is"
    " complete, that no invented clients took part, that noise was added, or that anything was erased."
)
_STAGES = {
    "advertise": Kind.ADVERTISE,
    "share": Kind.SHARE,
    "masked_input": Kind.MASKED_INPUT,
    "unmask": Kind.UNMASK,
}
_BINS = 16
_NAMED = 8  # Problems that are spelled out; the rest are counted.


@dataclass(frozen=True)
class TranscriptAudit:
    """What a transcript holds.

    Args:
        rounds: Sessions in it.
        messages: How many of each kind.
        contents: Bytes of each content; they add up to all bytes, `unexplained` included.
        problems: What does not belong there, a sentence each.
        more: Problems not spelled out.
        findings: Tests of what should look random.
    """

    rounds: int
    messages: Mapping[str, int]
    contents: Mapping[str, int]
    problems: tuple[str, ...]
    more: int
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was found beyond what the protocol sends."""
        return not self.problems and not any(finding.flagged for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "clean": self.clean,
            "rounds": self.rounds,
            "messages": dict(self.messages),
            "bytes": dict(self.contents),
            "problems": [*self.problems],
            "further_problems": self.more,
            "findings": [finding.as_dict() for finding in self.findings],
            "proves_not": PROVES_NOT,
        }


@dataclass
class _Reading:
    """What is gathered on the way through a transcript."""

    parameters: RoundParameters
    coordinates: NDArray[np.int32]  # How often each coordinate fell into each bin.
    random_bytes: NDArray[np.int64]
    sessions: dict[bytes, Codec] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)
    contents: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seen: set[tuple[bytes, str, int]] = field(default_factory=set)
    vectors: int = 0
    oddest: float = 1.0  # Smallest p-value of a vector's fullest bin, and the share of values in it.
    fullest: float = 0.0


def audit_transcript(transcript: Transcript, *, level: float = 0.01) -> TranscriptAudit:
    """Say whether anything beyond masked vectors, keys, shares and tags is in a transcript.

    Args:
        transcript: As `Recorder` wrote it.
        level: Probability that an honest transcript is flagged, at most.

    Raises:
        CheckpointError: a line is no message.
    """
    values = sum(vector.padded_length for vector in transcript.parameters.vectors)
    reading = _Reading(transcript.parameters, np.zeros((_BINS, values), np.int32), np.zeros(256, np.int64))
    for number, message in enumerate(transcript.messages(), start=1):
        problem = _read(message, reading)
        if problem:
            reading.contents["unexplained"] += len(message.data)
            reading.problems.append(
                f"Message {number}, from {message.sender} at {message.stage!r}: {problem}."
            )
    return TranscriptAudit(
        len(reading.sessions),
        dict(reading.messages),
        {**reading.contents, "unexplained": reading.contents["unexplained"]},
        tuple(reading.problems[:_NAMED]),
        max(0, len(reading.problems) - _NAMED),
        _findings(reading, level / 3),
    )


def _read(message: Message, reading: _Reading) -> str | None:
    """Take one message apart; what is wrong with it, if anything."""
    data = message.data
    if message.stage not in _STAGES:
        return f"{len(data)} bytes at a stage that the protocol does not have"
    try:
        kind = kind_of(data)
    except SecAggError as error:
        return str(error)
    if kind is not _STAGES[message.stage]:
        return f"a message of kind {kind.name.lower()}"
    session = data[HEADER_BYTES - 32 : HEADER_BYTES]
    codec = reading.sessions.setdefault(session, Codec(reading.parameters, session))
    if (session, message.stage, message.sender) in reading.seen:
        return "a second message at one stage of one round"
    reading.seen.add((session, message.stage, message.sender))
    try:
        parts = _PARTS[kind](codec, message, reading)
    except SecAggError as error:
        return str(error)
    reading.messages[message.stage] += 1
    reading.contents.update({"headers": HEADER_BYTES, **parts})
    return None


def _advertise(codec: Codec, message: Message, reading: _Reading) -> dict[str, int]:
    publics, signature = codec.decode_advertise(message.data, sender=message.sender)
    return {"public keys": len(publics), "signatures": len(signature)}


def _share(codec: Codec, message: Message, reading: _Reading) -> dict[str, int]:
    body = len(message.data) - HEADER_BYTES - (codec.secrets - 1) * 32
    # How many neighbours a client has follows from the roster, which never holds more than are planned.
    neighbours = min(max(body // codec.row_bytes, 0), reading.parameters.neighbours)
    parts = codec.decode_share(message.data, neighbours=neighbours, edges=0, sender=message.sender)
    reading.random_bytes += np.bincount(
        np.frombuffer(parts.commitments + parts.rows, np.uint8), minlength=256
    )
    return {"commitments": len(parts.commitments), "sealed shares": len(parts.rows) + len(parts.hashes)}


def _masked_input(codec: Codec, message: Message, reading: _Reading) -> dict[str, int]:
    parameters = reading.parameters
    size = sum(packed_size(vector.padded_length, vector.modulus_bits) for vector in parameters.vectors)
    bitmap = len(message.data) - HEADER_BYTES - size
    neighbours = min(max(8 * bitmap, 0), parameters.neighbours)
    _, packed = codec.decode_masked_input(message.data, neighbours=neighbours, sender=message.sender)
    start = 0
    for vector, data in zip(parameters.vectors, packed, strict=True):
        words = unpack(data, length=vector.padded_length, bits=vector.modulus_bits)
        bins = (words.astype(np.uint64) >> np.uint64(max(vector.modulus_bits - 4, 0))).astype(np.intp)
        reading.coordinates[bins, np.arange(start, start + len(bins))] += 1
        reading.vectors += 1
        most = int(np.bincount(bins, minlength=_BINS).max())
        if (p := _at_least(most, len(bins), 1 / _BINS)) <= reading.oddest:
            reading.oddest, reading.fullest = p, most / len(bins)
        start += len(bins)
    return {
        "masked vectors": sum(map(len, packed)),
        "bitmaps": len(message.data) - HEADER_BYTES - sum(map(len, packed)),
    }


def _unmask(codec: Codec, message: Message, reading: _Reading) -> dict[str, int]:
    parameters = reading.parameters
    most = (parameters.neighbours + 1) * (1 + parameters.conditional_secrets)
    records = min((len(message.data) - HEADER_BYTES) // codec.record_bytes, most)
    body = codec.decode_unmask(message.data, records=records, sender=message.sender)
    words = np.frombuffer(body, "<u2").reshape(records, -1)[:, codec.salt_bytes // 2 :]
    if words.size and int(words.max()) >= PRIME:
        raise MalformedMessage(f"a share holds {int(words.max())}, outside its field of {PRIME}")
    return {"shares": len(body)}


_PARTS = {
    Kind.ADVERTISE: _advertise,
    Kind.SHARE: _share,
    Kind.MASKED_INPUT: _masked_input,
    Kind.UNMASK: _unmask,
}


def _findings(reading: _Reading, level: float) -> tuple[Finding, ...]:
    """Tests of what should look random; a transcript without vectors or shares has none."""
    found = []
    if reading.vectors:
        found += [_every_vector(reading, level), _every_coordinate(reading, level)]
    if total := int(reading.random_bytes.sum()):
        most = int(reading.random_bytes.max())
        found.append(
            Finding(
                "shares sealed",
                min(1.0, 256 * _at_least(most, total, 1 / 256)),
                level,
                f"Of {total:,} bytes of sealed shares and commitments the commonest value has {most:,}, where"
                f" {total / 256:,.0f} are due.",
            )
        )
    return tuple(found)


def _every_vector(reading: _Reading, level: float) -> Finding:
    return Finding(
        "every vector masked",
        min(1.0, reading.vectors * _BINS * reading.oddest),
        level,
        f"Of {reading.vectors:,} masked vectors the least even one has {reading.fullest:.1%} of its values in one"
        " sixteenth of the ring.",
    )


def _every_coordinate(reading: _Reading, level: float) -> Finding:
    counts = reading.coordinates
    seen, most, where = int(counts[:, 0].sum()), int(counts.max()), int(counts.max(axis=0).argmax())
    return Finding(
        "every coordinate masked",
        min(1.0, counts.size * _at_least(most, seen, 1 / _BINS)),
        level,
        f"Of {counts.shape[1]:,} coordinates the least even one, number {where}, has {most} of {seen:,} clients'"
        " values in one sixteenth of the ring.",
    )


def _at_least(count: int, trials: int, chance: float) -> float:
    from scipy.stats import binom

    return float(binom.sf(count - 1, trials, chance))
