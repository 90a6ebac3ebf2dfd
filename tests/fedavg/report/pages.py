"""Runs whose pages the tests look at, and the browser that they look with."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np

import dp
import fedavg
from fedavg.report import View

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
)
CLIENTS = [np.full(3, float(i % 2)) for i in range(60)]
AUDIT = {
    "epsilon": {"lower_bound": 0.51, "estimate": 2.4, "promised": 2.75},
    "delta": 1e-3,
    "participations": 1,
    "canaries": 1000,
    "guesses": 100,
    "right": 70,
    "significance": 0.05,
    "findings": [
        {
            "detector": "noise in full",
            "p_value": 0.4,
            "level": 0.001,
            "flagged": False,
            "says": "All of it is there.",
        }
    ],
    "flagged": [],
    "scores": {
        "edges": [-2.0, -1.0, 0.0, 1.0, 2.0],
        "included": [5, 100, 300, 95],
        "excluded": [90, 310, 95, 5],
    },
}


def step(weights, data):
    return {"w": weights["w"] + 0.2 * (data - weights["w"])}, {"loss": 0.5}


def run(rounds=3, **changes):
    """A small run; sums without cryptography."""
    settings = {
        "weights": {"w": np.zeros(3)},
        "rounds": rounds,
        "cohort_size": 20,
        "privacy": dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0),
        "secure": fedavg.SecureAggregation.ideal(),
        "metrics": {"loss": 1.0},
        "evaluate": lambda weights: {"accuracy": 0.5 + 0.1 * float(np.tanh(weights["w"][0]))},
        "simulated_dropout": 0.05,
        **changes,
    }
    if "sampler" in settings:
        del settings["cohort_size"]
    return fedavg.train(step, CLIENTS, **settings)


def finished(rounds=3):
    """A view of a run as if under masks, which costs nothing to look at."""
    done = run(rounds)
    masked = replace(done, plan=replace(done.plan, secure=fedavg.SecureAggregation()))
    return View.of(masked, title="A run", command="veilsum simulate digits --rounds 3")


def audited(view):
    """The same view with an audit beside it."""
    return replace(view, audit=AUDIT)
