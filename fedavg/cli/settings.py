"""What `veilsum simulate` was asked for, and the federation that follows from it: to run it, and to audit it later.

Settings are kept in the run's operator folder, so that `veilsum audit RUN` attacks the same plan that the run was made
with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import dp
import fedavg
from fedavg import datasets
from fedavg.cli.softmax import METRICS, Examples, SoftmaxRegression
from fedavg.errors import CheckpointError

__all__ = ["PRESETS", "Preset", "Settings", "Setup", "keep", "kept"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What fits a data set's size."""

    population: int
    cohort: int
    rounds: int
    examples_per_client: int


_AS_MNIST = Preset(population=3000, cohort=300, rounds=50, examples_per_client=20)
PRESETS: Mapping[str, Preset] = {
    "mnist": _AS_MNIST,
    "mnist-raw": _AS_MNIST,
    "fashion-mnist": _AS_MNIST,
    "cifar10": Preset(population=2500, cohort=250, rounds=50, examples_per_client=20),
    "adult": Preset(population=1600, cohort=160, rounds=50, examples_per_client=20),
    "har": Preset(population=400, cohort=80, rounds=30, examples_per_client=20),
    "digits": Preset(population=280, cohort=70, rounds=30, examples_per_client=5),
}
_PATHS = {"output", "record", "ledger"}
_NOISE_MULTIPLIER = 1.5  # Where neither an epsilon nor a multiplier is asked for.


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything `veilsum simulate` takes; None stands for what the data set's preset says."""

    dataset: str
    population: int | None
    cohort: int | None
    rounds: int | None
    examples_per_client: int | None
    concentration: float
    local_epochs: int
    learning_rate: float
    server_momentum: float
    clip: float
    noise_multiplier: float | None
    epsilon_readers: float | None
    epsilon_server: float | None
    delta: float
    max_participations: int | None
    dropout: float
    tolerance: float
    corruption: float
    modulus_bits: int | None
    simulation_seed: int | None
    record: Path | None
    output: Path | None
    resume: bool
    fresh: bool
    fallback: bool
    as_json: bool
    adversary: Literal["semi_honest", "malicious"] = "semi_honest"
    backend: str = "local"
    ledger: Path | None = None
    task: str = "fedavg"

    def preset(self, name: str, dataset: str) -> int:
        """A size as asked for, or as the data set's preset has it."""
        asked: int | None = getattr(self, name)
        return int(getattr(PRESETS[dataset], name)) if asked is None else asked

    def privacy(self, dataset: str) -> dp.Privacy:
        """The promise asked for; the cap is, unless asked for, one that a client in a hundred would meet."""
        unset = self.epsilon_readers is None and self.epsilon_server is None and self.noise_multiplier is None
        return dp.Privacy(
            delta=self.delta,
            l2_clip_norm=self.clip,
            readers_epsilon=self.epsilon_readers,
            server_epsilon=self.epsilon_server,
            noise_multiplier=_NOISE_MULTIPLIER if unset else self.noise_multiplier,
            max_participations=(
                self._usual_participations(dataset)
                if self.max_participations is None
                else self.max_participations
            ),
        )

    def _usual_participations(self, dataset: str) -> int | None:
        from scipy.stats import binom

        population, cohort = self.preset("population", dataset), self.preset("cohort", dataset)
        rounds = self.preset("rounds", dataset)
        if not 0 < cohort < population or rounds < 1:
            return None  # Everybody is drawn every time, or the sizes are refused later.
        return max(1, int(binom.ppf(0.99, rounds, cohort / population)))


@dataclass(frozen=True)
class _Dealt:
    """From a client to its examples; can be taken to other processes."""

    features: NDArray[Any]
    labels: NDArray[Any]
    rows: NDArray[np.int64]

    def __call__(self, client: int) -> Examples:
        return self.features[self.rows[client]], self.labels[self.rows[client]]


@dataclass(frozen=True)
class Setup:
    """A run's model, clients and arguments, as settings and data give them.

    Args:
        settings: What was asked for.
        data: The data set, which may be another than asked for.
    """

    settings: Settings
    data: datasets.Dataset

    @property
    def model(self) -> SoftmaxRegression:
        """The model, which is also the clients' loop."""
        return SoftmaxRegression(
            features=self.data.features,
            classes=self.data.classes,
            local_epochs=self.settings.local_epochs,
            learning_rate=self.settings.learning_rate,
        )

    @property
    def rounds(self) -> int:
        """Rounds planned."""
        return self.settings.preset("rounds", self.data.name)

    def clients(self) -> fedavg.ClientData:
        """The population, examples dealt out to it."""
        dealt = self._deal(self.data.train_y, self.settings.preset("population", self.data.name))

        return fedavg.ClientData(range(len(dealt)), _Dealt(self.data.train_x, self.data.train_y, dealt))

    def strangers(self) -> list[Examples]:
        """Clients made of test examples, dealt out in the same way: nobody of them is in the population."""
        count = len(self.data.test_y) // self.settings.preset("examples_per_client", self.data.name)
        return [(self.data.test_x[row], self.data.test_y[row]) for row in self._deal(self.data.test_y, count)]

    def arguments(self) -> dict[str, Any]:
        """What `fedavg.train` and `fedavg.Federation` need to know of the run."""
        settings, model = self.settings, self.model
        return {
            "step": model.step,
            "clients": self.clients(),
            "weights": model.initial(),
            "rounds": self.rounds,
            "cohort_size": settings.preset("cohort", self.data.name),
            "privacy": settings.privacy(self.data.name),
            "secure": fedavg.SecureAggregation(
                dropout=settings.tolerance,
                corruption=settings.corruption,
                adversary=settings.adversary,
                modulus_bits=settings.modulus_bits,
            ),
            "server_optimizer": fedavg.sgd(momentum=settings.server_momentum),
            "metrics": METRICS,
            "simulated_dropout": settings.dropout,
            "task": settings.task,
        }

    def command(self) -> str:
        """The command that makes such a run again."""
        settings, name = self.settings, self.data.name
        options = {
            "population": settings.preset("population", name),
            "cohort": settings.preset("cohort", name),
            "rounds": self.rounds,
            "examples_per_client": settings.preset("examples_per_client", name),
            "max_participations": settings.privacy(name).max_participations,
            "noise_multiplier": settings.privacy(name).noise_multiplier,
        }
        skipped = {"dataset", "record", "output", "resume", "fresh", "fallback", "as_json"}
        skipped |= {"backend", "ledger", "task"}  # These change where a run is, not what it is.
        if settings.adversary == "semi_honest":
            skipped.add("adversary")
        options = {**{k: v for k, v in asdict(settings).items() if k not in skipped}, **options}
        given = [f"--{k.replace('_', '-')} {v}" for k, v in options.items() if v is not None]
        return " ".join(["veilsum simulate", name, *given])

    def _deal(self, labels: NDArray[np.int64], clients: int) -> NDArray[np.int64]:
        return datasets.dirichlet(
            labels,
            clients=clients,
            examples_per_client=self.settings.preset("examples_per_client", self.data.name),
            concentration=self.settings.concentration,
            seed=self.settings.simulation_seed or 0,
        )


def keep(settings: Settings, dataset: str, folder: Path) -> None:
    """Write the settings into a run's operator folder, unless they are there."""
    path = _place(folder)
    if path.exists():
        return
    content = {**asdict(settings), "dataset": dataset}
    for name in _PATHS:
        content[name] = None if content[name] is None else str(content[name])
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def kept(folder: Path) -> Settings:
    """The settings of the run in a folder.

    Raises:
        CheckpointError: there are none, or they cannot be read.
    """
    path = _place(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for name in _PATHS & content.keys():
            content[name] = None if content[name] is None else Path(content[name])
        return Settings(**content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{folder} holds no run of veilsum simulate whose settings can be read ({error}); give the folder of one"
        ) from error


def _place(folder: Path) -> Path:
    return folder / "operator" / "settings.json"
