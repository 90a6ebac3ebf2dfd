"""State of the Union: addresses by president."""

from __future__ import annotations

import json

import pytest

from fedavg.datasets import UnsafeArchive, load_users, sotu


def address(year, name, text):
    return json.dumps({"year": year, "name": name, "party": "none", "text": text}).encode()


def test_addresses_are_grouped_by_president_and_sorted_by_year(stand_in):
    files = {
        "package/data/1794_b.json": address(1794, "Bob", "third"),
        "package/data/1792_a.json": address(1792, "Ada", "second"),
        "package/data/1790_a.json": address(1790, "Ada", "first"),
        "package/package.json": b"{}",
    }
    stand_in(sotu, files)
    assert load_users("sotu").users == {"Ada": ("first", "second"), "Bob": ("third",)}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"year": 1790, "name": "Ada"}', b"\xff"])
def test_another_form_is_refused(stand_in, content):
    stand_in(sotu, {"package/data/1790_a.json": content})
    with pytest.raises(UnsafeArchive, match="holds an address of another form"):
        load_users("sotu")


def test_the_real_set(real):
    """233 addresses of 43 presidents, 10.76 million characters; one president has given 12, one is missing none."""
    data = real("sotu")
    assert (len(data.users), data.pieces) == (43, 233)
    assert sum(len(text) for texts in data.users.values() for text in texts) == 10_759_831
    assert next(iter(data.users)) == "George Washington"
    assert max(map(len, data.users.values())) == 12
