"""A node's own folder: its identity, the roster it trusts, and its records of used rounds.

In malicious mode the server must not be able to invent nodes, so each node signs its keys with an identity that stands
in a roster. The operator makes the folders once (`make_folders`), or each node makes its own identity and the public
halves are gathered (`write_roster`), and every node gets the same roster by a way that is not the server.

    roster.json            {"0": "<public key, hex>", ...}: the same file on every node and on the server
    node-000/identity.key  32 private bytes, hex, readable by its owner only
    node-000/node.json     {"node": 0}
    node-000/rounds.json   what this node agrees to (`PrivateRounds.write`)
    node-000/single-use.sqlite3, noise-multiplier-*   made on use

Not here: TLS certificates and Flower's own node authentication (`examples/deployment`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import secagg
from fedavg.flower.errors import NodeSetupError

__all__ = [
    "ROSTER",
    "NodeIdentity",
    "make_folders",
    "make_identity",
    "read_identity",
    "read_roster",
    "write_roster",
]

ROSTER = "roster.json"
SETTINGS = "rounds.json"
_KEY = "identity.key"
_NODE = "node.json"


@dataclass(frozen=True)
class NodeIdentity:
    """Who a node is in malicious mode: its id in the roster, its signing key, the roster."""

    node: int
    identity: secagg.Identity = field(repr=False)
    roster: secagg.IdentityRoster = field(repr=False)


def make_identity(folder: Path, node: int) -> bytes:
    """Make a node's identity in its folder.

    Args:
        folder: The node's own, made if it is missing.
        node: Its number in the roster.

    Returns:
        The public half, 32 bytes, for the roster; the private half stays in the folder.

    Raises:
        NodeSetupError: there is one already; a new one would not be in anybody's roster.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _KEY
    if path.exists():
        raise NodeSetupError(f"{path} exists; remove it by hand if this node is to get a new identity")
    private = secagg.system_entropy(32)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(private.hex())
    (folder / _NODE).write_text(json.dumps({"node": node}))
    return secagg.Identity(private).public


def write_roster(path: Path, publics: Mapping[int, bytes]) -> None:
    """Write the roster that everybody gets; refused where two nodes share a key or a key is weak.

    Args:
        path: The file; overwritten.
        publics: 32-byte public keys by node.
    """
    secagg.IdentityRoster(publics)
    path.write_text(json.dumps({str(node): publics[node].hex() for node in sorted(publics)}, indent=1))


def make_folders(root: Path, nodes: int) -> list[Path]:
    """Make folders, identities and roster of nodes that one operator runs.

    Args:
        root: Where to put them; made if it is missing.
        nodes: How many.

    Returns:
        The nodes' folders, each with a copy of the roster.
    """
    folders = [root / f"node-{node:03d}" for node in range(nodes)]
    publics = {node: make_identity(folder, node) for node, folder in enumerate(folders)}
    for place in (root, *folders):
        write_roster(place / ROSTER, publics)
    return folders


def read_roster(path: Path) -> secagg.IdentityRoster:
    """Read a roster.

    Args:
        path: The file.

    Returns:
        Public keys by node.

    Raises:
        NodeSetupError: it is missing or damaged.
    """
    try:
        rows = json.loads(path.read_text())
        return secagg.IdentityRoster({int(node): bytes.fromhex(public) for node, public in rows.items()})
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise NodeSetupError(
            f"the roster {path} is missing or damaged ({type(error).__name__}); put the one there that all nodes have"
        ) from None


def read_identity(folder: Path) -> NodeIdentity:
    """Read who a node is from its folder.

    Raises:
        NodeSetupError: a file is missing or damaged, or the roster does not hold this node with this key.
    """
    try:
        node = int(json.loads((folder / _NODE).read_text())["node"])
        identity = secagg.Identity(bytes.fromhex((folder / _KEY).read_text().strip()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        # The file's content is a key: it must not be shown, not even in part.
        raise NodeSetupError(
            f"the identity in {folder} is missing or damaged ({type(error).__name__})"
        ) from None
    roster = read_roster(folder / ROSTER)
    if roster.get(node) != identity.public:
        raise NodeSetupError(
            f"the roster in {folder} does not hold node {node} with the identity key in that folder"
        )
    return NodeIdentity(node, identity, roster)
