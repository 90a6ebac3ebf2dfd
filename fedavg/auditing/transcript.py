"""Whether a server received anything beyond masked vectors, keys, shares and tags.

Every message is taken apart (`fedavg.auditing.reading`); then what ought to look random is tested for looking random:

* of each masked vector, or sum of them, how its values spread over sixteenths of the ring: one not masked does not;
* of each coordinate, the same over all clients and rounds: a metric in the clear stays where it is;
* of sealed shares, commitments, hashes, signatures and tags, how bytes spread over their 256 values, of
  all messages and of each.

Each test is an exact binomial tail of the fullest bin, paid for by the number of bins, so that together they err with
probability at most `level`.

A record that leaves these things out of the transcript is not seen: see `PROVES_NOT`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedavg.auditing.findings import Finding
from fedavg.auditing.reading import BINS, Reading, at_least
from fedavg.auditing.recording import Transcript

__all__ = ["PROVES_NOT", "TranscriptAudit", "audit_transcript"]

PROVES_NOT = (
    "A transcript audit proves only that these bytes, as logged, hold no clear input. It does not prove that the log is"
    " complete, that no invented clients took part, that noise was added, or that anything was erased."
)
"""What no transcript audit can show; printed with every one."""

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


def audit_transcript(transcript: Transcript, *, level: float = 0.01) -> TranscriptAudit:
    """Say whether anything beyond masked vectors, keys, shares and tags is in a transcript.

    Args:
        transcript: As `Recorder` wrote it.
        level: Probability that an honest transcript is flagged, at most.

    Returns:
        The finding, and how many messages and values it rests on.

    Raises:
        CheckpointError: a line is no message.
    """
    reading, problems = Reading(transcript.parameters), []
    for number, message in enumerate(transcript.messages(), start=1):
        problem = reading.read(message)
        if problem:
            reading.contents["unexplained"] += len(message.data)
            problems.append(f"Message {number}, from {message.sender} at {message.stage!r}: {problem}.")
    return TranscriptAudit(
        len(reading.sessions),
        dict(reading.messages),
        {**reading.contents, "unexplained": reading.contents["unexplained"]},
        tuple(problems[:_NAMED]),
        max(0, len(problems) - _NAMED),
        _findings(reading, level / 3),
    )


def _findings(reading: Reading, level: float) -> tuple[Finding, ...]:
    """Tests of what should look random; a transcript without vectors or shares has none."""
    found = []
    if reading.vectors:
        found += [_every_vector(reading, level), _every_coordinate(reading, level)]
    if reading.random_bytes.any():
        found.append(_every_seal(reading, level))
    return tuple(found)


def _every_seal(reading: Reading, level: float) -> Finding:
    total, most = int(reading.random_bytes.sum()), int(reading.random_bytes.max())
    of_all, of_one = at_least(most, total, 1 / 256), reading.sealed * reading.oddest_sealed
    return Finding(
        "shares sealed",
        min(1.0, 2 * 256 * min(of_all, of_one)),
        level,
        f"Of {total:,} bytes of sealed shares, commitments, signatures and tags the commonest value has {most:,}, where"
        f" {total / 256:,.0f} are due; in the least even message the commonest one has {reading.fullest_sealed:.1%}.",
    )


def _every_vector(reading: Reading, level: float) -> Finding:
    return Finding(
        "every vector masked",
        min(1.0, reading.vectors * BINS * reading.oddest),
        level,
        f"Of {reading.vectors:,} masked vectors the least even one has {reading.fullest:.1%} of its values in one"
        " sixteenth of the ring.",
    )


def _every_coordinate(reading: Reading, level: float) -> Finding:
    counts = reading.coordinates
    seen, most, where = int(counts[:, 0].sum()), int(counts.max()), int(counts.max(axis=0).argmax())
    return Finding(
        "every coordinate masked",
        min(1.0, counts.size * at_least(most, seen, 1 / BINS)),
        level,
        f"Of {counts.shape[1]:,} coordinates the least even one, number {where}, has {most} of {seen:,} clients'"
        " values in one sixteenth of the ring.",
    )
