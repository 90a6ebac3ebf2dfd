"""Makes `tests/vectors/secagg_wire.json`: every message of small seeded rounds, and bytes that must be refused.

Run `python -m tests.secagg.wire_vectors` after a deliberate change of the wire, which also raises
`secagg.binding.PROTOCOL_VERSION`. Of hybrid rounds only the lengths: encapsulation is random inside OpenSSL.
"""

import json
from pathlib import Path

from secagg import Vector
from secagg.binding import PROTOCOL_VERSION
from secagg.messages import HEADER_BYTES
from tests.secagg.rounds import Round, choose

PATH = Path(__file__).parents[1] / "vectors" / "secagg_wire.json"
CASES = {
    "semi_honest": {"adversary": "semi_honest", "clients": 4, "threshold": 3},
    "malicious": {"adversary": "malicious", "clients": 4},
    "two_vectors": {"clients": 3, "threshold": 2, "vectors": (Vector("a", 5, 7), Vector("b", 2, 33))},
}
HYBRID_CASES = {
    f"hybrid_{name}": {**CASES[name], "key_agreement": "x25519-mlkem768"}
    for name in ("semi_honest", "malicious")
}


def played(case):
    """The round of a case, played to its end with client 1 silent at the end."""
    round_ = Round(choose(**(CASES | HYBRID_CASES)[case]))
    while round_.stage != "done":
        round_.play(silent=[1] if round_.stage == "unmask" else [])
    return round_


def lengths(case):
    """Bytes of every message of client 0, down and up, by stage."""
    round_ = played(case)
    return {stage: [len(round_.down[stage][0]), len(round_.up[stage][0])] for stage in round_.up}


def bad_forms(data):
    """Bytes made of a good message that no decoder may take."""
    return {
        "truncated": data[:-1],
        "trailing": data + b"\0",
        "other_magic": b"\0" + data[1:],
        "other_version": data[:4] + bytes([data[4] + 1]) + data[5:],
        "other_session": data[:6] + bytes([data[6] ^ 1]) + data[7:],
        "header_only": data[: HEADER_BYTES - 1],
    }


def vectors():
    """Everything the file pins."""
    rounds = {}
    for case in CASES:
        round_ = played(case)
        rounds[case] = {
            "canonical_parameters": round_.parameters.canonical.hex(),
            "session": round_.server._session.hex(),
            "context": round_.server._context.hex(),
            "down": {
                stage: {str(c): m.hex() for c, m in sent.items()} for stage, sent in round_.down.items()
            },
            "up": {stage: {str(c): m.hex() for c, m in sent.items()} for stage, sent in round_.up.items()},
            "totals": {name: total.tolist() for name, total in round_.server.result.totals.items()},
        }
    bad = {
        stage: {name: data.hex() for name, data in bad_forms(sent[0]).items()}
        for stage, sent in played("malicious").up.items()
    }
    return {
        "source": "python -m tests.secagg.wire_vectors, from the seeds in tests/secagg/rounds.py",
        "version": PROTOCOL_VERSION,
        "rounds": rounds,
        "lengths": {case: lengths(case) for case in HYBRID_CASES},
        "bad": bad,
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
