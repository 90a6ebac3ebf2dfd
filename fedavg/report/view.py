"""What a report shows of a run, and nothing else: all of it may be published.

A view is made from a finished run and kept beside the page as `public/report.json`, so that `veilsum report RUN` can
make the page again, for example after an audit, from the run's public folder alone.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dp
from fedavg.errors import CheckpointError
from fedavg.report.wording import bytes_text, is_padded, is_simulation, trusts_server

if TYPE_CHECKING:
    from fedavg.federation import Result, RoundReport

__all__ = ["View"]


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything on a page.

    Args:
        title: The page's heading.
        rounds: Every finished round, at least one.
        statement: Both statements.
        population: Number of clients.
        masked: Whether sums were taken under masks.
        stopped: Why the run ended early, or None.
        minimum_survivors: Fewest clients in a sum.
        budgets: For each observer the budget, or None.
        cap: Most rounds a client contributes to, or None.
        settings: Names and values for the table of settings.
        reproduce: Names and values for whoever wants to run it again.
        example_level: A statement on DP-SGD inside a client, in words of its own, or None.
        audit: What `veilsum audit` left in the public folder, or None.
    """

    title: str
    rounds: Sequence[RoundReport]
    statement: dp.Statements
    population: int
    masked: bool
    stopped: str | None
    minimum_survivors: int
    budgets: Mapping[str, float | None]
    cap: int | None
    settings: Mapping[str, str]
    reproduce: Mapping[str, str]
    example_level: str | None = None
    audit: Mapping[str, Any] | None = None

    @property
    def seeded(self) -> bool:
        """Whether every random choice followed from a seed."""
        return is_simulation(self.statement)

    @property
    def padded(self) -> bool:
        """Whether cohorts are padded, so that nobody is told how many were drawn."""
        return is_padded(self.statement)

    @property
    def trusted(self) -> bool:
        """Whether the server sees sums before their noise."""
        return trusts_server(self.statement)

    @classmethod
    def of(
        cls,
        result: Result,
        *,
        title: str = "Federated run",
        facts: Mapping[str, str] | None = None,
        command: str | None = None,
        example_level: str | None = None,
    ) -> View:
        """The view of a run.

        Args:
            result: What `fedavg.train` returned, with at least one round.
            title: The page's heading.
            facts: More rows for the table of settings: where the data came from, what was trained.
            command: The command that makes such a run again.
            example_level: A statement on DP-SGD inside a client.
        """
        privacy = result.privacy
        return cls(
            title=title,
            rounds=result.rounds,
            statement=result.statement,
            population=result.sampler.population,
            masked=result.plan.secure.masked,
            stopped=result.stopped,
            minimum_survivors=result.plan.minimum_survivors,
            budgets={"readers": privacy.readers_epsilon, "server": privacy.server_epsilon},
            cap=privacy.max_participations,
            settings={**(facts or {}), **_settings(result)},
            reproduce=_reproduce(result, command),
            example_level=example_level,
        )

    def save(self, folder: Path) -> None:
        """Keep the view as `report.json` in a public folder; raises OSError."""
        content = {name: value for name, value in vars(self).items() if name not in ("rounds", "audit")}
        content["statement"] = self.statement.as_dict()
        content["rounds"] = [report.as_dict() for report in self.rounds]
        text = json.dumps(content, indent=1, allow_nan=False)
        (folder / "report.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, run: Path) -> View:
        """Read the view of a run folder, with its audit if it has one.

        Args:
            run: The run's folder.

        Returns:
            The view.

        Raises:
            CheckpointError: the folder holds none, or it cannot be read.
        """
        from fedavg.federation import RoundReport

        public = run / "public"
        try:
            content = json.loads((public / "report.json").read_text(encoding="utf-8"))
            content["rounds"] = [RoundReport.from_dict(line) for line in content["rounds"]]
            content["statement"] = _statements(content["statement"])
            found = public / "audit.json"
            audit = json.loads(found.read_text(encoding="utf-8")) if found.exists() else None
            return cls(**{**content, "audit": audit})
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{run} holds no report.json, from which a page is made; run veilsum simulate, or call"
                " fedavg.report.write(folder, result) after fedavg.train"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"the report of {run} cannot be read ({error}); write it again, or restore it from a backup"
            ) from error


def _statements(content: Mapping[str, Any]) -> dp.Statements:
    def one(fields: Mapping[str, Any]) -> dp.Statement:
        epsilon = math.inf if fields["epsilon"] is None else fields["epsilon"]
        return dp.Statement(**{**fields, "epsilon": epsilon, "assumptions": tuple(fields["assumptions"])})

    return dp.Statements(readers=one(content["readers"]), server=one(content["server"]))


def _settings(result: Result) -> dict[str, str]:
    plan, sampler, privacy, mechanism = result.plan, result.sampler, result.privacy, result.plan.mechanism
    most = max(report.bytes_up_per_client for report in result.rounds)
    dropped = [report.cohort - report.survivors for report in result.rounds]
    return {
        "Population": f"{sampler.population:,} clients",
        "Drawn": f"{sampler.expected:g} a round on average ({sampler.describe()['kind']}); against readers each client"
        f" is in a round with probability {sampler.sampling_rate:.4g}",
        "Invited": f"{sampler.cohort_size:,} in every round",
        "Dropped out": f"{min(dropped):,} to {max(dropped):,} of them in a round",
        "In the sum": f"at least {plan.minimum_survivors:,}, of whom {plan.honest_survivors:,} are counted as honest",
        "Clip": _clip(privacy),
        "Noise": f"{mechanism.describe()['kind']}, multiplier {mechanism.noise_multiplier:.6g} times the joint"
        f" sensitivity{_measured(mechanism)}",
        "Noise in the average": _noise(result),
        "Delta": f"{privacy.delta:g}",
        "Participations": "every round"
        if privacy.max_participations is None
        else f"at most {privacy.max_participations} a client",
        "Ring": f"integers modulo 2^{plan.modulus_bits}",
        "Values in a vector": f"{plan.encoding.dimension:,}",
        "Sent by a client": f"{bytes_text(most)} a round: keys, shares and masked vector",
    }


def _measured(mechanism: Any) -> str:
    """Where the noise is that a multiplier counts."""
    if isinstance(mechanism, dp.CentralMatrix):
        return f" over the {mechanism.bands} rounds that one participation touches"
    return "" if mechanism.trusted_server else ", from the honest survivors alone"


def _clip(privacy: dp.Privacy) -> str:
    clip = privacy.l2_clip_norm
    if isinstance(clip, Mapping):
        return (
            ", ".join(f"{bound:g} ({layer})" for layer, bound in clip.items()) + ": l2 norm, layer by layer"
        )
    if privacy.clip_quantile is not None:
        return f"follows the quantile {privacy.clip_quantile:g} of the clients' norms, from {clip:g}"
    return f"{clip:g} (l2 norm of a client's update)"


def _noise(result: Result) -> str:
    name = result.plan.encoding.blocks[0].parts[0][0]
    deviation, mechanism = result.plan.stddev_of_sum(name) / result.sampler.expected, result.plan.mechanism
    if isinstance(mechanism, dp.CentralMatrix) and mechanism.bands > 1:
        rounds = result.rounds[-1].rounds
        last = deviation * mechanism.stddev_of_release(rounds) / mechanism.stddev_of_release()
        return (
            f"deviation {deviation:.3g} in every value after the first round, {last:.3g} after round {rounds};"
            " correlated over rounds, so that their sum has less"
        )
    if mechanism.trusted_server:
        return f"deviation {deviation:.3g} in every value"
    return f"deviation {deviation:.3g} in every value, if nobody drops out"


def _reproduce(result: Result, command: str | None) -> dict[str, str]:
    try:
        release = version("veilsum")
    except PackageNotFoundError:
        release = "a source tree"
    given = {} if command is None else {"Command": command}
    return {
        **given,
        "Versions": f"Veilsum {release}, Python {platform.python_version()}, numpy {version('numpy')}",
        "Plan": f"{result.plan.canonical().hex()} (what every mask of the run was bound to)",
    }
