"""Names of this library that the pages mention are there, and so are the names of Flower and pfl that they map."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md"]
MENTIONED = re.compile(r"`((?:fedavg|secagg|dp)(?:\.[A-Za-z_]\w*)+)")

LOGGERS = {"fedavg.client", "fedavg.operator"}


def resolved(name):
    """The object that a dotted name stands for."""
    first, *rest = name.split(".")
    found = importlib.import_module(first)
    for part in rest:
        if hasattr(found, part):
            found = getattr(found, part)
        elif part in getattr(found, "__dataclass_fields__", {}):
            return found.__dataclass_fields__[part]
        else:
            found = importlib.import_module(f"{found.__name__}.{part}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_name_of_ours_is_there(page):
    for name in sorted(set(MENTIONED.findall(page.read_text())) - LOGGERS):
        assert resolved(name) is not None, name


def test_a_name_that_is_not_there_is_found():
    with pytest.raises(ImportError):
        resolved("fedavg.no_such_name")


def test_the_strategies_and_mods_that_the_flower_page_maps_are_flowers():
    strategies = pytest.importorskip("flwr.serverapp.strategy")
    mods = importlib.import_module("flwr.clientapp.mod")
    page = (ROOT / "docs" / "coming-from-flower.md").read_text()
    named = set(re.findall(r"`((?:Fed|Krum|Multi|Bulyan|QFed)\w*|\w+clipping_mod|LocalDpMod)`", page))
    assert len(named) >= 15
    assert [name for name in named if not hasattr(strategies, name) and not hasattr(mods, name)] == []
