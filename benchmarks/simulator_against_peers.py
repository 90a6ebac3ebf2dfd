"""Simulated rounds beside pfl-research, Flower and the bare loops: CPU seconds of one round, one thread.

Prints one JSON value: rows of `what`, `figure` (ours over theirs), `limit`; what a private round's X25519 alone comes
to over theirs, below which no code around the library that computes it can go; and the CPU seconds behind them. A round
has 100 clients of 100 examples, batches of 20, one epoch. Peers and Veilsum take turns in one process; Flower's
simulation, which has processes of its own, is charged the difference between a long and a short run, children
included, in the median of five.

It needs an environment of its own, for pfl wants an older dp-accounting:

    python3.11 -m venv .venv-peers
    .venv-peers/bin/pip install "pfl[pytorch]==0.6.0" torch==2.13.0 flwr==1.41.0 ray==2.60.0 cryptography msgspec typer
    .venv-peers/bin/pip install --no-deps -e .
    OMP_NUM_THREADS=1 .venv-peers/bin/python benchmarks/simulator_against_peers.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from numpy.typing import NDArray

import dp
import fedavg

CLIENTS, EXAMPLES, BATCH, RATE = 100, 100, 20, 0.1
PRIVACY = dp.Privacy(noise_multiplier=1.0, delta=1e-5, l2_clip_norm=1.0)
IDEAL, ONE_DRAW = fedavg.SecureAggregation.ideal(), fedavg.SecureAggregation.ideal(one_draw=True)
REAL = fedavg.SecureAggregation(dropout=0.05, corruption=0.05, graph="sparse", neighbours=22, threshold=12)
EYE = np.eye(10, dtype=np.float32)


def data(kind: type) -> list[Any]:
    """The clients' examples, as numpy arrays or torch tensors."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(CLIENTS):
        x, y = rng.normal(size=(EXAMPLES, 784)).astype(np.float32), rng.integers(0, 10, EXAMPLES)
        made.append((x, y) if kind is np.ndarray else (torch.from_numpy(x), torch.from_numpy(y)))
    return made


ARRAYS, TENSORS = data(np.ndarray), data(torch.Tensor)


def module(model: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if model == "softmax":
        return torch.nn.Linear(784, 10)
    return torch.nn.Sequential(torch.nn.Linear(784, 126), torch.nn.ReLU(), torch.nn.Linear(126, 10))


def torch_fit(net: torch.nn.Module, examples: Any) -> None:
    x, y = examples
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    for start in range(0, EXAMPLES, BATCH):
        optimizer.zero_grad()
        batch = slice(start, start + BATCH)
        torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()


def numpy_step(weights: dict[str, NDArray[Any]], examples: Any) -> dict[str, NDArray[Any]]:
    """Softmax regression by hand."""
    x, y = examples
    w, b = weights["w"].copy(), weights["b"].copy()
    for start in range(0, EXAMPLES, BATCH):
        batch = slice(start, start + BATCH)
        z = x[batch] @ w
        z += b
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        z -= EYE[y[batch]]
        z *= RATE / BATCH
        w -= x[batch].T @ z
        b -= z.sum(axis=0)
    return {"w": w, "b": b}


def bare_torch(model: str) -> Callable[[], None]:
    net = module(model)
    start = {name: value.clone() for name, value in net.state_dict().items()}

    def one_round() -> None:
        total = {name: torch.zeros_like(value) for name, value in start.items()}
        for examples in TENSORS:
            net.load_state_dict(start)
            torch_fit(net, examples)
            for name, value in net.state_dict().items():
                total[name] += value - start[name]

    return one_round


def bare_numpy() -> Callable[[], None]:
    start = {"w": np.zeros((784, 10), np.float32), "b": np.zeros(10, np.float32)}

    def one_round() -> None:
        total = {name: np.zeros_like(value) for name, value in start.items()}
        for examples in ARRAYS:
            trained = numpy_step(start, examples)
            for name, value in trained.items():
                total[name] += value - start[name]

    return one_round


def ours(loop: str, secure: fedavg.SecureAggregation, lost: float = 0.0) -> Callable[[], None]:
    """A federation over the same loop; every one of the 100 clients is in every round, as in the peers'."""
    if loop == "numpy":
        step: Any = numpy_step
        weights: Any = {"w": np.zeros((784, 10), np.float32), "b": np.zeros(10, np.float32)}
    elif loop == "trivial":
        step, weights = (lambda w, _: {"w": w["w"] + 1e-3}), {"w": np.zeros(100_000, np.float32)}
    else:
        step = fedavg.from_torch(module(loop), torch_fit)
        weights = step.weights
    federation = fedavg.Federation(
        step, ARRAYS if loop in ("numpy", "trivial") else TENSORS, weights=weights, rounds=10**6, privacy=PRIVACY,
        sampler=dp.FixedSizeSample(CLIENTS, CLIENTS), secure=secure, simulated_dropout=lost,
    )  # fmt: skip
    return lambda: federation.run_round() and None


class Pfl:
    """pfl's FederatedAveraging without privacy; its clock is read after each of its rounds."""

    def __init__(self, model: str) -> None:
        self.model, self.net = model, module(model)

    def rounds(self, count: int) -> list[float]:
        """CPU seconds of each of its next rounds."""
        from pfl.aggregate.simulate import SimulatedBackend
        from pfl.algorithm.base import NNAlgorithmParams
        from pfl.algorithm.federated_averaging import FederatedAveraging
        from pfl.callback.base import TrainingProcessCallback
        from pfl.data.dataset import Dataset
        from pfl.data.federated_dataset import FederatedDataset
        from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
        from pfl.metrics import Metrics, Weighted
        from pfl.model.pytorch import PyTorchModel

        net = self.net

        class Net(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = net

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.net(x)

            def loss(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> torch.Tensor:
                return torch.nn.functional.cross_entropy(self(x), y)

            def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
                return {"loss": Weighted(float(self.loss(x, y)) * len(y), len(y))}

        class Clock(TrainingProcessCallback):
            def __init__(self) -> None:
                self.read: list[float] = []

            def on_train_begin(self, *, model: Any) -> Any:
                self.read.append(time.process_time())
                return Metrics()

            def after_central_iteration(self, aggregate: Any, model: Any, *, central_iteration: int) -> Any:
                self.read.append(time.process_time())
                return False, Metrics()

        whole, clock = Net(), Clock()
        turn = iter(range(10**9))
        clients = FederatedDataset(
            lambda user: Dataset(raw_data=list(TENSORS[user]), user_id=str(user)),
            lambda: next(turn) % CLIENTS,
        )
        FederatedAveraging().run(
            algorithm_params=NNAlgorithmParams(
                central_num_iterations=count,
                evaluation_frequency=10**6,
                train_cohort_size=CLIENTS,
                val_cohort_size=0,
            ),
            backend=SimulatedBackend(training_data=clients, val_data=None),
            model=PyTorchModel(
                whole,
                local_optimizer_create=torch.optim.SGD,
                central_optimizer=torch.optim.SGD(whole.parameters(), lr=1.0),
            ),
            model_train_params=NNTrainHyperParams(
                local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH
            ),
            model_eval_params=NNEvalHyperParams(local_batch_size=EXAMPLES),
            callbacks=[clock],
        )
        return np.diff(clock.read).tolist()


def flower(rounds: int) -> None:
    """Flower's own simulation of plain FedAvg: 100 clients of 100,000 parameters with a trivial step."""
    from flwr.client import ClientApp, NumPyClient
    from flwr.common import Context
    from flwr.common import ndarrays_to_parameters as packed
    from flwr.server import ServerApp, ServerAppComponents, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.simulation import run_simulation

    class Client(NumPyClient):
        def fit(self, parameters: Any, config: Any) -> Any:
            return [parameters[0] + 1e-3], EXAMPLES, {}

    def server(context: Context) -> ServerAppComponents:
        start = packed([np.zeros(100_000, np.float32)])
        strategy = FedAvg(
            fraction_fit=1.0, fraction_evaluate=0.0, min_available_clients=CLIENTS, initial_parameters=start
        )
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))

    run_simulation(
        ServerApp(server_fn=server),
        ClientApp(client_fn=lambda context: Client().to_client()),
        num_supernodes=CLIENTS,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 1}},
    )


def flower_round(short: int = 3, long: int = 13, repeats: int = 5) -> float:
    """CPU seconds of one of Flower's rounds, over all its processes: the median, for they vary by a third."""

    def spent(rounds: int) -> float:
        before = os.times()
        command = [sys.executable, str(Path(__file__)), "--flower", str(rounds)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return statistics.median((spent(long) - spent(short)) / (long - short) for _ in range(repeats))


def exchanges() -> Callable[[], None]:
    """The X25519 exchanges of a private round and nothing else: two with each of 22 neighbours, for 100 clients."""
    own = X25519PrivateKey.generate()
    peer = X25519PrivateKey.generate().public_key().public_bytes_raw()

    def one_round() -> None:
        for _ in range(2 * (REAL.neighbours or 0) * CLIENTS):
            own.exchange(X25519PublicKey.from_public_bytes(peer))

    return one_round


def cpu(one_round: Callable[[], None]) -> float:
    start = time.process_time()
    one_round()
    return time.process_time() - start


def measure(repeats: int) -> dict[str, float]:
    """Least CPU seconds of a round of each, taken in turns."""
    entrants: dict[str, Callable[[], None]] = {"numpy loop": bare_numpy()}
    for model in ("softmax", "mlp"):
        entrants[f"torch loop, {model}"] = bare_torch(model)
        entrants[f"ideal, share by share, {model}"] = ours(model, IDEAL)
        entrants[f"ideal, one draw, {model}"] = ours(model, ONE_DRAW)
    entrants["ideal, share by share, numpy softmax"] = ours("numpy", IDEAL)
    entrants["ideal, one draw, numpy softmax"] = ours("numpy", ONE_DRAW)
    entrants["private, torch softmax"] = ours("softmax", REAL, lost=0.05)
    entrants["private, numpy softmax"] = ours("numpy", REAL, lost=0.05)
    entrants["private, 100k parameters"] = ours("trivial", REAL, lost=0.05)
    entrants["X25519 of a private round alone"] = exchanges()
    found: dict[str, list[float]] = {name: [] for name in entrants}
    found |= {f"pfl, {model}": [] for model in ("softmax", "mlp")}
    for _ in range(repeats):
        for name, one_round in entrants.items():
            found[name] += [cpu(one_round) for _ in range(2)]
        for model in ("softmax", "mlp"):
            with contextlib.redirect_stdout(sys.stderr):  # pfl prints a page a round.
                found[f"pfl, {model}"] += Pfl(model).rounds(4)
    return {name: min(values) for name, values in found.items()}


PFL = "over pfl without privacy"
RATIOS = (
    (f"ideal with DP, torch softmax, {PFL}", "ideal, share by share, softmax", "pfl, softmax", 0.85),
    (f"ideal with DP, torch 100k MLP, {PFL}", "ideal, share by share, mlp", "pfl, mlp", 1.35),
    (f"ideal with DP in one draw, torch 100k MLP, {PFL}", "ideal, one draw, mlp", "pfl, mlp", 1.0),
    (
        f"ideal with DP in one draw, numpy softmax, {PFL}",
        "ideal, one draw, numpy softmax",
        "pfl, softmax",
        0.22,
    ),
    (f"private round, torch softmax, {PFL}", "private, torch softmax", "pfl, softmax", 2.4),
    (f"private round, numpy softmax, {PFL}", "private, numpy softmax", "pfl, softmax", 1.9),
    ("private round of 100k parameters over Flower's plain one", "private, 100k parameters", "Flower", 0.55),
)


FLOORS = (
    (f"X25519 of a private round alone, {PFL}", "X25519 of a private round alone", "pfl, softmax"),
    (
        "X25519 of a private round alone over Flower's plain round",
        "X25519 of a private round alone",
        "Flower",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--flower", type=int, metavar="ROUNDS", help="only run Flower's simulation")
    options = parser.parse_args()
    if options.flower:
        flower(options.flower)
        return
    torch.set_num_threads(1)
    seconds = {**measure(options.repeats), "Flower": flower_round()}
    rows = [
        {"what": what, "figure": round(seconds[us] / seconds[them], 3), "limit": limit}
        for what, us, them, limit in RATIOS
    ]
    rows += [{"what": what, "figure": round(seconds[us] / seconds[them], 3)} for what, us, them in FLOORS]
    rows += [{"what": name, "figure": round(value, 4), "unit": "CPU s"} for name, value in seconds.items()]
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
