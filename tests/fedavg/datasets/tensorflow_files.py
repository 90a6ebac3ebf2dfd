"""Writes what TensorFlow Federated's users hold: serialized examples, and SQLite files of them."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing


def varint(number):
    number %= 1 << 64
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def bytes_list(*values):
    return field(1, b"".join(field(1, value) for value in values))


def float_list(*values):
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def int64_list(*values):
    return field(3, field(1, b"".join(map(varint, values))))


def entry(name, feature):
    return field(1, field(1, name.encode()) + field(2, feature))


def example(**features):
    return field(1, b"".join(entry(name, feature) for name, feature in features.items()))


def write_sqlite(path, rows):
    """Rows of (split, client, serialized example), in the tables TensorFlow Federated makes."""
    clients = {}
    for split, client, _ in rows:
        clients[split, client] = clients.get((split, client), 0) + 1
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            """
            CREATE TABLE examples (
              split_name TEXT NOT NULL, client_id TEXT NOT NULL, serialized_example_proto BLOB NOT NULL);
            CREATE INDEX idx_examples_client_id_split ON examples (split_name, client_id);
            CREATE TABLE client_metadata (
              client_id TEXT NOT NULL, split_name TEXT NOT NULL, num_examples INTEGER NOT NULL);
            CREATE INDEX idx_metadata_client_id ON client_metadata (client_id);
            """
        )
        connection.executemany("INSERT INTO examples VALUES (?, ?, ?)", rows)
        connection.executemany(
            "INSERT INTO client_metadata VALUES (?, ?, ?)",
            [(client, split, count) for (split, client), count in clients.items()],
        )
