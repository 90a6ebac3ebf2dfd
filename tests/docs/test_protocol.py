"""The page about the protocol says what the code does: diagrams, tables, sizes, thresholds, labels, numbers."""

import dataclasses
import inspect
import re
from math import comb, inf, log2
from pathlib import Path

import pytest

import secagg
from docs.make import protocol
from docs.make.generated import blocks_in, filled
from secagg import choice, masking, parameters, phases, records, shamir
from secagg.graph_parameters import _GRINDING_BITS
from secagg.phases import Kind, Phase
from tests.secagg.rounds import Round, choose

PAGE = protocol.PAGE.read_text()
BLOCKS = protocol.blocks()


@pytest.mark.parametrize("name", BLOCKS)
def test_every_generated_block_is_what_the_code_gives(name):
    assert blocks_in(PAGE)[name] == BLOCKS[name], "run python -m docs.make.protocol"


@pytest.mark.parametrize(
    ("tables", "phase", "event", "block"),
    [
        ("CLIENT", Phase.MASKED, Kind.INBOX, "client-states"),
        ("SERVER", Phase.SHARE, Kind.MASKED_INPUT, "server-states"),
    ],
)
def test_a_changed_transition_makes_the_page_differ(tables, phase, event, block, monkeypatch):
    machine = getattr(phases, tables)
    changed = {mode: {p: dict(row) for p, row in table.items()} for mode, table in machine.items()}
    changed["malicious"][phase][event] = Phase.DONE
    monkeypatch.setattr(phases, tables, changed)
    assert blocks_in(PAGE)[block] != protocol.blocks()[block]


def test_a_page_that_marks_other_blocks_is_refused():
    with pytest.raises(ValueError, match="marks the blocks"):
        filled(PAGE, {"client-states": ""})


@pytest.mark.parametrize("block", ["client-states", "server-states"])
def test_tables_carry_what_the_diagrams_show(block):
    drawn = set(re.findall(r"    (\w+ --> \w+: .*)", BLOCKS[block]))
    listed = {
        f"{phase} --> {goal}: {event}"
        for phase, event, goal in re.findall(r"\| `(\w+)` \| `([\w()]+)` \| `(\w+)` \|", BLOCKS[block])
    }
    assert drawn == listed
    assert len(drawn) >= 7


ROUNDS = {
    "complete": {"clients": 8},
    "complete malicious": {"clients": 8, "adversary": "malicious"},
    "sparse": {"clients": 12, "graph": "sparse", "neighbours": 4, "threshold": 3},
    "conditional": {"clients": 6, "adversary": "malicious", "corruption": 0, "dropout": 0.2, "conditional_secrets": 2},
    "hybrid": {"clients": 6, "key_agreement": "x25519-mlkem768", "dropout": 0.2},
    "hybrid malicious": {
        "clients": 6, "key_agreement": "x25519-mlkem768", "adversary": "malicious", "dropout": 0.2, "corruption": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", ROUNDS)
def test_sizes_are_those_of_real_messages(case):
    """One client silent at each of two stages; every message of every client, up and down."""
    round_ = Round(choose(**ROUNDS[case]))
    round_.play()
    silent = [] if case == "sparse" else [1]
    round_.play(silent=silent).play()
    while round_.stage != "done":
        round_.play()
    routing, compared = round_.server._routing, 0
    for client in round_.clients:
        neighbours = routing.neighbours(client)
        seals = round_.server._seals_for(client, neighbours)
        shared, survivors = (set_[neighbours] for set_ in (round_.server._shared, round_.server._survivors))
        sets = protocol.Sets(
            round_.parameters.clients, shared.sum(), survivors.sum(), seals.sum(), (shared & ~seals).sum()
        )
        if not round_.parameters.is_hybrid:
            sets = sets._replace(sealed=0, received=0)
        sizes = protocol.sizes_of(round_.parameters, sets)
        for direction in (round_.down, round_.up):
            for stage in direction.values():
                if client in stage:
                    message = stage[client]
                    assert len(message) == sizes[Kind(int.from_bytes(message[6:8], "big"))]
                    compared += 1
    assert compared >= 8 * (round_.parameters.clients - 1)


def test_kinds_that_clients_send_are_those_the_server_takes():
    taken = {
        e for table in phases.SERVER.values() for row in table.values() for e in row if isinstance(e, Kind)
    }
    listed = set(re.findall(r"\| `(\w+)` \| client to server", BLOCKS["kinds"]))
    assert listed == {kind.name.lower() for kind in taken}


def test_labels_are_those_in_the_source():
    source = "".join(path.read_text() for path in Path(secagg.__file__).parent.glob("*.py"))
    source = re.sub(r">>>.*", "", source)
    used = re.findall(r'\benc\(\s*"([^"]+)"', source) + re.findall(r'_expand\(seed, "([^"]+)"', source)
    used += re.findall(r'directional\("(\w+)"', source)
    assert set(used) == set(protocol.LABELS)


def test_every_attribute_of_a_round_is_among_what_a_client_pins():
    assert {f.name for f in dataclasses.fields(secagg.RoundParameters)} == {"vectors", *parameters._FIELDS}


def log2_tail(population, marked, draws, least):
    """log2 of Pr[H(population, marked, draws) >= least]."""
    values = range(max(0, least), min(marked, draws) + 1)
    ways = [comb(marked, h) * comb(population - marked, draws - h) for h in values]
    return log2(sum(ways)) - log2(comb(population, draws)) if any(ways) else -inf


def log2_of_a_short_arc(n, k, t, corrupted, beyond):
    """A bound on log2 of the chance that some arc is cut off that leaves `beyond` places of its ends' own half-windows.

    Its length is k/2 + 1 - beyond. Either end sees all of the arc, its outer half-window and `beyond` places on the
    other side: with x corrupted in the 2 beyond places that both see, each needs t - length - x more in the rest of
    its outer half-window.
    """
    chances = []
    for x in range(min(2 * beyond, corrupted) + 1):
        more = t - (k // 2 + 1 - beyond) - x
        if 2 * max(more, 0) + x <= corrupted:
            both = log2_tail(n, corrupted, 2 * beyond, x)
            chances.append(both + 2 * log2_tail(n - 2 * beyond, corrupted - x, k // 2 - beyond, more))
    return log2(n) + max(chances, default=-inf) + log2(2 * beyond + 1)


@pytest.mark.parametrize(("clients", "share"), [(100, 0.05), (1000, 0.05), (1000, 0.1), (10**4, 0.05)])
def test_arcs_shorter_than_a_half_window_are_rarer_than_e5_allows(clients, share):
    """The argument about the sparse graph says so for the table's parameters; all lengths of arcs together."""
    p = protocol._chosen(clients, share, "malicious")
    arcs = [
        log2_of_a_short_arc(p.minimum_roster, p.neighbours, p.threshold, p.corrupted, beyond)
        for beyond in range(p.neighbours // 2 + 1)
    ]
    assert max(arcs) + log2(len(arcs)) < -(p.security_bits + _GRINDING_BITS + 1)


def default(function, name):
    return inspect.signature(function).parameters[name].default


FACTS = [
    f"sigma = {default(secagg.graph_parameters, 'security_bits')}",
    f"eta = {default(secagg.graph_parameters, 'failure_bits')} by default",
    f"2^-(sigma+{_GRINDING_BITS + 1})",
    f"have {_GRINDING_BITS} bits more",
    f"also try 2^{_GRINDING_BITS} rosters",
    f"modulo {shamir.PRIME}, a {shamir.SECRET_BYTES}-byte secret as {shamir._WORDS} words of {shamir._WORD_BITS} bits",
    f"every word below {shamir.PRIME}",
    f"segment i of {masking.SEGMENT_BYTES // 1024} KiB",
    f"ceil({parameters._CHECK_BITS}/b) constant ones",
    f"probability 2^-{parameters._CHECK_BITS} or less",
    "nine tenths of n",
    f"moves the number by 2^{log2(records._MAX_STEP):.0f} at most",
    f"is refused, or more than 2^{log2(records._MAX_STEP):.0f} above it",
    f"holds at most 2^{log2(parameters.MAX_MESSAGE_BYTES + 1):.0f} - 1 bytes",
]


@pytest.mark.parametrize("fact", FACTS)
def test_numbers_in_the_prose_are_the_codes(fact):
    assert fact in re.sub(r"\s+", " ", PAGE)


def test_nine_tenths_and_the_clients_of_the_example():
    assert choice._ROSTER_SHARE == 0.9
    example = protocol.example("semi_honest", "x25519")
    assert (example.clients, example.vectors[0].length, example.vectors[0].modulus_bits) == (1000, 2**20, 26)
    assert "for 1,000 clients with one vector of 2^20 values of 26 bits" in re.sub(r"\s+", " ", PAGE)


@pytest.mark.parametrize(("clients", "share"), [(100, 0.05), (1000, 0.1), (10**6, 0.05)])
def test_the_formula_for_the_honest_floor_is_the_codes(clients, share):
    p = protocol._chosen(clients, share, "malicious")
    n, k, t = p.minimum_roster, p.neighbours, p.threshold
    assert protocol.floor_of(p) == 2 * n // (3 * k + 2) * (2 + k - t)
    assert "floor(2n/(3k+2)) (2 + k - t) over the smallest roster" in re.sub(r"\s+", " ", PAGE)
