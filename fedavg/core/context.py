"""Where programs run: a context has the population, the budget, the ledger, and the way sums are taken.

Order inside a run, which the statements rest on:

1. arguments are checked; a program whose cost the context cannot state is refused;
2. the ledger reserves the whole run, all stages of it, before anybody is drawn;
3. the library draws one cohort for all stages;
4. stage by stage, clients compute, clip, round, noise and mask, and the server goes on with the noised sums;
5. the ledger settles. A run that ends without its sums is refunded only while nothing could have been released.

How often a program may run is fixed beforehand (`rounds=`), or kept by a filter (`rounds=None`, over a ledger that
several programs may share). An insecure context adds no noise and takes no masks: for debugging, and it says so in
every result.

Where the clients are is somebody else's matter: the context hands a stage's work, as a value, to its backend, and goes
on with what comes back. The same entropy gives the same numbers on every backend.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import dp
from fedavg import backends
from fedavg.aggregation import Record, RoundSum, SecureAggregation
from fedavg.client_data import ClientData
from fedavg.core.computation import FederatedComputation, current_context, takes_clients
from fedavg.core.errors import ExecutionError
from fedavg.core.graph import Node, caller, listing, upstream
from fedavg.core.local import checker
from fedavg.core.plan import PrivacyReport, Stage, stages_of
from fedavg.core.program import Arguments, ClientStage, ServerState, exact_sums, released
from fedavg.core.promise import Bound, Promise
from fedavg.core.values import copied, digest
from fedavg.entropy import RunEntropy
from fedavg.errors import StepError
from fedavg.paid_round import paid_round

__all__ = ["Context", "InsecureWarning", "RunResult"]

_client_logger = logging.getLogger("fedavg.client")
_STAGE_BITS = 16  # A sum's number is its run's and its stage's, so that no two on a ledger share one.
_LEAST_DENOMINATOR = 4.0  # deviations of its noise
_INSECURE = (
    "INSECURE: computed without noise and without masks, for debugging; whoever sees this result learns about single"
    " clients"
)


class InsecureWarning(UserWarning):
    """A result was computed without any protection."""


@dataclass(frozen=True)
class RunResult:
    """What a run gave, and what everything charged to its ledger has cost so far; None where no client was asked.

    Attributes:
        value: What the program returned.
        statements: What has been spent, against each observer; None where no client was asked, or in an
            insecure context.
        survivors: Clients in the sum, padding included; None where there was none.
        warning: What an insecure context has to say.
    """

    value: Any
    statements: dp.Statements | None
    survivors: int | None = None
    warning: str | None = None

    def __str__(self) -> str:
        return f"{self.value}" + (f"\n{self.warning}" if self.warning else "")


class Context:
    """Runs programs, with the clients played in this process or wherever a backend plays them.

    Guarantee: the two statements of `privacy()`, for at most `rounds` runs of one program, whatever its results are
    used for; with `rounds=None`, for any runs of any programs on one ledger until its budgets are spent.

    Args:
        population: Number of clients; every argument at CLIENTS has so many.
        delta: What a probability may change by beyond the factor e^epsilon.
        readers_epsilon: Most epsilon against readers of the results, or None.
        server_epsilon: Most epsilon against the server, or None.
        noise_multiplier: z of a run's one event, at least; calibrated to the budgets when None.
        rounds: How often the program will be run; None for a filter.
        cohort_size: Clients drawn on average for a run; everybody when None.
        max_participations: Most runs a client may contribute to, or None for every run.
        secure: How sums are taken.
        entropy: Where randomness comes from; the operating system by default.
        ledger: Where charges are kept; in memory when None, which a filter does not allow.
        backend: Where the clients are played: in this process when None, "processes", "ray", or as
            `fedavg.backends.of` has it.
        record: Called with what the server receives.
        insecure: No noise, no masks, no budget: for debugging.

    Raises:
        ExecutionError: population or delta is missing, a filter lacks its ledger or budget, or an insecure
            context was given a promise.

    >>> from fedavg.core import at_clients, federated_clip, federated_computation, federated_sum
    >>> @federated_computation(at_clients(float))
    ... def total(x):
    ...     return federated_sum(federated_clip(x, l2=1.0))
    >>> context = Context(population=50, delta=1e-4, noise_multiplier=2.0)
    >>> round(total.privacy(context).statements.readers.epsilon, 2)
    1.7
    """

    def __init__(
        self,
        *,
        population: int | None = None,
        delta: float | None = None,
        readers_epsilon: float | None = None,
        server_epsilon: float | None = None,
        noise_multiplier: float | None = None,
        rounds: int | None = 1,
        cohort_size: float | None = None,
        max_participations: int | None = None,
        secure: SecureAggregation | None = None,
        entropy: RunEntropy | None = None,
        ledger: str | Path | None = None,
        backend: backends.Backend | str | None = None,
        record: Record | None = None,
        insecure: bool = False,
    ) -> None:
        self._entropy, self._secure = entropy or RunEntropy(), secure or SecureAggregation()
        self._ledger_path = None if ledger is None else Path(ledger)
        self._record = record
        self._promise: Promise | None = None
        self._bound: dict[FederatedComputation, Bound] = {}
        self._ledgers: dict[FederatedComputation, dp.Ledger] = {}
        self._counts: dict[dp.Ledger, dp.ParticipationCounts] = {}
        self._clients: Arguments | None = None
        promises = (delta, readers_epsilon, server_epsilon, noise_multiplier, max_participations, backend)
        if insecure:
            if any(promise is not None for promise in promises):
                raise ExecutionError(
                    "an insecure context keeps no promise and plays its clients here; leave out budgets, delta, noise"
                    " and backend"
                )
            return
        if population is None or delta is None:
            raise ExecutionError(
                "no cost can be stated without population and delta; give both, or insecure=True"
            )
        if rounds is None and (
            ledger is None or noise_multiplier is None or (readers_epsilon is None and server_epsilon is None)
        ):
            raise ExecutionError(
                "rounds=None asks for a filter, which a ledger keeps: give ledger=, noise_multiplier= and a budget, or"
                " the number of rounds"
            )
        privacy = dp.Privacy(
            delta=delta,
            l2_clip_norm=1.0,  # Not used: bounds are in the program's types.
            readers_epsilon=readers_epsilon,
            server_epsilon=server_epsilon,
            noise_multiplier=noise_multiplier,
            max_participations=max_participations,
        )
        sampler = dp.PaddedPoisson(
            population=population, expected=population if cohort_size is None else cohort_size
        )
        self._promise = Promise(sampler, privacy, rounds, self._secure, self._entropy.is_seeded)
        self._backend = backends.of(backend)  # Last: it may start machines.

    @classmethod
    def public(cls) -> Context:
        """For programs that ask nothing of clients."""
        return cls(insecure=True)

    def __enter__(self) -> Self:
        self._token = current_context().set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current_context().reset(self._token)

    @property
    def promise(self) -> Promise:
        """What this context promises.

        Raises:
            ExecutionError: nothing; it is insecure.
        """
        if self._promise is None:
            raise ExecutionError("an insecure context promises nothing, so there is no cost to state")
        return self._promise

    def privacy(self, computation: FederatedComputation) -> PrivacyReport:
        """What the planned runs of a program cost, without running anything.

        Args:
            computation: The program.

        Raises:
            ExecutionError: the context is insecure, or cannot state the program's cost.
        """
        return self.promise.report(self._bind(computation))

    def run(self, computation: FederatedComputation, *arguments: Any) -> RunResult:
        """Run a program once, and charge it.

        Args:
            computation: The program.
            arguments: At CLIENTS a value for each client, in order or by id; at SERVER a value.

        Returns:
            The result, with both statements of what has been spent.

        Raises:
            ExecutionError: it cannot be run on these arguments, or not once more; nothing was charged.
            dp.BudgetExceeded: it would pass a budget; nothing was drawn or charged.
            RoundAborted: too many dropped out; says whether it was charged.
        """
        # What runs inside has no context: a function that called a program from a client would be no local one.
        token = current_context().set(None)
        try:
            return self._run(computation, _arguments(computation, arguments))
        finally:
            current_context().reset(token)

    def _run(self, computation: FederatedComputation, given: Mapping[Node, Any]) -> RunResult:
        data = {node: value for node, value in given.items() if takes_clients(node.type)}
        public = {node: value for node, value in given.items() if node not in data}
        if self._promise is not None and computation.asks_clients:
            self._bind(computation)
        state = ServerState(computation.results, public)
        if not computation.asks_clients:
            return RunResult(_filled(computation.result, state), None)
        if self._promise is None:
            return self._run_insecure(computation, state, data)
        return self._run_private(computation, state, data)

    def ledger(self, computation: FederatedComputation) -> dp.Ledger:
        """The ledger that a program is charged to.

        Args:
            computation: The program.

        Raises:
            ExecutionError: the context is planned for another program.
        """
        if computation not in self._ledgers:
            bound, promise = self._bind(computation), self.promise
            if self._ledgers and promise.rounds is not None:
                (other,) = self._ledgers
                raise ExecutionError(
                    f"this context is charged for {other.name}, and {computation.name} on top of it was not planned:"
                    " compose both in one program, or use a filter (rounds=None), which covers them together"
                )
            if promise.rounds is None:
                dp.Ledger.share(self._ledger_path, budget=promise.filter())
            self._ledgers[computation] = dp.Ledger.attach(
                self._ledger_path, accountant=bound.accountant, run=self._fingerprint(computation)
            )
        return self._ledgers[computation]

    def _bind(self, computation: FederatedComputation) -> Bound:
        if computation not in self._bound:
            self._bound[computation] = self.promise.bind(computation)
        return self._bound[computation]

    def _run_private(
        self, computation: FederatedComputation, state: ServerState, data: Mapping[Node, ClientData]
    ) -> RunResult:
        bound, ledger = self._bind(computation), self.ledger(computation)
        if ledger.charged >= (self.promise.rounds or np.inf):
            raise ExecutionError(
                f"{computation.name} was planned for {self.promise.rounds} rounds, and they are used up; plan for more,"
                " or use a filter (rounds=None)"
            )
        for node in upstream(*computation.results):
            if node.function is not None:
                node.function.check()  # Once more: what it captured may have changed since it was written.
        population = self.promise.sampler.population
        ids = _client_ids(data, population)
        clients = Arguments(population, {node.detail: own for node, own in data.items()})
        if not clients.same(self._clients):  # A backend sends a population that stays the same only once.
            self._clients = clients
        clients = self._clients or clients
        self._backend.prepare((bound.plan.program,), clients)
        counts, survivors = self._participations(ledger), []
        with paid_round(ledger, record=self._record) as paid:
            contributes = self._drawn(counts, paid.number, ids)
            for position, stage in enumerate(bound.plan.stages):
                work = ClientStage.begin(
                    bound.plan.program,
                    position,
                    state,
                    clients,
                    zeros=stage.plan.zeros(),
                    contributes=contributes,
                    log=_log,
                )
                number = (paid.number << _STAGE_BITS) + position
                sums = self._sum(stage, work, number, paid.record, computation)
                state.advance(self._released(stage, sums))
                survivors.append(sums.survivors)
                paid.released()
            value = _filled(computation.result, state)
            paid.settle(survivors=min(survivors), model_hash=digest(value))
        statements = self.promise.statements(
            bound,
            ledger.spent(),
            charged=ledger.charged,
            aborted=ledger.aborted,
            sharing=ledger.sharing,
        )
        return RunResult(value, statements, min(survivors))

    def _sum(
        self,
        stage: Stage,
        work: ClientStage,
        number: int,
        record: Record,
        computation: FederatedComputation,
    ) -> RoundSum:
        """Take one stage's sum, wherever the clients are."""
        # What clients compute is theirs; what is not finite becomes zeros.
        with np.errstate(all="ignore"), _interrupts_wait():
            return self._backend.sum_round(
                stage.plan,
                work,
                clients=list(work.contributes),
                number=number,
                model_hash=digest([str(computation), *work.told.values()]),
                dropouts={},
                entropy=self._entropy,
                record=record,
                memory={},
            )

    def _released(self, stage: Stage, sums: RoundSum) -> dict[Node, Any]:
        least = {name: _LEAST_DENOMINATOR * stage.plan.stddev_of_sum(name) for name in sums.sums}
        divisor = self.promise.sampler.expected
        return {a.node: released(a, sums.sums, divisor=divisor, least=least) for a in stage.aggregations}

    def _run_insecure(
        self, computation: FederatedComputation, state: ServerState, data: Mapping[Node, ClientData]
    ) -> RunResult:
        """The same program over everybody, with exact sums; clips that the program asks for are kept."""
        count = len(_client_ids(data, None))
        everybody = dict.fromkeys(range(count), True)
        clients = Arguments(count, {node.detail: own for node, own in data.items()})
        program = stages_of(computation.results)
        for position in range(len(program)):
            work = ClientStage.begin(
                program, position, state, clients, zeros={}, contributes=everybody, log=_log
            )
            state.advance(exact_sums(work, count))
        _warn(f"{computation.name}: {_INSECURE}")
        return RunResult(_filled(computation.result, state), None, count, _INSECURE)

    def _drawn(self, counts: dp.ParticipationCounts, number: int, ids: Sequence[Any]) -> dict[int, bool]:
        """One cohort for all stages of a run, counted durably before anybody is asked."""
        draw = self.promise.sampler.draw(self._entropy.keystream("cohort", number))
        drawn = [ids[position] for position in draw.invited[draw.contributes]]
        draw = counts.claim(draw, drawn, cap=self.promise.privacy.max_participations)
        return dict(zip(draw.invited.tolist(), draw.contributes.tolist(), strict=True))

    def _participations(self, ledger: dp.Ledger) -> dp.ParticipationCounts:
        if ledger not in self._counts:
            self._counts[ledger] = dp.ParticipationCounts(ledger)
        return self._counts[ledger]

    @cached_property
    def _settings(self) -> dict[str, Any]:
        masked = {} if self._secure.masked else {"masked": False}
        return {"secure": repr(self._secure), "seeded": self._entropy.is_seeded, **masked}

    def _fingerprint(self, computation: FederatedComputation) -> dict[str, Any]:
        graph = hashlib.sha256(listing(*computation.results).encode()).hexdigest()
        return {
            "program": computation.name,
            "type": str(computation.type_signature),
            "graph": graph,
            **self._settings,
        }


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back until the sum is taken: an interrupt out of a client's work is that client's own doing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _warn(message: str) -> None:
    """At the caller's line, and each time anew: `warnings.warn` would be silent about all but a line's first result."""
    frame = caller()
    module = frame.f_globals.get("__name__")
    warnings.warn_explicit(message, InsecureWarning, frame.f_code.co_filename, frame.f_lineno, module)


def _arguments(computation: FederatedComputation, arguments: Sequence[Any]) -> dict[Node, Any]:
    """The arguments in the form of their types; what clients hold is not looked at."""
    given: dict[Node, Any] = {}
    if len(arguments) != len(computation.parameters):
        raise ExecutionError(
            f"{computation.name} is {computation.type_signature}, and got {len(arguments)} arguments"
        )
    for node, argument in zip(computation.parameters, arguments, strict=True):
        if takes_clients(node.type):
            given[node] = ClientData.of(argument)
            continue
        if isinstance(argument, ClientData):
            raise ExecutionError(f"{node.detail} is one value of type {node.type}; it was given a population")
        try:
            given[node] = copied(checker(node.type.member)(argument))
        except StepError as error:
            raise ExecutionError(f"{node.detail} is not of type {node.type}: {error}") from error
    return given


def _client_ids(data: Mapping[Node, ClientData], population: int | None) -> Sequence[Any]:
    """The population, which all arguments at the clients must have in common."""
    ids = [list(clients.client_ids) for clients in data.values()] or [list(range(population or 0))]
    for other, node in zip(ids, data, strict=False):
        if other != ids[0]:
            raise ExecutionError(
                f"{node.detail} has other clients than the first argument; give the same ids"
            )
    if population is not None and len(ids[0]) != population:
        raise ExecutionError(f"there are {len(ids[0])} clients, and the context was planned for {population}")
    return ids[0]


def _filled(result: Any, state: ServerState) -> Any:
    """The result with values in the place of nodes."""
    if isinstance(result, Node):
        return copied(state[result])
    if isinstance(result, Mapping):
        return {name: _filled(item, state) for name, item in result.items()}
    return tuple(_filled(item, state) for item in result) if isinstance(result, tuple) else result


def _log(client_id: Any, cause: str) -> None:
    # Below what is shown unless asked for: it names a client that was drawn.
    _client_logger.info("client %s: %s", client_id, cause)
