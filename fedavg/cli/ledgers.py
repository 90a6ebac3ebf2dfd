"""What the ledger commands compute: the end of a budget, a round's rows, model hashes, several ledgers together.

Not here: the options and the words (`fedavg.cli.ledger`), what a ledger says (`dp.spending`, `dp.verify`).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dp
from dp.accounting import epsilon
from dp.events import Composed, Gaussian, together
from fedavg.errors import CheckpointError, ParameterError
from fedavg.pytree import TreeSpec

__all__ = [
    "SCHEMA",
    "Merged",
    "Outlook",
    "caveats",
    "exported",
    "merged",
    "model_hashes",
    "name_of",
    "outlook",
    "round_rows",
]

SCHEMA = "veilsum ledger export 1"
"""Name of the form that `docs/ledger-schema.json` describes."""


@dataclass(frozen=True)
class Outlook:
    """What comes next for one run of a ledger.

    Args:
        next_round: What another round adds to both epsilons; None if it would pass a budget.
        rounds_left: Rounds that are planned and still fit the budgets.
        seconds_per_round: The pace so far, None before two rounds.
    """

    next_round: dp.Epsilons | None
    rounds_left: int
    seconds_per_round: float | None

    @property
    def seconds_left(self) -> float | None:
        """How long the budget lasts at this pace."""
        return None if self.seconds_per_round is None else self.rounds_left * self.seconds_per_round

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        added = self.next_round
        return {
            "next_round": None
            if added is None
            else {"readers": _finite(added.readers), "server": _finite(added.server)},
            "rounds_left": self.rounds_left,
            "seconds_per_round": self.seconds_per_round,
            "seconds_left": self.seconds_left,
        }


def outlook(spent: dp.Spending, run: int) -> Outlook | None:
    """What comes next for a run; None if its accountant is not known here."""
    one = spent.runs[run - 1]
    if one.accountant is None or spent.spent is None or spent.budgets is None or spent.path is None:
        return None
    now, budgets = spent.spent, spent.budgets

    def fits(rounds: int) -> bool:
        after = _after(spent, run, rounds)
        return after is not None and after.readers <= budgets.readers and after.server <= budgets.server

    planned = max(0, one.accountant.rounds - one.settled)
    left = planned if planned and fits(planned) else _most(fits, planned)
    further = _after(spent, run, 1) if left else None
    added = (
        None
        if further is None
        else dp.Epsilons(_less(further.readers, now.readers), _less(further.server, now.server))
    )
    return Outlook(added, left, _pace(spent.path, run))


def _after(spent: dp.Spending, run: int, rounds: int) -> dp.Epsilons | None:
    """Both epsilons after more rounds; None where a shared budget does not hold them."""
    try:
        return spent.after(run, rounds=rounds)
    except dp.BudgetExceeded:
        return None


def _most(fits: Callable[[int], bool], planned: int) -> int:
    """Most rounds below `planned` that fit, where more never fit if fewer do not."""
    low, high = 0, planned
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _pace(path: Path, run: int) -> float | None:
    """Seconds between two reservations, on average."""
    times = [
        row.body["time"] for row in dp.Ledger.open(path).rows() if row.kind == "reserve" and row.run == run
    ]
    known = [time for time in times if time is not None]
    return (known[-1] - known[0]) / (len(known) - 1) if len(known) > 1 else None


def name_of(run: dp.RunSpending) -> str:
    """What a run calls itself: its task, or its program."""
    return str(run.run.get("task", run.run.get("program", "unnamed")))


def caveats(spent: dp.Spending) -> list[str]:
    """What takes a promise away, however little was spent: one sentence for each run that it is true of."""
    said = []
    for one in spent.runs:
        name = f"run {one.number} ({name_of(one)})"
        if one.run.get("seeded"):
            said.append(f"{name} was seeded: simulation, no guarantee")
        if not one.run.get("masked", True):
            said.append(f"{name} was computed without cryptography: nothing is promised against the server")
    return said


def round_rows(path: Path, spent: dp.Spending) -> list[dict[str, Any]]:
    """Every round: what it is, what became of it, and both epsilons after it (one run's ledger only).

    A round refunded counts nothing; after it the epsilons are those from before.
    """
    rounds: dict[int, dict[str, Any]] = {}
    for row in dp.Ledger.open(path).rows():
        if row.kind == "reserve":
            rounds[row.round] = {
                "round": row.round,
                "run": row.run,
                "state": "open",
                "time": row.body["time"],
            }
        elif row.kind == "settle":
            rounds[row.round] |= {
                "state": "settled",
                "survivors": row.body["survivors"],
                "model": row.body["model"],
            }
        elif row.kind == "refund":
            rounds[row.round] |= {"state": "refunded", "reason": row.body["reason"]}
    accountant = spent.runs[0].accountant if spent.shared is None else None
    charged = 0
    for one in rounds.values():
        charged += one["state"] != "refunded"
        if accountant is not None:
            after = accountant.epsilons(charged)
            one["epsilon"] = {"readers": _finite(after.readers), "server": _finite(after.server)}
    return list(rounds.values())


def exported(path: Path) -> dict[str, Any]:
    """A whole ledger as JSON values: what it says, and every row."""
    rows = [
        {
            "sequence": row.sequence,
            "kind": row.kind,
            "run": row.run,
            "round": row.round,
            "body": dict(row.body),
            "hash": row.hash.hex(),
        }
        for row in dp.Ledger.open(path).rows()
    ]
    return {"format": SCHEMA, "spending": dp.spending(path).as_dict(), "rows": rows}


def model_hashes(folder: Path, path: Path) -> Callable[[int], bytes | None]:
    """Hashes of released models that are at hand, by round, as a run settles them.

    Args:
        folder: Files of arrays (`.npz`): `model.npz` is the newest settled round's, on a shared ledger that of any run;
            any other name ends in its round's number, such as `model-12.npz`.
        path: The ledger.

    Raises:
        CheckpointError: there is no such folder, or no model in it.
    """
    files: dict[int, Path] = {}
    for file in sorted(folder.glob("*.npz")):
        if number := re.search(r"(\d+)$", file.stem):
            files[int(number.group(1))] = file
    newest = folder / "model.npz"
    if newest.is_file():
        files |= dict.fromkeys(_newest(path, _model_hash(newest)), newest)
    if not files:
        raise CheckpointError(
            f"{folder} holds no model of a settled round; give a folder with model.npz or model-12.npz"
        )
    return lambda number: _model_hash(files[number]) if number in files else None


def _newest(path: Path, model: bytes) -> list[int]:
    """The round that is the newest of its run and left this model; none did, the newest of all."""
    last = {row.run: row for row in dp.Ledger.open(path).rows() if row.kind == "settle"}
    fitting = [row.round for row in last.values() if dict(row.body).get("model") == model.hex()]
    return fitting[:1] or sorted(row.round for row in last.values())[-1:]


def _model_hash(path: Path) -> bytes:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"the model {path} cannot be read ({error}); leave it out of the folder"
        ) from error
    # One array without a name is the whole tree, and is kept under this one.
    tree = arrays["weights"] if list(arrays) == ["weights"] else arrays
    spec = TreeSpec.of(tree)
    return hashlib.sha256(spec.describe().encode() + b"\0" + spec.flatten(tree).tobytes()).digest()


@dataclass(frozen=True)
class Merged:
    """What several ledgers cost the people who are in all of them.

    Args:
        epsilon: Both, at `delta`.
        delta: Of both.
        how: For each observer, how the ledgers were composed.
    """

    epsilon: dp.Epsilons
    delta: float
    how: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON values; infinity is None."""
        return {
            "epsilon": {"readers": _finite(self.epsilon.readers), "server": _finite(self.epsilon.server)},
            "delta": self.delta,
            "how": dict(self.how),
        }


def merged(ledgers: Sequence[dp.Spending], *, delta: float | None = None) -> Merged:
    """Compose ledgers over the same people.

    *Basic*: epsilons add up, each at its part of delta; always valid. *As one Gaussian*: where every event is an
    unsampled Gaussian, inverse squared multipliers add up, which is exact; it holds if the runs' settings were fixed
    before any of them released anything. The smaller is given.

    Args:
        ledgers: One run's each.
        delta: Of the whole; the largest of theirs by default.

    Raises:
        ParameterError: a ledger is shared, or its accountant is not known here.
    """
    accountants: list[tuple[dp.RunAccountant, int]] = []
    for spent in ledgers:
        accountant = spent.runs[0].accountant if spent.shared is None else None
        if accountant is None:
            raise ParameterError(
                f"{spent.path} is shared or charged by an accountant that is not known here, and cannot be merged;"
                " merge ledgers of single runs"
            )
        accountants.append((accountant, spent.runs[0].charged))
    whole = max(one.privacy.delta for one, _ in accountants) if delta is None else delta
    parts = [
        dp.epsilon_of(
            one.mechanism, one.sampler, charged, whole / len(accountants), one.privacy.max_participations
        )
        for one, charged in accountants
    ]
    found, how = {}, {}
    for observer in ("readers", "server"):
        basic = math.fsum(getattr(part, observer) for part in parts)
        exact = _as_one_gaussian(observer, accountants, whole)
        found[observer] = min(basic, exact)
        how[observer] = (
            "as one Gaussian, settings fixed beforehand"
            if exact < basic
            else "basic: epsilons at delta / number added"
        )
    readers = min(found["readers"], found["server"])
    return Merged(dp.Epsilons(readers, found["server"]), whole, how)


def _as_one_gaussian(
    observer: str, accountants: Iterable[tuple[dp.RunAccountant, int]], delta: float
) -> float:
    """Epsilon of all events as one Gaussian; infinite where that is not what they are."""
    events: list[Gaussian] = []
    for one, charged in accountants:
        sampler, cap = one.sampler, one.privacy.max_participations
        event = sampler.server_event if observer == "server" else sampler.readers_event
        cost = event(one.mechanism.event, charged, cap)
        if not isinstance(cost.step, Gaussian) or one.mechanism.trusted_server:
            return math.inf
        events += [
            Gaussian(cost.step.noise_multiplier / math.sqrt(cost.count), cost.count * cost.step.slack)
        ] * (cost.count > 0)
    return epsilon(Composed(together(*events), 1), delta=delta) if events else 0.0


def _less(after: float, before: float) -> float:
    return (
        after - before
        if math.isfinite(after) and math.isfinite(before)
        else (0.0 if after == before else math.inf)
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
