"""What a server received, in a file: recorded while a run goes on, read back for an audit.

One JSON object a line. The first names the version and the round's public parameters; every other one is a message:
`{"stage": ..., "sender": ..., "message": base64}`. Nothing is left out and nothing is added, so whoever holds the file
knows what the server knew of the messages; it is the operator's, and not to be published.

Not here: what the messages are tested for (`fedavg.auditing.transcript`).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from fedavg.aggregation import AggregationPlan
from fedavg.errors import CheckpointError
from secagg import Identity, IdentityRoster, RoundParameters, SecAggError, Vector

__all__ = ["Message", "Recorder", "Transcript", "read_transcript"]

_FORMAT = "veilsum transcript 1"


class Message(NamedTuple):
    """One message as the server received it."""

    stage: str
    sender: int
    data: bytes


class Recorder:
    """Writes what the server receives: pass it as `record=` to `fedavg.train`, `Federation` or `sum_round`.

    Args:
        path: The file; it must not exist, unless `resume` goes on with it.
        plan: How rounds are summed: `Federation.plan`.
        resume: Append to a transcript of the same run.

    Raises:
        CheckpointError: the file exists, or cannot be written.
    """

    def __init__(self, path: str | Path, plan: AggregationPlan, *, resume: bool = False) -> None:
        self.path = Path(path)
        try:
            begun = resume and self.path.exists()
            self._file = open(self.path, "a" if begun else "x", encoding="ascii")  # noqa: SIM115
        except FileExistsError:
            raise CheckpointError(
                f"{self.path} exists, and a transcript is never written over; give another path"
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"the transcript {self.path} cannot be written: {error.strerror or error}; give another path"
            ) from error
        self._worthless = not begun
        if not begun:
            # Which identities are trusted is another matter in each round; how messages look does not depend on it.
            anybody = IdentityRoster.of({0: Identity.generate()})
            trusted = None if plan.secure.adversary == "semi_honest" else anybody
            self._write({"format": _FORMAT, "parameters": _fields(plan.protocol(0, bytes(32), trusted))})

    def __call__(self, stage: str, sender: int, message: bytes) -> None:
        """Record one message."""
        self._worthless = False
        self._write({"stage": stage, "sender": sender, "message": base64.b64encode(message).decode()})

    def __enter__(self) -> Recorder:
        """The recorder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file; one that a run began and sent nothing to is taken away."""
        self._file.close()
        if self._worthless:
            self.path.unlink(missing_ok=True)

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"the transcript {self.path} cannot be written: {error.strerror or error}; free some space"
            ) from error


@dataclass(frozen=True)
class Transcript:
    """A transcript, read message by message.

    Args:
        path: The file.
        parameters: Of its rounds; model, number and trusted identities are not those of any round.
    """

    path: Path
    parameters: RoundParameters

    def messages(self) -> Iterator[Message]:
        """Every message, in order.

        Raises:
            CheckpointError: a line is no message.
        """
        with _opened(self.path) as file:
            next(file)
            for number, line in enumerate(file, start=2):
                try:
                    content = json.loads(line)
                    data = base64.b64decode(content["message"], validate=True)
                    yield Message(str(content["stage"]), int(content["sender"]), data)
                except (ValueError, KeyError, TypeError, binascii.Error) as error:
                    raise CheckpointError(
                        f"line {number} of the transcript {self.path} is no message ({error}); record the run again"
                    ) from error


def read_transcript(path: str | Path) -> Transcript:
    """Open a transcript.

    Args:
        path: The file that `Recorder` wrote.

    Returns:
        The transcript; messages are read as they are asked for.

    Raises:
        CheckpointError: there is none, or it is none that can be audited.
    """
    target = Path(path)
    try:
        with _opened(target) as file:
            head = json.loads(next(file))
        if head["format"] != _FORMAT:
            raise ValueError(f"its format is {head['format']!r}")
        if not isinstance(head["parameters"], dict):
            raise ValueError("it does not say of what rounds it is")
        return Transcript(target, _parameters(head["parameters"]))
    except (ValueError, KeyError, TypeError, StopIteration, SecAggError) as error:
        raise CheckpointError(
            f"{target} is no transcript ({error or 'it is empty'}); make one with simulate --record"
        ) from error


def _opened(path: Path) -> Any:
    try:
        return open(path, encoding="ascii")
    except OSError as error:
        raise CheckpointError(
            f"the transcript {path} cannot be read: {error.strerror or error}; give the path of one"
        ) from error


def _fields(parameters: RoundParameters) -> dict[str, Any]:
    fields = {field.name: getattr(parameters, field.name) for field in dataclasses.fields(parameters)}
    fields["vectors"] = [[v.name, v.length, v.modulus_bits] for v in parameters.vectors]
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}


def _parameters(fields: Mapping[str, Any]) -> RoundParameters:
    binary = ("model_hash", "application", "roster_hash")
    values: dict[str, Any] = {
        name: bytes.fromhex(value) if name in binary else value for name, value in fields.items()
    }
    values["vectors"] = tuple(Vector(*vector) for vector in fields["vectors"])
    return RoundParameters(**values)
