"""What the pieces of a round cost on this machine, one by one; `docs/scale.md` multiplies them.

    python benchmarks/unit_costs.py > docs/results/unit_costs.json

Prints one JSON object of about twenty numbers; the end of a name is its unit: CPU microseconds (`us`) or nanoseconds
(`ns`) of one operation, of one client, neighbour, byte or value, or bytes. Takes about half a minute on a quiet core.
Medians over nine repeats; the whole machines at the end are measured once each, over some thousand calls.
"""

import json
import os
import statistics
import time
import tracemalloc

import numpy as np

from secagg import Client, Identity, IdentityRoster, RoundParameters, Server, Vector, keys
from secagg.agreement import check_publics
from secagg.binding import associated_data, vector_fields
from secagg.entropy import system_entropy
from secagg.graph import holder_table, ring_order
from secagg.masking import apply_masks
from secagg.messages import Codec
from secagg.phases import Phase
from secagg.ring import add_packed, pack, word_dtype
from secagg.shamir import lagrange_weights, reconstruct, share

LENGTH = 2**20
CLIENTS = 10**5
CONTEXT = bytes(32)
THRESHOLD, HOLDERS = 24, 45  # of a million clients, corruption and dropout .05
MODES = ("semi_honest", "malicious")


def microseconds(work, calls=1, runs=9):
    """Median over some runs of the CPU time of one call."""
    spent = []
    for _ in range(runs):
        begin = time.process_time()
        for _ in range(calls):
            work()
        spent.append((time.process_time() - begin) / calls)
    return 1e6 * statistics.median(spent)


def key_costs():
    own, peer = keys.new_channel_pair(os.urandom(32)), keys.new_channel_pair(os.urandom(32)).public
    root = keys.channel_root(own, peer, CONTEXT, 2)
    fields = [vector_fields(0, Vector("v", LENGTH, 26))]
    ends = {"me": 1, "them": 2}
    row, key, associated = bytes(72), os.urandom(32), associated_data(CONTEXT, 1, 2)
    sealed = keys.seal(key, row, associated)
    identity = Identity.generate()
    roster = IdentityRoster.of({1: identity})
    signature = identity.sign(b"statement")

    def channel():
        keys.directional("seal", keys.channel_root(own, peer, CONTEXT, 2), own.public, peer, **ends)

    return {
        "x25519_key_pair_us": microseconds(lambda: keys.new_channel_pair(os.urandom(32)), 200),
        "row_keys_of_a_pair_us": microseconds(channel, 200),
        "mask_key_of_a_pair_us": microseconds(lambda: keys.mask_keys(own, peer, CONTEXT, 1, 2, fields), 200),
        "tag_keys_of_a_pair_us": microseconds(
            lambda: keys.directional("tag", root, own.public, peer, **ends), 500
        ),
        "seal_a_row_us": microseconds(lambda: keys.seal(key, row, associated), 500),
        "open_a_row_us": microseconds(lambda: keys.open_sealed(key, sealed, associated), 500),
        "sign_us": microseconds(lambda: identity.sign(b"statement"), 200),
        "verify_us": microseconds(lambda: roster.verify(1, signature, b"statement"), 200),
    }


def share_costs():
    secrets = [os.urandom(32) for _ in range(2)]
    options = {"threshold": THRESHOLD, "shares": HOLDERS, "entropy": system_entropy}
    dealt = share(secrets, **options)
    points = tuple(range(1, THRESHOLD + 1))
    fresh = iter([tuple(range(first, first + THRESHOLD)) for first in range(1, 10_000)])
    lagrange_weights(points)
    return {
        "share_two_secrets_24_of_45_us": microseconds(lambda: share(secrets, **options), 200),
        "recover_two_secrets_24_us": microseconds(lambda: reconstruct(points, dealt[:, :THRESHOLD]), 200),
        "lagrange_weights_of_24_us": microseconds(lambda: lagrange_weights(next(fresh)), 200),
    }


def roster_costs():
    """What every client does with the whole roster, and the server with the whole graph."""
    parameters = parameters_of("semi_honest", clients=CLIENTS, neighbours=HOLDERS - 1, threshold=THRESHOLD)
    codec = Codec(parameters, bytes(32))
    message = codec.encode_roster(
        {client: os.urandom(31) + b"\x01" + os.urandom(31) + b"\x01" for client in range(CLIENTS)}
    )

    def order():
        ring_order.cache_clear()
        ring_order(CLIENTS, bytes(32))

    def table():
        holder_table(CLIENTS, neighbours=HOLDERS - 1, seed=bytes(32))

    costs = {
        "check_the_roster_us_per_client": microseconds(
            lambda: check_publics(codec.decode_roster(message)), runs=3
        ),
        "order_of_the_ring_us_per_client": microseconds(order, runs=3),
        "graph_us_per_client": microseconds(table, runs=3),
    }
    return {name: cost / CLIENTS for name, cost in costs.items()}


def vector_costs(bits):
    words = np.zeros(LENGTH, word_dtype(bits))
    packed = pack(words, bits)
    masks = [(os.urandom(32), 1) for _ in range(20)]
    costs = {
        "mask": microseconds(lambda: apply_masks(words, masks, bits=bits)) / len(masks),
        "pack": microseconds(lambda: pack(words, bits), 5),
        "add": microseconds(lambda: add_packed(words, packed, bits), 5),
    }
    return {f"{name}_{bits}_bits_ns_per_value": 1e3 * cost / LENGTH for name, cost in costs.items()}


def parameters_of(adversary, *, clients, **settings):
    settings = {"dropout": 0.02, "corruption": 0.02, "graph": "sparse"} | settings
    return RoundParameters.choose(
        clients=clients,
        vectors=[Vector("v", 1, 26)],
        adversary=adversary,
        task="unit costs",
        round=0,
        model_hash=bytes(32),
        application=b"",
        **settings,
    )


def machine_costs(adversary):
    """Both machines in a real round of vectors of one value: all that does not grow with the vector."""
    settings = {"neighbours": HOLDERS - 1, "threshold": THRESHOLD} if adversary == "semi_honest" else {}
    clients = 800
    everyone = {c: Identity.generate() for c in range(clients)} if adversary == "malicious" else {}
    trusted = IdentityRoster.of(everyone) if everyone else None
    if trusted:
        settings["roster_hash"] = trusted.hash
    parameters = parameters_of(adversary, clients=clients, **settings)
    machines = {
        c: Client(parameters, c, identity=everyone.get(c), identities=trusted) for c in range(clients)
    }
    cpu, grown = play(parameters, machines, trusted)
    per_client = clients * parameters.neighbours
    return {
        f"client_{adversary}_us_per_neighbour": 1e6 * cpu["client"] / per_client,
        f"server_{adversary}_us_per_neighbour": 1e6 * cpu["server"] / per_client,
        f"server_{adversary}_bytes_per_neighbour": grown / per_client,
    }


def play(parameters, machines, trusted):
    """Run a round; CPU seconds of each side, and the most that the server's calls left in memory."""
    cpu, kept, most = {"client": 0.0, "server": 0.0}, 0, 0

    def timed(side, work, *arguments):
        nonlocal kept, most
        before, begin = tracemalloc.get_traced_memory()[0], time.process_time()
        result = work(*arguments)
        cpu[side] += time.process_time() - begin
        if side == "server":
            kept += tracemalloc.get_traced_memory()[0] - before
            most = max(most, kept)
        return result

    server = timed("server", lambda: Server(parameters, identities=trusted))
    values = {"v": np.ones(1, np.uint32)}
    while server.phase is not Phase.DONE:
        for client in [c for c in machines if server.expects(c)]:
            message = timed("server", server.message_for, client)
            kept -= tracemalloc.is_tracing() and len(message)
            answer = timed("client", machines[client].receive, message)
            if answer is None:
                answer = timed("client", machines[client].mask, values)
            timed("server", server.receive, client, answer)
        timed("server", server.advance)
    return cpu, most


def main():
    costs = key_costs() | share_costs() | roster_costs() | vector_costs(26) | vector_costs(36)
    for adversary in MODES:
        costs |= machine_costs(adversary)
        tracemalloc.start()
        costs |= {name: cost for name, cost in machine_costs(adversary).items() if "bytes" in name}
        tracemalloc.stop()
    print(json.dumps({name: round(cost, 3) for name, cost in costs.items()}, indent=1))


if __name__ == "__main__":
    main()
