"""A bench for attacks: a scripted network, a bendable server and byzantine clients, on the real machines."""

from secagg.testing.network import (
    SERVER,
    Letter,
    Network,
    Outcome,
    Refusal,
    Rule,
    delay,
    drop,
    duplicate,
    extend,
    flip,
    play,
    replay,
    rewrite,
    truncate,
)

__all__ = [
    "SERVER",
    "Letter",
    "Network",
    "Outcome",
    "Refusal",
    "Rule",
    "delay",
    "drop",
    "duplicate",
    "extend",
    "flip",
    "play",
    "replay",
    "rewrite",
    "truncate",
]
