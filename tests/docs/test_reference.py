"""The reference says what the code says, and every public docstring says what it must."""

import ast
from pathlib import Path

import pytest

from docs.make import public, reference
from docs.make.docstrings import findings, function_findings, judged
from docs.make.generated import blocks_in
from docs.make.public import MODULES, Name, exported, source

HIDDEN = {"fedavg.cli", "fedavg.adapters"}  # Run as a command; all of it is in `fedavg`.


def test_every_public_name_says_what_it_takes_gives_and_raises():
    assert list(findings()) == []


def test_every_package_that_exports_names_is_in_the_reference():
    packages = {
        ".".join(path.parent.relative_to(public.ROOT).parts)
        for top in ("secagg", "dp", "fedavg")
        for path in (public.ROOT / top).rglob("__init__.py")
        if "__all__" in path.read_text()
    }
    assert packages - HIDDEN <= MODULES.keys()
    assert set(exported("fedavg.adapters")) <= set(exported("fedavg"))


@pytest.mark.parametrize("module", MODULES)
def test_every_exported_name_is_found(module):
    found = public.names(module)
    assert {name.name for name in found} == set(exported(module))
    assert all(name.summary and Path(source(name.home)).exists() for name in found)


@pytest.mark.parametrize(
    "page", [reference.INDEX, reference.COMMANDS, reference.LEDGER], ids=lambda p: p.stem
)
def test_the_pages_are_what_the_code_gives(page):
    made = {
        reference.INDEX: reference.module_blocks,
        reference.COMMANDS: reference.command_blocks,
        reference.LEDGER: reference.ledger_blocks,
    }
    assert blocks_in(page.read_text()) == made[page](), "run python -m docs.make.reference"


def test_the_command_line_page_has_every_option():
    page = reference.COMMANDS.read_text()
    options = [
        option
        for _, command in reference.commands()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and not getattr(parameter, "hidden", False)
    ]
    assert len(options) > 60
    assert [option for option in options if f"`{option}`" not in page] == []


GOOD = '''
def clip(vector: NDArray[np.float64], *, bound) -> float:
    """Clip a vector.

    Args:
        vector: float64, shape (n,).
        bound: Above 0.

    Returns:
        Its norm.

    Raises:
        ValueError: a bound that is not positive.
    """
    if bound <= 0:
        raise ValueError("no")
    return 1.0
'''


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("        bound: Above 0.\n", "the parameter bound is not described"),
        (" float64, shape (n,).", "nothing says what shape or type the array vector has"),
        ("    Returns:\n        Its norm.\n\n", "has no Returns"),
        (
            "    Raises:\n        ValueError: a bound that is not positive.\n",
            "raises ValueError, and does not say when",
        ),
        (GOOD[GOOD.index('    """') : GOOD.index("    if")], "has no docstring"),
    ],
)
def test_what_is_missing_is_found(gone, said):
    def judge(text):
        node = ast.parse(text).body[0]
        return list(function_findings(node, "x.clip", ast.get_docstring(node) or ""))

    assert judge(GOOD) == []
    assert [line for line in judge(GOOD.replace(gone, "")) if said in line]


def test_a_field_that_nothing_describes_is_found():
    text = 'class Sum:\n    """A sum.\n\n    Attributes:\n        total: Integers.\n    """\n    total: int\n    '
    for field, found in [("survivors", 1), ("_survivors", 0)]:
        node = ast.parse(f"{text}{field}: int\n").body[0]
        lines = list(judged(Name("secagg", "Sum", "secagg.server", node, ast.get_docstring(node))))
        assert len(lines) == found
