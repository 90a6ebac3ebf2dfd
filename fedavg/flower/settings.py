"""What both sides of a Flower app agree on before it runs, and what follows from it: cohort, blocks, noise, parameters.

Every party has its own copy: a node in its folder, out of the server's reach. It derives the whole round from that, and
takes part only where the server's offer is equal byte for byte; so the server can only choose the round's number, the
model, and whether a node that it drew is padding.

Invariants:

- `application` covers everything the two statements rest on: plan, sampler, cap, budgets, rounds, version;
- the noise multiplier is rounded up to a grid, so that two machines whose floating point differs in the last place
  still agree;
- mechanisms that trust the server are refused: over a network they would promise nothing against it.

Not here: Flower (`fedavg.flower.mod`, `fedavg.flower.strategy`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import dp
import secagg
from fedavg.aggregation import AggregationPlan
from fedavg.errors import ParameterError
from fedavg.layout import Layout
from fedavg.planning import require_kinds
from fedavg.pytree import TreeSpec
from fedavg.secure_aggregation import SecureAggregation

__all__ = ["VERSION", "PrivateRounds", "RoundPlan"]

VERSION = 1
_GRID = 1e4
_NOISE_FILE = "noise-multiplier"


@dataclass(frozen=True)
class RoundPlan:
    """Everything about this app's rounds for a model of one form."""

    settings: PrivateRounds
    layout: Layout
    aggregation: AggregationPlan

    def parameters(
        self, number: int, model_hash: bytes, identities: secagg.IdentityRoster | None
    ) -> secagg.RoundParameters:
        """The parameters of one round, as each side builds them for itself.

        Args:
            number: the round's number, from the server's ledger.
            model_hash: 32 bytes naming the broadcast model and its configuration.
            identities: malicious mode: the trusted roster.

        Raises:
            ParameterError: the roster holds more nodes than are planned: the server would choose who meets whom.
        """
        if identities is not None and len(identities) > self.settings.nodes:
            raise ParameterError(
                f"the roster holds {len(identities)} nodes and {self.settings.nodes} are planned; a server that chooses"
                " among them could surround one with those that collude: plan for the whole roster"
            )
        parameters = self.aggregation.protocol(number, model_hash, identities)
        return replace(parameters, application=self._application())

    def _application(self) -> bytes:
        settings, privacy = self.settings, self.settings.privacy
        facts = (
            f"veilsum flower {VERSION}",
            self.aggregation.canonical().hex(),
            sorted(settings.sampler.describe().items()),
            sorted(settings.metrics.items()),
            settings.rounds,
            (privacy.delta, privacy.max_participations, privacy.readers_epsilon, privacy.server_epsilon),
        )
        return hashlib.sha256(repr(facts).encode()).digest()


@dataclass(frozen=True, kw_only=True)
class PrivateRounds:
    """The promise of one Flower app, given to `private_mod` and `PrivateStrategy` alike.

    Guarantee: as `SecureAggregation` and `dp.Privacy` state it, against a server that follows the protocol, or, with
    `SecureAggregation(adversary="malicious")`, one that does not (every node's identity key then stands in a roster
    that its operator got by a way of its own). In both cases the code that runs on a node must be this one: a server
    that ships other code to nodes that do not verify what they run is outside (see `docs/operations.md`).

    Args:
        task: Name of this training run. Records of used rounds go by it: a new run needs a new name.
        nodes: Planned number of nodes, all of them with data.
        rounds: Rounds planned, to which the noise is calibrated. In malicious mode a node counts them itself, those
            that ended without a sum too, and includes its data in no more.
        privacy: The promise; the unit is everything one node holds.
        metrics: Metrics that the app reports and that may leave a node, name to largest absolute value.
        secure: Dropouts, colluders and the kind of server to withstand.
        nodes_per_round: Nodes drawn on average in a round; None for all of them in every round.
        coin: Probability with which a node includes its data, by a coin of its own that the server does not see.

    Raises:
        ParameterError: settings that exclude each other.
    """

    task: str
    nodes: int
    rounds: int
    privacy: dp.Privacy
    metrics: Mapping[str, float] = field(default_factory=dict)
    secure: SecureAggregation = field(default_factory=SecureAggregation)
    nodes_per_round: float | None = None
    coin: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.coin, Real) or not 0 < float(self.coin) <= 1:
            raise ParameterError(f"coin is {self.coin!r}; give a probability above 0, at most 1")
        if not all(isinstance(count, Integral) for count in (self.nodes, self.rounds)) or (
            self.rounds < 1 or self.nodes < 2
        ):
            raise ParameterError(
                f"{self.nodes!r} nodes and {self.rounds!r} rounds; give whole numbers, at least 2 nodes and 1 round"
            )
        if not isinstance(self.task, str) or not self.task:
            raise ParameterError(f"task is {self.task!r}; name the training run, as text")
        require_kinds(self.privacy, self.secure, self.metrics)
        if not self.secure.masked:
            raise ParameterError(
                "SecureAggregation.ideal() hides nothing from anybody; over a network use real masks"
            )
        if self.privacy.trusted_server:
            raise ParameterError(
                f"mechanism {self.privacy.mechanism!r} trusts the server; use discrete_gaussian or skellam"
            )
        if self.secure.key_agreement != "x25519":
            raise ParameterError(
                f"key_agreement is {self.secure.key_agreement!r}, which cannot be replayed after a node's restart; over"
                " Flower use x25519"
            )
        if self.privacy.clip_quantile is not None:
            raise ParameterError("clip_quantile is not available over Flower; give a fixed l2_clip_norm")
        if self.is_malicious and self.nodes_per_round is not None:
            raise ParameterError(
                f"nodes_per_round is {self.nodes_per_round} in malicious mode, where the server must not choose the"
                " cohort; leave it out, so that the whole roster carries every round, and give a coin"
            )

    @classmethod
    def read(cls, path: str | Path) -> PrivateRounds:
        """Read settings from a file that `write` wrote, or a person did.

        Args:
            path: The file.

        Returns:
            The settings.

        Raises:
            ParameterError: the file is missing or damaged, or holds a name or value that makes no sense.
        """
        try:
            fields = json.loads(Path(path).read_text())
            privacy = dp.Privacy(**fields.pop("privacy"))
            secure = SecureAggregation(**fields.pop("secure", {}))
            return cls(privacy=privacy, secure=secure, **fields)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ParameterError(
                f"the settings {path} cannot be used: {error}; write them with PrivateRounds.write"
            ) from error

    def write(self, path: str | Path) -> None:
        """Write these settings to a file, as JSON that a person can read.

        Args:
            path: The file; overwritten.
        """
        fields = asdict(self)
        hidden = {item.name for item in dataclass_fields(SecureAggregation) if not item.repr}
        fields["secure"] = {name: value for name, value in fields["secure"].items() if name not in hidden}
        Path(path).write_text(json.dumps(fields, indent=1))

    @property
    def is_malicious(self) -> bool:
        """Whether the server is assumed to be active."""
        return self.secure.adversary == "malicious"

    @cached_property
    def sampler(self) -> dp.PaddedPoisson | dp.SelfSampling:
        """Who takes part in a round, as the accountant sees it."""
        expected = self.nodes if self.nodes_per_round is None else self.nodes_per_round
        carriers = dp.PaddedPoisson(population=self.nodes, expected=expected)
        return carriers if self.coin == 1 else dp.SelfSampling(carriers, coin=self.coin)

    def noise_multiplier(
        self,
        folder: Path | None = None,
        *,
        event: Callable[[float], Any] | None = None,
        form: str = "",
    ) -> float:
        """The calibrated noise multiplier, rounded up; kept in `folder`, because a node asks in every stage.

        Args:
            folder: where it is kept.
            event: what a round costs, where that depends on the vector's form.
            form: everything else that `event` depends on.
        """
        privacy = self.privacy
        if privacy.readers_epsilon is None and privacy.server_epsilon is None and privacy.noise_multiplier:
            return privacy.noise_multiplier
        facts = (self.privacy, self.sampler.describe(), self.rounds, form)
        question = hashlib.sha256(repr(facts).encode()).hexdigest()
        kept = None if folder is None else folder / f"{_NOISE_FILE}-{question[:16]}"
        known = None if kept is None else _number_in(kept)
        if known is not None:
            return known
        answer = (
            math.ceil(dp.calibrate(privacy, self.sampler, rounds=self.rounds, event=event) * _GRID) / _GRID
        )
        if kept is not None:
            beside = kept.with_name(f".{kept.name}-{os.getpid()}")
            beside.write_text(repr(answer))
            beside.replace(kept)  # Whole or not at all: another process may be reading.
        return answer

    def plan(self, spec: TreeSpec, folder: Path | None = None) -> RoundPlan:
        """What follows for a model of this form.

        Args:
            spec: form of the model.
            folder: where the noise multiplier is kept.

        Raises:
            ParameterError, dp.ParameterError, secagg.ParameterError: settings that cannot keep the promise.
        """
        layout = Layout(spec, dict(self.metrics), self.privacy, self.sampler.expected)

        def rounds_with(noise_multiplier: float) -> AggregationPlan:
            return AggregationPlan.choose(
                layout.blocks(noise_multiplier),
                cohort=self.sampler.cohort_size,
                privacy=self.privacy,
                noise_multiplier=noise_multiplier,
                secure=self.secure,
                task=self.task,
                rotation_key=hashlib.sha256(f"veilsum flower rotation {self.task}".encode()).digest(),
            )

        if (
            self.privacy.mechanism == "skellam"
        ):  # Gaussians cost the same whatever the vector's form, it does not.
            form = repr((spec.describe(), sorted(self.metrics.items()), self.secure))
            noise = self.noise_multiplier(folder, event=lambda z: rounds_with(z).mechanism.event, form=form)
        else:
            noise = self.noise_multiplier(folder)
        return RoundPlan(self, layout, rounds_with(noise))


def _number_in(path: Path) -> float | None:
    """The number in a file; None where there is none, or a crash left none in it."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
