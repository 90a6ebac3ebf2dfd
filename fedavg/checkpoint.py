"""A run's folder: what everybody may read, what only the operator may, and how a run goes on after a crash.

    public/    rounds.jsonl, statement.json, model.npz: what readers of the model get
    operator/  ledger.sqlite and its counts, checkpoint.npz, run.json, ledger.json: who was drawn; never publish
    clients/   failures.jsonl: what each client's own device would have logged, gathered here by the simulation

Rules: every file is written beside its place and moved over it; the checkpoint is written last, so a crash at any
moment leaves the last finished round; nothing is unpickled; a folder that holds a run is only ever continued.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

import dp
from fedavg.errors import CheckpointError
from fedavg.process import ServerState

__all__ = ["RunFolder"]

# What zip files and arrays with a few wrong bytes make `numpy.load` raise.
_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


class RunFolder:
    """Files of one run under `path`.

    Args:
        path: The folder; made if missing.
        fingerprint: What the run is, canonical; a folder whose run differs is refused.
        resume: Continue the run in the folder; a folder without one is then started afresh.

    Raises:
        CheckpointError: the folder holds a run and `resume` is not set, holds another run, or cannot be written.
    """

    def __init__(self, path: str | Path, *, fingerprint: Mapping[str, Any], resume: bool) -> None:
        self.path = Path(path).absolute()  # A step may change the working directory.
        self.public, self.operator, self.clients = (
            self.path / part for part in ("public", "operator", "clients")
        )
        marker = self.operator / "run.json"
        try:
            self._open(marker, json.loads(json.dumps(fingerprint)), resume)
        except OSError as error:
            raise CheckpointError(
                f"the run folder {self.path} cannot be used: {error.strerror or error}; give another"
            ) from error

    def _open(self, marker: Path, fingerprint: Mapping[str, Any], resume: bool) -> None:
        if marker.exists():
            if not resume:
                raise CheckpointError(
                    f"{self.path} already holds a run; continue it with resume=True, or give another folder"
                )
            stored = _mapping(marker, ())
            odd = sorted(key for key in {*stored, *fingerprint} if stored.get(key) != fingerprint.get(key))
            if odd:
                raise CheckpointError(
                    f"{self.path} holds another run: it differs in {', '.join(odd)}; resume with the same settings,"
                    " or give another folder"
                )
            return
        for part in (self.public, self.operator, self.clients):
            part.mkdir(parents=True, exist_ok=True)
        os.chmod(self.operator, 0o700)
        os.chmod(self.clients, 0o700)
        self.write(marker, lambda file: file.write(json.dumps(fingerprint, indent=1).encode()))

    @property
    def ledger(self) -> Path:
        """Where the privacy ledger lives."""
        return self.operator / "ledger.sqlite"

    def write(self, path: Path, fill: Callable[[BinaryIO], object]) -> None:
        """Replace a file whole: readers see the old content or the new, never a part."""
        beside = path.with_name(f"{path.name}.{os.getpid()}.part")  # Two processes may run one folder.
        with open(beside, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)

    def pin(self, ledger: dp.Ledger) -> None:
        """Keep where the ledger is and its newest row, so that no run goes on with less than it has spent."""
        sequence, digest = ledger.head
        content = {"path": str(ledger.path), "sequence": sequence, "hash": digest}
        self.write(self.operator / "ledger.json", lambda file: file.write(json.dumps(content).encode()))

    def pinned(self) -> Mapping[str, Any] | None:
        """What `pin` kept, or None for a run that has charged nothing."""
        path = self.operator / "ledger.json"
        return _mapping(path, ("path", "sequence", "hash")) if path.exists() else None

    def save(self, state: ServerState, rounds: list[dict[str, Any]], model: Mapping[str, Any]) -> None:
        """Keep a finished round: public files first, the checkpoint last."""
        lines = "".join(json.dumps(line) + "\n" for line in rounds)
        self.write(self.public / "rounds.jsonl", lambda file: file.write(lines.encode()))
        self.write(self.public / "model.npz", lambda file: np.savez(file, **model))
        arrays: dict[str, Any] = {
            "weights": state.weights,
            "rounds": np.int64(state.rounds),
            "clip": np.float64(np.nan if state.clip is None else state.clip),
            "lines": np.frombuffer(lines.encode(), np.uint8),
            **{f"optimizer/{name}": value for name, value in state.optimizer.items()},
            **{f"memory/{name}": value for name, value in state.memory.items()},
        }
        self.write(self.operator / "checkpoint.npz", lambda file: np.savez(file, **arrays))

    def load(self) -> tuple[ServerState, list[dict[str, Any]]] | None:
        """The last finished round, or None for a run that finished none."""
        path = self.operator / "checkpoint.npz"
        if not path.exists():
            return None
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                lines = [json.loads(line) for line in file["lines"].tobytes().decode().splitlines()]
                state = ServerState(
                    file["weights"],
                    _under("optimizer/", file),
                    int(file["rounds"]),
                    None if np.isnan(file["clip"]) else float(file["clip"]),
                    _under("memory/", file),
                )
        except _DAMAGED as error:
            raise CheckpointError(
                f"the checkpoint {path} is damaged ({error}); restore it from a backup"
            ) from error
        return state, lines

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """A public JSON file."""
        self.write(self.public / name, lambda file: file.write(json.dumps(content, indent=1).encode()))

    def log_failure(self, client_id: Any, round_number: int, cause: str) -> None:
        """What a client's own device logs; in a simulation it is gathered under clients/."""
        with open(self.clients / "failures.jsonl", "a") as file:
            file.write(json.dumps({"client": str(client_id), "round": round_number, "cause": cause}) + "\n")


def _mapping(path: Path, keys: Collection[str]) -> Mapping[str, Any]:
    """The JSON object in a file of the run's own, with at least these keys."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); restore it from a backup") from error
    if not isinstance(content, dict) or not content.keys() >= {*keys}:
        raise CheckpointError(
            f"{path} is damaged (it does not hold what it should); restore it from a backup"
        )
    return content


def _under(prefix: str, file: np.lib.npyio.NpzFile) -> dict[str, NDArray[Any]]:
    """The arrays whose name starts with a prefix, without it."""
    return {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}
