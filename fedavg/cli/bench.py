"""`veilsum bench secagg`: what one round of secure aggregation costs on this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from fedavg.cli.screen import Screen
from fedavg.report import bytes_text

__all__ = ["bench"]

bench = typer.Typer(
    help="Measure on this machine.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Graph(StrEnum):
    """Who masks with whom."""

    auto = "auto"
    sparse = "sparse"
    complete = "complete"


class Adversary(StrEnum):
    """What the server is assumed to be at worst."""

    semi_honest = "semi_honest"
    malicious = "malicious"


@bench.callback()
def _group() -> None:
    """Measure on this machine."""


@bench.command()
def secagg(
    clients: Annotated[int, typer.Option(help="How many take part.")] = 100,
    length: Annotated[int, typer.Option(help="16-bit values a client sends.")] = 100_000,
    graph: Annotated[
        Graph, typer.Option(help="auto is sparse where that is feasible and cheaper.")
    ] = Graph.auto,
    neighbours: Annotated[
        int | None, typer.Option(help="How many each client masks with, in the sparse graph.")
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(help="Shares it takes to unmask a client that left.")
    ] = None,
    modulus_bits: Annotated[
        int | None, typer.Option(help="Bits of a masked value; the fewest that hold the sum by default.")
    ] = None,
    dropout: Annotated[float, typer.Option(help="Share that leaves after sharing its keys.")] = 0.0,
    adversary: Annotated[
        Adversary,
        typer.Option(help="malicious adds a stage, signatures and tags; runs then take the complete graph."),
    ] = Adversary.semi_honest,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Run one round, every message real, and compare its CPU time with the keystream it needs."""
    from fedavg.bench_secagg import measure

    screen = Screen(as_json=as_json)
    figures = measure(
        clients=clients,
        length=length,
        graph=graph.value,
        neighbours=neighbours,
        threshold=threshold,
        modulus_bits=modulus_bits,
        dropout=dropout,
        adversary=adversary.value,
    )
    screen.facts(_in_words(figures))
    screen.result(figures)


def _in_words(figures: dict[str, Any]) -> dict[str, str]:
    return {
        "round": f"{figures['clients']:,} clients, {figures['length']:,} values of 16 bits, {figures['graph']} graph,"
        f" {figures['neighbours']} neighbours, threshold {figures['threshold']}, {figures['survivors']:,} in the sum,"
        f" against a {figures['adversary'].replace('_', '-')} server",
        "a client's CPU": f"{figures['client_cpu_s']:.3g} s, {figures['client_ratio']:.2f} times its keystream",
        "the server's CPU": f"{figures['server_cpu_s']:.3g} s, {figures['server_ratio']:.2f} times its keystream",
        "a client sends": f"{bytes_text(figures['client_bytes_up'])}, {figures['expansion']:.2f} times its values",
        "a client receives": bytes_text(figures["client_bytes_down"]),
        "the server's memory": f"grew by {figures['peak_rss_mb']:.0f} MB",
        "largest error": f"{figures['max_abs_error']}",
    }
