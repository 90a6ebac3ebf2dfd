"""Rounds of private processes: charge, draw, run the clients, bound what they send, sum, and say what it is worth.

Not here: what the caller chose (`fedavg.processes.private_sum`), the sum itself (`fedavg.aggregation`).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import dp
from fedavg.aggregation import AggregationPlan
from fedavg.client_data import ClientData
from fedavg.errors import ParameterError, StepError
from fedavg.model import EXAMPLES
from fedavg.paid_round import paid_round
from fedavg.processes.collecting import Collected, Content, Released, Work

if TYPE_CHECKING:
    from fedavg.processes.private_sum import PrivateSum

__all__ = ["PrivateAggregator"]

_client_logger = logging.getLogger("fedavg.client")
_COUNTS = ("contributed", "failed")


class PrivateAggregator:
    """One process's rounds: plan, ledger, counts of who was drawn."""

    def __init__(self, settings: PrivateSum, content: Content) -> None:
        self.settings, self.content = settings, content
        self.sampler = settings.sampler
        self.plan = AggregationPlan.choose(
            _blocks(settings, content),
            cohort=self.sampler.cohort_size,
            privacy=settings.privacy,
            noise_multiplier=_noise_multiplier(settings),
            secure=settings.secure,
            task=content.task,
        )
        if settings.secure.masked:
            self.plan.check_graph()  # Infeasible graphs are refused before anything is charged.
        self.ledger = dp.Ledger.attach(
            settings.ledger,
            accountant=dp.RunAccountant(self.plan.mechanism, self.sampler, settings.privacy, settings.rounds),
            run={
                "task": content.task,
                "plan": self.plan.canonical().hex(),
                "population": settings.population,
                "cohort": settings.cohort_size,
                "secure": repr(settings.secure),
                "seeded": settings.entropy.is_seeded,
                "masked": settings.secure.masked,
            },
        )
        self._counts = dp.ParticipationCounts(self.ledger)

    def statement(self) -> dp.Statements:
        """Both statements for everything charged so far."""
        settings = self.settings
        made = dp.statements(
            self.ledger.spent(),
            **self.plan.terms_of_statements,
            sampler=self.sampler,
            privacy=settings.privacy,
            charged=self.ledger.charged,
            aborted=self.ledger.aborted,
            seeded=settings.entropy.is_seeded,
            sharing=self.ledger.sharing,
        )
        if settings.population is not None:
            return made
        chosen = (
            f"the caller chose the {settings.cohort_size} clients of each round, so who took part is not taken as"
            " secret and there is no amplification by sampling; no client stands twice in a round"
        )
        readers = replace(made.readers, assumptions=(chosen, *made.readers.assumptions[1:]))
        return replace(made, readers=readers)

    def collect(self, work: Work, data: Any, *, model_hash: bytes, released: Released) -> Collected:
        """Charge, draw where the library draws, run the clients, sum.

        Raises:
            ParameterError: not the clients that were planned for; nothing was charged.
            dp.BudgetExceeded: the round would pass a budget; nothing was charged.
            RoundAborted: no sum came of it; says whether it stays charged.
        """
        clients = self._clients(data)
        with paid_round(self.ledger) as paid:
            drawn, fetch = self._drawn(paid.number, clients)

            def values(position: int) -> Mapping[str, NDArray[Any]]:
                return self._values(work, partial(fetch, position)) if drawn[position] else self.plan.zeros()

            result = self.plan.sum_round(
                values,
                clients=list(drawn),
                number=paid.number,
                model_hash=model_hash,
                dropouts={},
                entropy=self.settings.entropy,
                record=paid.record,
            )
            collected = self._collected(result.sums, result.survivors, result.bytes_up_per_client)
            paid.settle(survivors=result.survivors, model_hash=released(collected.average))
        return collected

    def _clients(self, data: Any) -> ClientData:
        """The clients as they were planned for, or a refusal."""
        settings = self.settings
        if settings.population is not None:
            if not isinstance(data, ClientData) or len(data) != settings.population:
                raise ParameterError(
                    f"the federated data is {_described(data)}; the plan draws from a ClientData of all"
                    f" {settings.population} clients: pass that, or leave population= out to choose clients yourself"
                )
            self._counts.count(data.client_ids[0])  # Ids that cannot be counted are refused here.
            return data
        if (
            isinstance(data, ClientData)
            or not isinstance(data, list | tuple)
            or len(data) != settings.cohort_size
        ):
            raise ParameterError(
                f"the federated data is {_described(data)}; the plan is for a list of {settings.cohort_size} clients'"
                " data in each round, no more and no fewer, for the noise comes from the clients: pass as many, or give"
                " population= for the library to draw from a ClientData"
            )
        if len({id(client) for client in data}) < len(data):
            raise ParameterError("one client's data stands twice in the list; give each client once")
        return ClientData.of(data)

    def _drawn(self, number: int, clients: ClientData) -> tuple[dict[int, bool], Callable[[int], Any]]:
        """Each invited position and whether it contributes; and how to fetch its data."""
        if self.settings.population is None:
            return dict.fromkeys(range(len(clients)), True), clients.for_client
        draw = self.sampler.draw(self.settings.entropy.keystream("cohort", number))
        ids = [clients.client_ids[position] for position in draw.invited[draw.contributes]]
        draw = self._counts.claim(draw, ids, cap=self.settings.privacy.max_participations)
        drawn = dict(zip(draw.invited.tolist(), draw.contributes.tolist(), strict=True))
        return drawn, lambda position: clients.for_client(clients.client_ids[position])

    def _values(self, work: Work, fetch: Callable[[], Any]) -> Mapping[str, NDArray[Any]]:
        """What a drawn client encodes: its work, bounded; or zeros and the count of one failure."""
        content = self.content
        try:
            delta, sums = work(fetch)
        except StepError as error:
            # Below what is shown unless asked for: it tells of a client that was drawn.
            _client_logger.info("a client sends zeros: %s", error)
            zeros = dict(self.plan.zeros())
            counts = zeros["scalars"].copy()
            counts[1] = 1.0
            return {**zeros, "scalars": counts}
        weights = self.settings.weights
        weight, shrink = 1.0, 0.0
        if content.counted and weights is not None:
            weight = weights.weight(sums[EXAMPLES])
            shrink = weight / max(sums[EXAMPLES], 1.0)
        scalars = [1.0, 0.0, *([weight] if content.counted and not content.weighted else [])]
        for name, bound in content.bounds.items():
            scalars.append(float(np.clip(sums[name] * shrink / bound, -weight, weight)))
        values: dict[str, NDArray[Any]] = {"scalars": np.array(scalars)}
        if content.update:
            clipped, _ = dp.clip_l2(delta, self.settings.clip)
            values["update"] = clipped * weight if content.weighted else clipped
        if content.weighted:
            values["weight"] = np.array([weight])
        return values

    def _collected(self, sums: Mapping[str, NDArray[np.float64]], survivors: int, bytes_up: int) -> Collected:
        content, weights, expected = self.content, self.settings.weights, self.sampler.expected
        contributed, failed, *rest = sums["scalars"].tolist()
        failing = failed - 4 * self.plan.stddev_of_sum("scalars") > expected / 2
        if failing:
            warnings.warn(
                f"about {failed:.0f} of {expected:.0f} clients failed and sent zeros; the clients' own logs name the"
                " cause (fedavg.check finds most of them beforehand)",
                stacklevel=2,
            )
        divisor, least, counted = expected, 1.0, {}
        if content.counted and weights is not None:
            whole = float(sums["weight"][0]) if content.weighted else rest.pop(0)
            least = weights.floor * expected * weights.most
            counted = {EXAMPLES: whole * weights.most}
            noise = self.plan.stddev_of_sum("weight" if content.weighted else "scalars")
            if whole + 4 * noise < weights.floor * expected and not failing:
                warnings.warn(
                    f"about {max(counted[EXAMPLES], 0):.0f} examples were counted, and averages are divided by the"
                    f" public floor of {least:.0f}: they come out too small; lower most_examples or least_share in"
                    " private_sum",
                    stacklevel=2,
                )
            for (name, bound), value in zip(content.bounds.items(), rest, strict=True):
                counted[name] = value * bound * weights.most
            if content.weighted:
                divisor = weights.denominator(whole, expected=expected)
        return Collected(
            average=sums["update"] / divisor if content.update else np.zeros(0),
            sums=counted,
            least_examples=least,
            contributed=contributed,
            failed=failed,
            cohort=self.plan.cohort,
            survivors=survivors,
            bytes_up_per_client=bytes_up,
            epsilon=self.ledger.spent(),
            aggregation=self._sentence(),
        )

    def _sentence(self) -> str:
        masks = (
            "under masks"
            if self.settings.secure.masked
            else "without masks, which hides nothing from the server"
        )
        noise = "noised by the clients"
        if self.plan.mechanism.trusted_server:
            noise = "noised by a server that is trusted with the sum, so that nothing is promised against it"
        if self.settings.population is None:
            return (
                f"private_sum over clients that the caller chose, {masks}: {noise}, charged, and without amplification"
                " by sampling, because who took part is not taken as secret"
            )
        return (
            f"private_sum over a padded Poisson cohort that the library drew, {masks}: {noise}, charged, and amplified"
            " by the secret draw against readers"
        )


def _noise_multiplier(settings: PrivateSum) -> float:
    if settings.privacy.mechanism == "skellam":
        raise ParameterError(
            "processes use discrete_gaussian or central_gaussian noise; fedavg.train has skellam, too"
        )
    return dp.calibrate(settings.privacy, settings.sampler, rounds=settings.rounds)


def _blocks(settings: PrivateSum, content: Content) -> list[dp.Block]:
    """Update, weight and scalars, each with its share of the one sensitivity."""
    count = len(_COUNTS) + len(content.bounds) + (content.counted and not content.weighted)
    if not content.update:
        return [dp.Block("scalars", count, l2_bound=sqrt(count), weight=1.0)]
    scalars = settings.privacy.metrics_share
    weight = settings.weight_share if content.weighted else 0.0
    return [
        dp.Block("update", content.update, l2_bound=settings.clip, weight=1 - scalars - weight),
        *([dp.Block("weight", 1, l2_bound=1.0, weight=weight)] if content.weighted else []),
        dp.Block("scalars", count, l2_bound=sqrt(count), weight=scalars),
    ]


def _described(data: Any) -> str:
    try:
        return f"a {type(data).__name__} of {len(data)}"
    except TypeError:
        return f"a {type(data).__name__}"
