"""The page about a million clients follows from the unit costs it states."""

import math
import re

import pytest

from docs.make import scale
from docs.make.generated import blocks_in
from docs.make.protocol import example
from docs.make.scale import CLIENTS, DESIGNS, LENGTH, SHARE
from secagg.messages import Codec
from secagg.phases import Kind

PAGE = scale.PAGE.read_text()
WORDS = re.sub(r"\s+", " ", PAGE)
BLOCKS = scale.blocks()


@pytest.mark.parametrize("name", BLOCKS)
def test_every_generated_block_is_what_the_unit_costs_give(name):
    assert blocks_in(PAGE)[name] == BLOCKS[name], "run python -m docs.make.scale"


def cells(block):
    """The rows of a table by their first cell, the other cells as text."""
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", blocks_in(PAGE)[block], re.MULTILINE)[2:]
    return {
        (first, rest.split(" | ")[-1]) if block == "units" else first: rest.split(" | ")
        for first, rest in rows
    }


STATED = {key: float(row[0].replace(",", "")) for key, row in cells("units").items()}


def close(text, value):
    """A printed number is the value, to the digits it shows."""
    shown = text.replace(",", "")
    places = len(shown.partition(".")[2])
    return abs(float(shown) - value) <= 0.51 * 10**-places + 0.01 * abs(value)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: d.name)
def test_cpu_follows_from_the_costs_that_the_page_states(design):
    """Worked out again from the printed unit costs, without the script's functions."""
    row, p = cells("costs")[design.name], design.parameters
    k, mode = p.neighbours, design.adversary.replace("_", " ")
    wide = f"{36 if design.bits > 32 else 26} bits"
    mask, pack, add = (STATED[f"{what} {wide}", "ns per value"] for what in ("mask", "pack", "add"))
    keys = 0 if design.by_path else design.size * STATED["check the roster", "us per client"]
    if design.graph == "sparse" and not design.by_path:
        keys += design.size * STATED["order of the ring", "us per client"]
    client = (keys + k * STATED[f"client {mode}", "us per neighbour"]) / 1e6
    client += LENGTH * ((k + 1) * mask + pack) / 1e9
    assert close(row[3], client)

    silent = SHARE * CLIENTS
    stay = CLIENTS - silent
    server = LENGTH * (stay * add + (stay + silent * k * (1 - SHARE)) * mask) / 1e9
    small = k * STATED[f"server {mode}", "us per neighbour"] + STATED["graph", "us per client"]
    if design.graph == "sparse":
        t = p.threshold / 24
        small += t * t * STATED["lagrange weights of 24", "us"] + t * STATED["recover two secrets 24", "us"]
    assert close(row[4], (server + CLIENTS * small / 1e6) / 3600)

    memory = k * STATED[f"server {mode}", "bytes per neighbour"] + (104 if mode == "semi honest" else 168)
    assert close(row[5], CLIENTS * memory / 1e9)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: d.name)
def test_bytes_are_those_of_the_vector_and_the_keys(design):
    row = cells("costs")[design.name]
    vector = 4 * design.bits * math.ceil((LENGTH + math.ceil(64 / design.bits)) / 32)
    assert vector / 1e6 <= float(row[0]) <= vector / 1e6 + 0.3
    one = 72 if design.adversary == "semi_honest" else 136
    keys = (design.parameters.neighbours + 1) * (one + 20 * 32) if design.by_path else design.size * one
    assert close(row[2], keys / 1e6)
    assert float(row[1]) >= float(row[2])


@pytest.mark.parametrize("design", [d for d in DESIGNS if d.groups > 1], ids=lambda d: d.name)
def test_a_group_has_more_corrupted_clients_than_its_share(design):
    assert SHARE * design.size < design.dropped < design.corrupted < 3 * SHARE * design.size
    assert design.honest() == design.size - design.corrupted - design.dropped
    assert float(cells("noise")[design.name][1]) == pytest.approx(
        math.sqrt(CLIENTS / design.honest()), abs=0.006
    )


def entry_bytes(adversary, agreement):
    parameters = example(adversary, agreement)
    return 8 + Codec(parameters, bytes(32)).public_bytes + (64 if adversary == "malicious" else 0)


def test_numbers_in_the_prose():
    flat = DESIGNS[0]
    one, signed, hybrid, both = (
        entry_bytes(adversary, agreement)
        for agreement in ("x25519", "x25519-mlkem768")
        for adversary in ("semi_honest", "malicious")
    )
    rows = CLIENTS * flat.parameters.neighbours * Codec(flat.parameters, bytes(32)).row_bytes
    facts = [
        f"a client among a million has {flat.parameters.neighbours}.",
        f"{one} bytes a client semi-honest, {signed} malicious, {hybrid:,} and {both:,} with hybrid keys",
        f"paths of {scale.PATH_BYTES // 32} hashes",
        f"whole bitmaps, {flat.sizes()[Kind.SURVIVORS] - 40:,} bytes each",
        f"about {rows / 1e9:.0f} GB in all, semi-honest",
        f"alone are {2 * LENGTH * CLIENTS / 1e12:.0f} TB in the clear",
        f"chance of 2^-{scale.SECURITY_BITS + 1} and 2^-{scale.FAILURE_BITS + 1}",
        f"corruption {SHARE}, dropout {SHARE}, sigma {scale.SECURITY_BITS}, eta {scale.FAILURE_BITS}",
    ]
    assert [fact for fact in facts if fact not in WORDS] == []
