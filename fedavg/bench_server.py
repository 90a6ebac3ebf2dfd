"""A server machine in a process of its own, so that its memory and CPU time are its own.

`ServerProcess` starts `python -m fedavg.bench_server` and talks to it over its standard streams in frames: a
one-byte operation, a client id, a length, that many bytes. For measurements only (`fedavg.bench_secagg`).
"""

from __future__ import annotations

import hashlib
import json
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedavg.errors import RoundAborted
from secagg import RoundParameters, SecAggError, Server, Vector
from secagg.identities import Identity, IdentityRoster

__all__ = ["Report", "ServerProcess", "identities_of", "keystream_seconds", "round_of"]

VECTOR = "values"
_FRAME = struct.Struct(">cqQ")
_EXPECTS, _MESSAGE, _RECEIVE, _ADVANCE, _FINISH = b"E", b"M", b"R", b"A", b"F"
_ERROR = b"!"
_CHUNKS = (1 << 16, 1 << 17, 1 << 18, 1 << 20)


class Report(NamedTuple):
    """What the server process gave and took.

    Attributes:
        total: the sum.
        cpu: CPU seconds inside the server machine.
        keystream: CPU seconds of the reference over the bytes that were asked for.
        peak_mb: growth of the resident memory over the process before its round, in 2^20 bytes.
    """

    total: npt.NDArray[np.uint64]
    cpu: float
    keystream: float
    peak_mb: float


def round_of(choice: Mapping[str, Any], length: int, bits: int) -> RoundParameters:
    """Build the measured round; both processes do, from the same choice."""
    trusted = IdentityRoster.of(identities_of(choice))
    return RoundParameters.choose(
        **choice,
        roster_hash=trusted.hash if trusted else b"",
        vectors=[Vector(VECTOR, length, bits)],
        task="bench",
        round=0,
        model_hash=bytes(32),
        application=b"",
    )


def identities_of(choice: Mapping[str, Any]) -> dict[int, Identity]:
    """Throw-away signing keys of all clients, the same in both processes; none in semi-honest mode."""
    if choice["adversary"] != "malicious":
        return {}
    return {
        client: Identity(hashlib.sha256(b"bench %d" % client).digest()) for client in range(choice["clients"])
    }


def keystream_seconds(size: int) -> float:
    """CPU seconds of raw AES-256-CTR over `size` bytes, at the best of several chunk sizes."""
    return min(_keystream_seconds(size, chunk) for chunk in _CHUNKS for _ in range(2))


def _keystream_seconds(size: int, chunk: int) -> float:
    stream = Cipher(algorithms.AES256(bytes(32)), modes.CTR(bytes(16))).encryptor()
    zeros, buffer = bytes(chunk), bytearray(chunk + 16)
    begin = time.process_time()
    for _ in range(size // chunk):
        stream.update_into(zeros, buffer)
    stream.update_into(zeros[: size % chunk], buffer)
    return time.process_time() - begin


class ServerProcess:
    """The parent's end: the calls of `secagg.Server`, carried out elsewhere.

    Args:
        choice: what `RoundParameters.choose` takes.
        length: values per client.
        bits: bits of the modulus.
        threads: threads that expand masks.
    """

    def __init__(self, choice: Mapping[str, Any], length: int, bits: int, threads: int) -> None:
        settings = json.dumps({"choice": dict(choice), "length": length, "bits": bits, "threads": threads})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedavg.bench_server", settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def expects(self, client: int) -> bool:
        """Whether the present stage waits for this client."""
        return self._call(_EXPECTS, client) == b"1"

    def message_for(self, client: int) -> bytes:
        """The message that opens the present stage for one client."""
        return self._call(_MESSAGE, client)

    def receive(self, client: int, data: bytes) -> None:
        """Hand over one message."""
        self._call(_RECEIVE, client, data)

    def advance(self) -> None:
        """Close the stage."""
        self._call(_ADVANCE)

    def finish(self, *, keystream_bytes: int) -> Report:
        """Fetch the sum and what it cost; the reference runs last, in the same process."""
        answer = self._call(_FINISH, data=keystream_bytes.to_bytes(8, "big"))
        numbers = struct.unpack_from(">ddd", answer)
        return Report(np.frombuffer(answer, "<u8", offset=24), *numbers)

    def _call(self, operation: bytes, client: int = 0, data: bytes = b"") -> bytes:
        into, out = self._process.stdin, self._process.stdout
        if into is None or out is None:
            raise BrokenPipeError("the server process has no streams")
        _write(into, operation, client, data)
        kind, _, answer = _read(out)
        if kind == _ERROR:
            raise RoundAborted(f"the measured round ended early: {answer.decode()}", charged=False)
        return answer


def _write(stream: BinaryIO | Any, operation: bytes, client: int, data: bytes) -> None:
    stream.write(_FRAME.pack(operation, client, len(data)))
    stream.write(data)
    stream.flush()


def _read(stream: BinaryIO | Any) -> tuple[bytes, int, bytes]:
    header = stream.read(_FRAME.size)
    if len(header) < _FRAME.size:
        raise EOFError("the other process ended")
    operation, client, size = _FRAME.unpack(header)
    return operation, client, stream.read(size)


def _resident_mb(entry: str) -> float:
    """Resident memory of this process, now ("VmRSS") or at most ("VmHWM"), in 2^20 bytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = (line.split() for line in status.read_text().splitlines())
    return next(int(line[1]) for line in lines if line[0] == entry + ":") / 2**10


def _serve(settings: Mapping[str, Any], source: BinaryIO, sink: BinaryIO) -> None:
    """The child's end: carry out one frame after the other until the sum was fetched."""
    before = _resident_mb("VmRSS")
    parameters = round_of(settings["choice"], settings["length"], settings["bits"])
    trusted = IdentityRoster.of(identities_of(settings["choice"])) or None
    begin = time.process_time()
    server = Server(parameters, threads=settings["threads"], identities=trusted)
    cpu = time.process_time() - begin
    while True:
        operation, client, data = _read(source)
        if operation == _FINISH:
            grown = _resident_mb("VmHWM") - before
            reference = keystream_seconds(int.from_bytes(data, "big"))
            total = server.result.totals[VECTOR].astype("<u8").tobytes()
            _write(sink, operation, 0, struct.pack(">ddd", cpu, reference, grown) + total)
            return
        begin = time.process_time()
        answer = b""
        if operation == _RECEIVE:
            server.receive(client, data)
        elif operation == _MESSAGE:
            answer = server.message_for(client)
        elif operation == _EXPECTS:
            answer = b"1" if server.expects(client) else b"0"
        else:
            server.advance()
        cpu += time.process_time() - begin
        del data
        _write(sink, operation, client, answer)


if __name__ == "__main__":
    try:
        _serve(json.loads(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
    except SecAggError as error:
        _write(sys.stdout.buffer, _ERROR, 0, str(error).encode())
