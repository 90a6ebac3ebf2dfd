"""tensorflow-privacy's queries under our ledger, our distributed noise as one of its queries, and its accountants.

tensorflow-privacy 0.9.0 needs TensorFlow 2.15, numpy below 2 and Python 3.11; it is imported when something here is
used, never before. What is here:

* `CentralQuery`: any `SumAggregationDPQuery` as a *central* mechanism. The server sees every clipped record before it
  adds the noise, so the caller must say `trusted_server=True` and the server's epsilon is infinite. The noise is
  TensorFlow's float Gaussian: not floating-point safe (Mironov 2012), and never to be a client's own noise share.
* `QueryAccountant`: what a query's `DpEvent`, or a tree of them, costs; in the shape the ledger asks for.
* `distributed_sum_query`: our clipped, rounded, distributed discrete Gaussian as a `SumAggregationDPQuery` with a
  real event, where tensorflow-privacy's own distributed queries return none, do not clip and assume no dropouts.
* `example_level_statement`: its words on DP-SGD *inside* a client; `both_levels` sets them beside ours.

Source: McMahan et al. 2018 (1812.06210), queries; Kairouz et al. 2021 (2103.00039), tree aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dp import checks
from dp.accounting import epsilon
from dp.cohorts import PaddedPoisson
from dp.encoding import Encoding
from dp.errors import ParameterError, UnsupportedEvent
from dp.events import Gaussian
from dp.keystream import Keystream
from dp.mechanisms import DistributedDiscreteGaussian
from dp.privacy import Epsilons, Privacy
from dp.statements import Statements

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CentralQuery",
    "QueryAccountant",
    "both_levels",
    "distributed_sum_query",
    "example_level_statement",
    "tree_epsilon",
]

_SLACK_LIMIT = 1e-10
_SLACK_MARGIN = 1e-6


class CentralQuery:
    """A tensorflow-privacy sum query, run by a server that is trusted with every record.

    Guarantee: each `run` costs readers of its results one `event`; against the server there is none.

    Args:
        query: Any `tensorflow_privacy.SumAggregationDPQuery` whose event an accountant knows.
        template: A nest of arrays, of the records' form.
        trusted_server: Must be True: the caller accepts that the server sees every record.

    Raises:
        ParameterError: `trusted_server` is not True.
        UnsupportedEvent: the query gives no event (tree queries do not): account for it with
            `QueryAccountant.for_tree` and run the query yourself.
    """

    def __init__(self, query: Any, template: Any, *, trusted_server: bool) -> None:
        if trusted_server is not True:
            raise ParameterError(
                "a tensorflow-privacy query adds its noise after the server has seen every record; say"
                " trusted_server=True, or use distributed_sum_query, whose noise the clients add"
            )
        self._query = query
        self._template = template
        self._state = query.initial_global_state()
        # The event follows from public parameters alone, so one run over no records tells it.
        _, _, event = query.get_noised_result(query.initial_sample_state(template), self._state)
        self.event = event
        self._multiplier = _multiplier(event)

    def run(self, records: Iterable[Any]) -> Any:
        """Clip and sum the records, add the noise once.

        Args:
            records: Nests of arrays of the template's form: those drawn for this round, and nobody else.

        Returns:
            The noised result, a nest of numpy arrays.

        Raises:
            UnsupportedEvent: the query's event changed from the one that was charged.
        """
        import tensorflow as tf

        parameters = self._query.derive_sample_params(self._state)
        sample = self._query.initial_sample_state(self._template)
        for record in records:
            sample = self._query.accumulate_record(parameters, sample, record)
        result, self._state, event = self._query.get_noised_result(sample, self._state)
        if _multiplier(event) != self._multiplier:
            raise UnsupportedEvent(
                f"the query's event changed to {event}; charge what it costs before running it"
            )
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), result)


@dataclass(frozen=True)
class QueryAccountant:
    """Costs of a run of central queries, in the shape `Ledger.attach` asks for; the server's epsilon is infinite.

    Make one with `for_event` or `for_tree`.

    Attributes:
        privacy: The promise; a server epsilon in it cannot be kept and is refused.
        facts: What the cost follows from, as JSON values.
        cost: Rounds charged to the readers' epsilon.
    """

    privacy: Privacy
    facts: Mapping[str, Any]
    cost: Callable[[int], float]

    def __post_init__(self) -> None:
        if self.privacy.server_epsilon is not None:
            raise ParameterError(
                f"server_epsilon is {self.privacy.server_epsilon}, but a trusted server sees every record: its epsilon"
                " is infinite; leave it out, or use distributed noise"
            )

    @classmethod
    def for_event(cls, event: Any, sampler: PaddedPoisson, privacy: Privacy) -> QueryAccountant:
        """Account for rounds of one event on Poisson draws of `sampler`; all of an event's parts share one draw.

        Args:
            event: A `DpEvent` of one round.
            sampler: How clients are drawn.
            privacy: The promise, with `trusted_server=True`.

        Raises:
            UnsupportedEvent: no accountant covers the event.
        """
        gaussian = Gaussian(_multiplier(event))
        facts = {
            "noise_multiplier": gaussian.noise_multiplier,
            "sampler": sampler.describe(),
            "delta": privacy.delta,
        }
        return cls(
            privacy,
            facts,
            lambda rounds: epsilon(sampler.readers_event(gaussian, rounds), delta=privacy.delta),
        )

    @classmethod
    def for_tree(cls, noise_multiplier: float, privacy: Privacy) -> QueryAccountant:
        """Account for one tree of prefix sums in which each client takes part at most once.

        Args:
            noise_multiplier: Deviation of a node's noise over the clip.
            privacy: The promise, with `trusted_server=True`.
        """
        facts = {"tree": noise_multiplier, "delta": privacy.delta}
        return cls(
            privacy,
            facts,
            lambda rounds: tree_epsilon(noise_multiplier, rounds, delta=privacy.delta) if rounds else 0.0,
        )

    def epsilons(self, rounds: int) -> Epsilons:
        """Readers' epsilon after `rounds` charged rounds; the server's is infinite from the first on."""
        return Epsilons(readers=self.cost(rounds), server=math.inf if rounds else 0.0)

    @cached_property
    def budgets(self) -> Epsilons:
        """The most that may be spent."""
        readers = self.privacy.readers_epsilon
        return Epsilons(readers=math.inf if readers is None else readers, server=math.inf)

    def describe(self) -> Mapping[str, Any]:
        """Everything the epsilons follow from."""
        return {**self.facts, "readers_epsilon": self.privacy.readers_epsilon, "trusted_server": True}


def tree_epsilon(noise_multiplier: float, steps: int, *, delta: float) -> float:
    """Epsilon of one binary tree over `steps` rounds, each client in one round at most.

    Args:
        noise_multiplier: Deviation of a node's noise over the clip.
        steps: Rounds in the tree, at least 1.
        delta: In (0, 1).

    Source: Kairouz et al. 2021 (2103.00039), theorem D.2, by tensorflow-privacy's own accountant.
    """
    import dp_accounting
    from tensorflow_privacy import compute_rdp_tree_restart

    checks.positive("noise_multiplier", noise_multiplier)
    checks.integer("steps", steps, 1)
    checks.probability("delta", delta)
    orders = (*np.arange(1.1, 11.0, 0.1).tolist(), *range(11, 256))
    curve = compute_rdp_tree_restart(noise_multiplier, [steps], orders)
    return float(dp_accounting.rdp.compute_epsilon(orders, curve, delta)[0])


def distributed_sum_query(
    encoding: Encoding, mechanism: DistributedDiscreteGaussian, *, modulus_bits: int
) -> Any:
    """Our distributed discrete Gaussian as a `SumAggregationDPQuery` (eager TensorFlow).

    A record is a mapping of block name to array; it is clipped, rounded and given its noise share *before* it is
    accumulated, so the sum may be taken under masks. Every record draws its share from a fresh key of the OS.

    Guarantee: if at least `mechanism.honest_survivors` records of clients who keep their shares secret are accumulated,
    a result costs one record `event`, a `GaussianDpEvent` at the mechanism's multiplier less a margin for its slack.

    Args:
        encoding: Blocks, scales and limits.
        mechanism: The noise; its sensitivity must be the encoding's.
        modulus_bits: The ring of the sum.

    Returns:
        The query.

    Raises:
        ParameterError: sensitivity or dimension of the two differ, or the slack is too large to hide in the margin.
    """
    import dp_accounting
    import tensorflow as tf
    from tensorflow_privacy import SumAggregationDPQuery

    if mechanism.sensitivity < encoding.sensitivity or mechanism.dimension != encoding.dimension:
        raise ParameterError(
            f"the mechanism covers sensitivity {mechanism.sensitivity:g} in {mechanism.dimension} dimensions, the"
            f" encoding has {encoding.sensitivity:g} in {encoding.dimension};"
            " make it from encoding.sensitivity and encoding.dimension"
        )
    tight = mechanism.event
    if not isinstance(tight, Gaussian) or tight.slack > _SLACK_LIMIT:
        raise ParameterError(
            f"{tight} is no Gaussian within a factor of {_SLACK_LIMIT:g}; raise the encoding's resolution, which"
            " makes the shares larger"
        )
    event = dp_accounting.GaussianDpEvent(tight.noise_multiplier * (1 - _SLACK_MARGIN))

    class DistributedSumQuery(SumAggregationDPQuery):  # type: ignore[misc]
        """Sums of integers modulo 2^b that already hold the noise; the sample state counts its records."""

        def initial_sample_state(self, template: Any = None) -> Any:
            return tf.zeros(encoding.dimension, tf.int64), tf.zeros((), tf.int64)

        def preprocess_record(self, params: Any, record: Any) -> Any:
            del params
            stream = Keystream()
            blocks = {name: np.asarray(value) for name, value in record.items()}
            return tf.constant(encoding.encode(blocks, stream) + mechanism.share(stream)), tf.ones(
                (), tf.int64
            )

        def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
            total, count = (np.asarray(part) for part in sample_state)
            if count < mechanism.honest_survivors:
                raise ParameterError(
                    f"{count} records hold too little noise; the mechanism needs {mechanism.honest_survivors}"
                )
            ring: NDArray[np.uint64] = total.view(np.uint64) & np.uint64((1 << modulus_bits) - 1)
            decoded = encoding.decode(ring, modulus_bits=modulus_bits)
            return {name: tf.constant(value) for name, value in decoded.items()}, global_state, event

    return DistributedSumQuery()


def example_level_statement(
    *,
    examples: int,
    batch_size: int,
    epochs: float,
    noise_multiplier: float,
    delta: float,
    participations: int = 1,
) -> str:
    """tensorflow-privacy's own words on DP-SGD over one client's examples; says nothing about clients.

    Args:
        examples: How many examples the client holds.
        batch_size: Of DP-SGD.
        epochs: Passes over the examples in one round.
        noise_multiplier: Of the Keras DP-SGD optimizer.
        delta: In (0, 1).
        participations: Rounds that the client trains in: its passes add up, and so does what they cost.

    Returns:
        The report of `compute_dp_sgd_privacy_statement`.
    """
    from tensorflow_privacy import compute_dp_sgd_privacy_statement

    checks.integer("participations", participations, 1)
    return str(
        compute_dp_sgd_privacy_statement(
            number_of_examples=examples,
            batch_size=batch_size,
            num_epochs=epochs * participations,
            noise_multiplier=noise_multiplier,
            delta=delta,
        )
    )


def both_levels(statements: Statements, example_level: str) -> str:
    """A run's statements and the example-level one side by side: three promises, none of which stands for another.

    Args:
        statements: Of the run: one client and everything it holds, against readers and against the server.
        example_level: As `example_level_statement` gives it.

    Returns:
        Text with a heading for each.
    """
    return "\n\n".join(
        (
            f"One client, against readers of the model\n{statements.readers.text}",
            f"One client, against the server\n{statements.server.text}",
            "One example of one client, against whoever sees that client's own update\n"
            "This is tensorflow-privacy's statement on DP-SGD inside the client. It holds before any mask or share of"
            " noise, and against the server and readers it adds to the two above; it does not replace them. Its"
            " assumptions are its own.\n" + example_level.strip(),
        )
    )


def _multiplier(event: Any) -> float:
    """Noise multiplier of one Gaussian that is the event: Gaussians on one draw fold into one exactly.

    Their multipliers' inverse squares add up, as the squared sensitivities of one joint vector do.
    """
    import dp_accounting

    if isinstance(event, dp_accounting.GaussianDpEvent):
        return float(event.noise_multiplier)
    if isinstance(event, dp_accounting.ComposedDpEvent):
        return float(sum(_multiplier(part) ** -2 for part in event.events) ** -0.5)
    raise UnsupportedEvent(f"no accountant here covers {event}; use a query of Gaussian sums, or for_tree")
