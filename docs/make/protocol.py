"""The parts of `docs/protocol.md` that come from code: `python -m docs.make.protocol` writes them anew.

State diagrams and tables are read out of `secagg.phases`, sizes out of `secagg.messages`, thresholds out of
`secagg.graph_parameters`. `tests/docs/test_protocol.py` fails where the page says anything else.
"""

from __future__ import annotations

from typing import NamedTuple

from docs.make.generated import DOCS, table, write
from secagg import (
    RoundParameters,
    Vector,
    graph_parameters,
    hybrid,
    identities,
    keys,
    messages,
    phases,
    shamir,
)
from secagg.graph import GraphParameters
from secagg.phases import ADVANCE, MASK, Kind, Phase

PAGE = DOCS / "protocol.md"

ADVERSARIES = {"semi_honest": "semi-honest", "malicious": "malicious"}
ANSWERS = {
    Kind.OFFER: "advertise",
    Kind.ROSTER: "share",
    Kind.INBOX: "nothing",
    MASK: "masked_input",
    Kind.SURVIVORS: "unmask (semi-honest) or consistency (malicious)",
    Kind.TAGS: "unmask",
}
KNOWN = (
    ("semi_honest", 0.05, (100, 1000, 10**4, 10**6)),
    ("semi_honest", 0.1, (100, 1000, 10**4, 10**6)),
    ("malicious", 0.05, (100, 1000, 10**4, 10**6)),
    ("malicious", 0.1, (1000, 10**4, 10**6)),
)


LABELS = {
    "identities": "hash of the trusted roster of identity keys",
    "roster": "hash of the roster of one round",
    "ring": "key of the stream that orders the ring",
    "advertise": "what an identity key signs in round 0",
    "seal": "HKDF: key that seals a row of shares in one direction",
    "tag": "HKDF: key that tags sets in one direction",
    "sealed shares": "associated data of a sealed row",
    "mask": "HKDF: key of a pairwise mask",
    "self": "HKDF: key of a self mask",
    "mask key x25519": "HKDF: X25519 mask key out of the mask seed",
    "mask key ml-kem-768": "HKDF: ML-KEM half of the hybrid mask key out of the mask seed",
    "mask key hybrid x25519": "HKDF: X25519 half of the hybrid mask key out of the mask seed",
    "edge seed": "HKDF: edge seed out of the mask seed",
    "edge": "HKDF: edge key out of the edge seed; HPKE info of the edge key's ciphertext",
    "conf": "confirmation of an edge key",
    "share": "hash of one share; HPKE info of a row",
    "b": "commitment to a self-mask seed",
    "conditional": "commitment to a conditional secret",
    "consistency": "what a consistency tag covers",
}


class Sets(NamedTuple):
    """How many clients the size of a message depends on.

    Attributes:
        clients: in the roster.
        shared: neighbours of the client in U2.
        survivors: neighbours of the client in U3.
        sealed: neighbours the client seals an edge for (hybrid keys).
        received: neighbours in U2 that seal an edge for the client.
    """

    clients: int
    shared: int
    survivors: int
    sealed: int = 0
    received: int = 0


def diagram(table_: phases.Table, first: Phase) -> str:
    """A mermaid state diagram of one machine."""
    lines = ["stateDiagram-v2", "    direction LR", f"    [*] --> {first.value}"]
    for phase in sorted(table_, key=list(Phase).index):
        lines += [
            f"    {phase.value} --> {goal.value}: {_event(event)}" for event, goal in table_[phase].items()
        ]
    return "```mermaid\n" + "\n".join([*lines, "    done --> [*]"]) + "\n```\n"


def transitions(tables: dict[str, phases.Table]) -> str:
    """Every transition of one machine as a row: phase, event, next phase, in which mode."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for adversary, table_ in tables.items():
        for phase, row in table_.items():
            for event, following in row.items():
                rows.setdefault((phase.value, _event(event), following.value), []).append(
                    ADVERSARIES[adversary]
                )
    order = [phase.value for phase in Phase]
    body = [
        (f"`{phase}`", f"`{event}`", f"`{following}`", "both" if len(modes) > 1 else modes[0])
        for (phase, event, following), modes in sorted(rows.items(), key=lambda item: order.index(item[0][0]))
    ]
    return table(["phase", "event", "next phase", "mode"], body)


def _event(event: phases.Event) -> str:
    return f"{event}()" if event in (MASK, ADVANCE) else Kind(event).name.lower()


def client_states() -> str:
    """Diagrams and table of the client."""
    answers = table(["event", "what the client answers"], [(f"`{_event(e)}`", a) for e, a in ANSWERS.items()])
    return _diagrams(phases.CLIENT, Phase.NEW) + transitions(phases.CLIENT) + "\n" + answers


def server_states() -> str:
    """Diagrams and table of the server."""
    return _diagrams(phases.SERVER, Phase.ADVERTISE) + transitions(phases.SERVER)


def _diagrams(tables: dict[str, phases.Table], first: Phase) -> str:
    return "".join(
        f"{name.capitalize()} mode:\n\n{diagram(tables[key], first)}\n" for key, name in ADVERSARIES.items()
    )


def kinds() -> str:
    """Number and direction of every kind of message."""
    sent = {str(answer).split(" ")[0] for answer in ANSWERS.values()} | {"unmask", "consistency"}
    rows = [
        (
            kind.value,
            f"`{kind.name.lower()}`",
            "client to server" if kind.name.lower() in sent else "server to client",
        )
        for kind in Kind
    ]
    return table(["kind", "name", "direction"], rows)


def sizes_of(parameters: RoundParameters, sets: Sets) -> dict[Kind, int]:
    """Bytes of every message that one client sends or receives.

    Args:
        parameters: the round.
        sets: the counts that the sizes depend on.

    Returns:
        Bytes by kind, headers included.
    """
    codec = messages.Codec(parameters, bytes(messages.HASH_BYTES))
    neighbours = min(parameters.neighbours, sets.clients - 1)
    signature = identities.SIGNATURE_BYTES if parameters.is_malicious else 0
    tag = messages.HASH_BYTES
    advert = codec.public_bytes + signature
    bitmap = -(-sets.clients // 8)
    commitments = (1 + parameters.conditional_secrets) * messages.HASH_BYTES
    packed = sum(4 * v.modulus_bits * -(-v.padded_length // 32) for v in parameters.vectors)
    bodies = {
        Kind.OFFER: messages.HASH_BYTES + len(parameters.canonical),
        Kind.ADVERTISE: advert,
        Kind.ROSTER: sets.clients * (messages.ID_BYTES + advert),
        Kind.SHARE: commitments
        + neighbours * codec.row_bytes
        + (neighbours + 1) * codec.hash_row_bytes
        + sets.sealed * hybrid.EDGE_BYTES,
        Kind.INBOX: bitmap
        + sets.shared * (codec.row_bytes + codec.hash_row_bytes)
        + sets.received * hybrid.EDGE_BYTES,
        Kind.MASKED_INPUT: packed + -(-neighbours // 8),
        Kind.SURVIVORS: bitmap,
        Kind.CONSISTENCY: sets.survivors * tag,
        Kind.TAGS: sets.survivors * tag,
        Kind.UNMASK: (sets.shared + 1) * codec.record_bytes,
    }
    if not parameters.is_malicious:
        del bodies[Kind.CONSISTENCY], bodies[Kind.TAGS]
    return {kind: messages.HEADER_BYTES + body for kind, body in bodies.items()}


def example(adversary: str, key_agreement: str, clients: int = 1000) -> RoundParameters:
    """The round whose sizes the page shows."""
    return RoundParameters.choose(
        clients=clients,
        vectors=[Vector("update", 2**20, 26)],
        dropout=0.05,
        corruption=0.05,
        graph="sparse",
        adversary=adversary,  # type: ignore[arg-type]
        key_agreement=key_agreement,  # type: ignore[arg-type]
        task="example",
        round=0,
        model_hash=bytes(32),
        application=b"",
        roster_hash=bytes(32) if adversary == "malicious" else b"",
    )


def sizes() -> str:
    """Bytes of every message in the example round, nobody silent, half of the edges sealed by the client."""
    columns = [(a, k) for a in ADVERSARIES for k in ("x25519", "x25519-mlkem768")]
    found = []
    for adversary, agreement in columns:
        parameters = example(adversary, agreement)
        k = parameters.neighbours
        half = k // 2 if parameters.is_hybrid else 0
        found.append((k, sizes_of(parameters, Sets(parameters.clients, k, k, half, half))))
    head = [
        "message",
        *(f"{ADVERSARIES[a]}, {k}, k = {n}" for (a, k), (n, _) in zip(columns, found, strict=True)),
    ]
    rows = [
        [f"`{kind.name.lower()}`", *(f"{size[kind]:,}" if kind in size else "none" for _, size in found)]
        for kind in Kind
    ]
    return table(head, rows)


def widths() -> str:
    """The fixed widths that the layouts are made of."""
    rows = [
        ("header: magic 4, version 2, kind 2, session 32", messages.HEADER_BYTES),
        ("X25519 key", keys.KEY_BYTES),
        ("hybrid key: ML-KEM-768 encapsulation key 1,184, X25519 key 32", hybrid.HYBRID_KEY_BYTES),
        ("Ed25519 signature", identities.SIGNATURE_BYTES),
        ("client id", messages.ID_BYTES),
        ("hash, commitment or tag", messages.HASH_BYTES),
        ("share of one 32-byte secret: 18 words of 16 bits", shamir.SHARE_BYTES),
        ("salt of a share record (malicious mode)", messages.SALT_BYTES),
        ("what AES-256-GCM adds to a row", keys.SEAL_OVERHEAD),
        ("what HPKE adds to a row (hybrid keys)", hybrid.SEALED_OVERHEAD),
        ("sealed edge key: ciphertext 1,168, confirmation 32", hybrid.EDGE_BYTES),
    ]
    return table(["field", "bytes"], [(what, f"{size:,}") for what, size in rows])


def thresholds() -> str:
    """Neighbours and thresholds: what the search gives for n clients, and what a round of n planned ones uses."""
    rows = []
    for adversary, share, sizes_ in KNOWN:
        for n in sizes_:
            bare = graph_parameters(n, dropout=share, corruption=share, adversary=adversary)  # type: ignore[arg-type]
            used = _chosen(n, share, adversary)
            floor = f"{floor_of(used):,}" if adversary == "malicious" else "survivors less C"
            rows.append(
                (
                    ADVERSARIES[adversary],
                    share,
                    f"{n:,}",
                    f"{bare.neighbours}, {bare.threshold}",
                    f"{used.neighbours}, {used.threshold}",
                    f"{used.minimum_roster:,}",
                    floor,
                )
            )
    head = ["mode", "corruption = dropout", "n", "k, t for exactly n", "k, t of a round", "smallest roster",
            "honest clients in the sum"]  # fmt: skip
    return table(head, rows)


def floor_of(parameters: RoundParameters) -> int:
    """What a malicious sparse round promises where only its smallest roster came."""
    return GraphParameters(
        clients=parameters.minimum_roster,
        neighbours=parameters.neighbours,
        threshold=parameters.threshold,
        corrupted=parameters.corrupted,
        dropped=parameters.dropped,
    ).honest_floor


def _chosen(clients: int, share: float, adversary: str) -> RoundParameters:
    return RoundParameters.choose(
        clients=clients,
        vectors=[Vector("update", 1, 1)],
        dropout=share,
        corruption=share,
        graph="sparse",
        adversary=adversary,  # type: ignore[arg-type]
        task="",
        round=0,
        model_hash=bytes(32),
        application=b"",
        roster_hash=bytes(32) if adversary == "malicious" else b"",
    )


def labels() -> str:
    """Every label that keeps one use of a hash or key from another."""
    return table(["label", "what it stands before"], [(f"`{label}`", use) for label, use in LABELS.items()])


def blocks() -> dict[str, str]:
    """Every generated block of the page."""
    return {
        "client-states": client_states(),
        "server-states": server_states(),
        "kinds": kinds(),
        "widths": widths(),
        "sizes": sizes(),
        "thresholds": thresholds(),
        "labels": labels(),
    }


if __name__ == "__main__":
    write(PAGE, blocks())
