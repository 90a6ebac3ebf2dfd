"""The server half of the adapter: a Flower strategy of the FedAvg family, started over private rounds.

    PrivateStrategy(FedAvg(), "/srv/rounds.json", folder="/srv/run").start(grid, initial_arrays, num_rounds=5)

The strategy inside is started unchanged; its Grid is replaced by one that turns each batch of training messages into
all stages of the protocol and hands back *one* reply: the average of the nodes' models, from the noised sum. So
whatever only averages works (FedAvg, FedAvgM, FedAdam, FedAdagrad, FedYogi, FedProx); what looks at single updates
cannot (Krum, medians, trimmed means, q-FedAvg), and is refused.

Order inside a round, which the guarantees rest on: the ledger reserves the round's cost or refuses it, before anybody
is asked; the nodes answer; the ledger settles, or takes the cost back where no share that unmasks was asked for (and,
against a server that nodes do not trust, no masked input: a node counts from there). A round
that ended without a sum is tried again as a new round, with a new number, fresh noise and a charge of its own.

Files in `folder`: `ledger.sqlite`, `statement.json`, `rounds.jsonl` (one line a round, for monitoring).
Not here: one round (`fedavg.flower.rounds`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower_strategies

import dp
import secagg
from fedavg.aggregation import Record
from fedavg.auditing import Recorder
from fedavg.errors import ParameterError, RoundAborted
from fedavg.flower.keys import ROSTER, read_roster
from fedavg.flower.rounds import Deadlines, Invitation, RoundLog, run_round
from fedavg.flower.settings import PrivateRounds, RoundPlan
from fedavg.flower.wire import arrays_of, content_hash, describe_form, users_records
from fedavg.pytree import TreeSpec

__all__ = ["PrivateStrategy"]

_logger = logging.getLogger("fedavg.flower.server")
_ABORTS_IN_A_ROW = 3
_POLL_SECONDS = 1.0
_NEED_SINGLE_UPDATES = tuple(
    getattr(flower_strategies, name)
    for name in (
        *(
            "Krum",
            "MultiKrum",
            "Bulyan",
            "FedMedian",
            "FedTrimmedAvg",
            "QFedAvg",
            "FedXgbBagging",
            "FedXgbCyclic",
        ),
        *("DifferentialPrivacyServerSideFixedClipping", "DifferentialPrivacyServerSideAdaptiveClipping"),
        *("DifferentialPrivacyClientSideFixedClipping", "DifferentialPrivacyClientSideAdaptiveClipping"),
    )
    if hasattr(flower_strategies, name)
)


class PrivateStrategy:
    """A strategy that only ever receives masked vectors whose sum is already noised.

    Guarantee: the two statements of `statement()`, under the assumptions that `PrivateRounds` names.

    Args:
        strategy: any strategy of the FedAvg family, as it was.
        rounds: the settings, equal to the nodes', or the path of their file.
        folder: where ledger, statement and monitoring lines live; an absolute path, because a ServerApp's working
            directory is Flower's.
        roster: malicious mode: the roster's file; `roster.json` in the folder where it is left out.
        deadlines: how long each stage waits.
        transcript: a file to record in what the server receives, for `veilsum audit transcript`.

    Raises:
        ParameterError: a strategy that needs single updates, or settings that exclude each other.
    """

    def __init__(
        self,
        strategy: Any,
        rounds: PrivateRounds | str | Path,
        *,
        folder: str | Path,
        roster: str | Path | None = None,
        deadlines: Deadlines | None = None,
        transcript: str | Path | None = None,
    ) -> None:
        if isinstance(strategy, _NEED_SINGLE_UPDATES):
            raise ParameterError(
                f"{type(strategy).__name__} needs single updates, or adds noise of its own, and here is only one noised"
                " sum; use a strategy of the FedAvg family"
            )
        if isinstance(strategy, type) or not hasattr(strategy, "start"):
            raise ParameterError(
                f"strategy is {strategy!r}; give one of Flower's that is made, such as FedAvg()"
            )
        rounds = rounds if isinstance(rounds, PrivateRounds) else PrivateRounds.read(rounds)
        if roster is not None and not rounds.is_malicious:
            raise ParameterError(
                f"roster is {roster} and adversary is 'semi_honest', which checks no identities;"
                " leave the roster out, or say adversary='malicious'"
            )
        self.strategy, self.rounds = strategy, rounds
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.deadlines = deadlines or Deadlines()
        self._transcript = transcript
        self._identities = read_roster(Path(roster or self.folder / ROSTER)) if rounds.is_malicious else None
        self._account: _Account | None = None

    def start(self, grid: Any, initial_arrays: ArrayRecord, num_rounds: int = 3, **settings: Any) -> Any:
        """Run the strategy inside over private rounds; arguments and result are its own `start`'s.

        Args:
            grid: Flower's grid, as its server app was given it.
            initial_arrays: The model to begin with.
            num_rounds: How many rounds to run. The noise is sized for those planned; each one more is charged like
                them, until a budget ends the run. In malicious mode nodes keep their data out of it.
            settings: Passed on to the strategy inside.

        Returns:
            Its result.

        Raises:
            RoundAborted: three rounds in a row ended without a sum.
            ParameterError, dp.ParameterError, secagg.ParameterError: settings that cannot keep the promise.
        """
        with ExitStack() as held:
            private = self._private(grid, initial_arrays, held)
            return self.strategy.start(private, initial_arrays, num_rounds, **settings)

    def statement(self) -> dp.Statements:
        """Both statements, for everything charged so far.

        Raises:
            ParameterError: nothing was started yet.
        """
        if self._account is None:
            raise ParameterError("there is no statement before the run has started; ask after start()")
        return self._account.statement()

    def _private(self, grid: Any, arrays: ArrayRecord, held: ExitStack) -> _PrivateGrid:
        _, leaves = arrays_of(RecordDict({"arrays": arrays}))
        spec = TreeSpec.of(leaves)
        plan = self.rounds.plan(spec, self.folder)
        plan.parameters(
            0, bytes(32), self._identities
        )  # Infeasible graphs are refused here, before any charge.
        self._account = _Account(plan, self.folder)
        weighted_by = getattr(self.strategy, "weighted_by_key", "num-examples")
        record = None
        if self._transcript is not None:
            record = held.enter_context(Recorder(self._transcript, plan.aggregation, resume=True))
        return _PrivateGrid(
            grid, plan, spec, self._account, self._identities, self.deadlines, weighted_by, record
        )


class _Account:
    """The run's ledger, and what is written after each round."""

    def __init__(self, plan: RoundPlan, folder: Path) -> None:
        settings, aggregation = plan.settings, plan.aggregation
        self.plan, self._folder = plan, folder
        self.ledger = dp.Ledger.attach(
            folder / "ledger.sqlite",
            accountant=dp.RunAccountant(
                aggregation.mechanism, settings.sampler, settings.privacy, settings.rounds
            ),
            run={
                "task": settings.task,
                "plan": aggregation.canonical().hex(),
                "form": plan.layout.spec.describe(),
                "nodes": settings.nodes,
                "rounds": settings.rounds,
                "adversary": settings.secure.adversary,
                "secure": repr(settings.secure),
            },
        )

    def statement(self) -> dp.Statements:
        settings, aggregation = self.plan.settings, self.plan.aggregation
        return dp.statements(
            self.ledger.spent(),
            **aggregation.terms_of_statements,
            sampler=settings.sampler,
            privacy=settings.privacy,
            charged=self.ledger.charged,
            aborted=self.ledger.aborted,
            sharing=self.ledger.sharing,
        )

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a monitoring line and rewrite the statement."""
        spent = self.ledger.spent()
        line = {"time": time.time(), **line, "epsilon": {"readers": spent.readers, "server": spent.server}}
        with (self._folder / "rounds.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        (self._folder / "statement.json").write_text(json.dumps(self.statement().as_dict(), indent=1))


class _PrivateGrid:
    """A Grid whose training batches become private rounds; everything that is not training is left out."""

    def __init__(
        self,
        grid: Any,
        plan: RoundPlan,
        spec: TreeSpec,
        account: _Account,
        identities: secagg.IdentityRoster | None,
        deadlines: Deadlines,
        weighted_by: str,
        record: Record | None,
    ) -> None:
        self._grid, self._plan, self._spec, self._account = grid, plan, spec, account
        self._identities, self._deadlines, self._weighted_by = identities, deadlines, weighted_by
        self._record = record
        self._population: list[int] = []
        self._aborts = 0
        self._told: set[str] = set()

    @property
    def run(self) -> Any:
        """Flower's run."""
        return self._grid.run

    def set_run(self, run: Any) -> None:
        """Set Flower's run."""
        self._grid.set_run(run)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are connected; which of them take part is not the strategy's choice."""
        return self._grid.get_node_ids()  # type: ignore[no-any-return]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Turn a batch of training messages into one private round, and give one reply with its average."""
        batch = list(messages)
        if not batch:
            return []
        kind = batch[0].metadata.message_type
        if kind.split(".")[0] != "train":
            self._tell(
                f"{kind} messages are left out: their answers would be computed from data and travel in the clear;"
                " evaluate the released model on data that is nobody's secret (evaluate_fn)"
            )
            return []
        records = users_records(batch[0].content)
        self._require_one_form(batch, records)
        content = None
        while content is None:
            try:
                number = self._account.ledger.reserve(timestamp=time.time())
            except dp.BudgetExceeded as error:
                self._tell(f"the budget ends the run: {error}")
                return []
            content = self._round(number, records, kind)
        return [Message(content, reply_to=batch[0])]

    def _require_one_form(self, batch: list[Message], records: RecordDict) -> None:
        model = content_hash(records)
        if any(content_hash(message.content) != model for message in batch[1:]):
            raise ParameterError(
                "the strategy sends nodes different models or settings, which no sum can be bound to; use one that"
                " sends all of them the same"
            )
        if describe_form(TreeSpec.of(arrays_of(records)[1])) != describe_form(self._spec):
            raise ParameterError(
                "the strategy sends a model of another form than the one the run began with; keep names, shapes and"
                " dtypes"
            )

    def _round(self, number: int, records: RecordDict, kind: str) -> RecordDict | None:
        ledger, log, begun = self._account.ledger, RoundLog(), time.monotonic()
        line: dict[str, Any] = {"round": number, "cohort": self._plan.aggregation.cohort}
        invitation = Invitation(
            number=number,
            model=content_hash(records),
            form=describe_form(self._spec),
            records=records,
            nodes=self._cohort(),
            message_type=kind,
        )
        try:
            result = run_round(
                self._grid,
                self._plan,
                invitation,
                identities=self._identities,
                deadlines=self._deadlines,
                log=log,
                record=self._record,
            )
        except secagg.SecAggError as error:
            self._aborted(number, error, log, line)
            return None
        self._aborts = 0
        content, released = self._released(records, result.sums)
        model = content_hash(content)
        ledger.settle(number, survivors=result.survivors, model_hash=model, timestamp=time.time())
        self._account.write(
            {
                **line,
                "survivors": result.survivors,
                "seconds": round(time.monotonic() - begun, 3),
                "bytes_up_per_client": result.bytes_up_per_client,
                "released": released,
                "stages": log.stages,
                "faults": log.faults,
            }
        )
        self._tell_failures(number, released["failed"])
        return content

    def _tell_failures(self, number: int, failed: float) -> None:
        """Say it where most apps fail: each says so to nobody but its own node, and a noised count is easily missed."""
        expected = self._plan.settings.sampler.expected
        if failed - 4 * self._plan.aggregation.stddev_of_sum("scalars") > expected / 2:
            _logger.warning(
                "round %s: about %.0f of %.0f nodes failed and sent zeros; their own logs say why",
                number,
                failed,
                expected,
            )

    def _aborted(
        self, number: int, error: secagg.SecAggError, log: RoundLog, line: Mapping[str, Any]
    ) -> None:
        if not log.charged:
            self._account.ledger.refund(number, reason=type(error).__name__, timestamp=time.time())
        ending = "stays charged" if log.charged else "was refunded"
        message = f"round {number} ended without a sum: {error}; it {ending}"
        _logger.warning("%s", message)
        fate = {"aborted": str(error), "charged": log.charged, "stages": log.stages, "faults": log.faults}
        self._account.write({**line, **fate})
        self._aborts += 1
        if self._aborts == _ABORTS_IN_A_ROW:
            raise RoundAborted(message, charged=log.charged) from error
        time.sleep(self._deadlines.pause)

    def _cohort(self) -> dict[int, bool]:
        """Who is asked to this round, and which of them were drawn; drawn before anybody is asked."""
        settings = self._plan.settings
        self._await_nodes()
        connected = list(self._grid.get_node_ids())
        if settings.is_malicious:
            # Whoever stands in the roster proves it at the first stage.
            return dict.fromkeys(connected, True)
        for node in sorted(set(connected) - set(self._population)):
            gone = [i for i, old in enumerate(self._population) if old not in connected]
            if len(self._population) < settings.nodes:
                self._population.append(node)
            elif gone:
                self._population[gone[0]] = node  # A node that Flower gave a new number when it came back.
        sampler = settings.sampler
        carriers = sampler.carriers if isinstance(sampler, dp.SelfSampling) else sampler
        drawn = carriers.draw(dp.Keystream())
        here = dict(enumerate(self._population))
        return {
            here[position]: contributes
            for position, contributes in zip(drawn.invited.tolist(), drawn.contributes.tolist(), strict=True)
            if here.get(position) in connected
        }

    def _await_nodes(self) -> None:
        """Wait until enough nodes are connected for a sum, at most one stage's deadline; then the round decides."""
        deadline = time.monotonic() + self._deadlines.stage
        while (
            len(list(self._grid.get_node_ids())) < self._plan.settings.nodes and time.monotonic() < deadline
        ):
            time.sleep(_POLL_SECONDS)

    def _released(self, records: RecordDict, sums: Mapping[str, Any]) -> tuple[RecordDict, dict[str, float]]:
        """The averaged model and metrics, as one node's reply; divided by public numbers or noised counts."""
        layout = self._plan.layout
        key, arrays = arrays_of(records)
        expected = self._plan.settings.sampler.expected
        weights = self._spec.flatten(arrays)
        average = weights + (layout.update(sums) / expected).astype(weights.dtype)
        leaves = {leaf.path: array for leaf, array in self._spec.arrays(average)}
        names = list(records[key])
        model = ArrayRecord({name: Array(leaves[name.replace("/", "|")]) for name in names})
        contributed, failed, *metrics = sums["scalars"].tolist()
        count = max(
            contributed, expected / 2
        )  # The floor keeps a small, noisy count from exploding the ratio.
        released = {
            name: float(np.clip(total * bound / count, -bound, bound))
            for (name, bound), total in zip(layout.metrics.items(), metrics, strict=True)
        }
        content = RecordDict({key: model, "metrics": MetricRecord({self._weighted_by: expected, **released})})
        return content, {"contributed": contributed, "failed": failed, **released}

    def _tell(self, message: str) -> None:
        """Say something once."""
        if message not in self._told:
            self._told.add(message)
            _logger.warning("%s", message)
