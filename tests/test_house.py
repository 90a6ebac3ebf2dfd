"""The house itself: what importing costs, what the README claims, which way imports run."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "dp_accounting", "scipy.stats", "matplotlib", "jinja2", "typer", "rich", "torch", "jax", "keras", "sklearn", "ray",
    "flwr", "tensorflow", "tensorflow_privacy",
)  # fmt: skip


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def test_importing_fedavg_loads_no_extra_and_nothing_slow():
    loaded = run("import fedavg, sys; print(*sys.modules)").split()
    assert "secagg" in loaded
    assert not [name for name in HEAVY if name in loaded]


@pytest.mark.parametrize("package", ["secagg", "dp"])
def test_the_lower_rooms_load_alone(package):
    loaded = run(f"import {package}, sys; print(*sys.modules)").split()
    assert ({"secagg", "dp", "fedavg"} - {package}) & {*loaded} == set()


def test_every_package_names_what_it_exports():
    import dp
    import fedavg
    import secagg

    for package in (secagg, dp, fedavg):
        for name in package.__all__:
            value = getattr(package, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert value.__doc__, f"{package.__name__}.{name}"


def readme_snippets():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("snippet", readme_snippets(), ids=lambda text: text.splitlines()[0])
def test_the_readme_snippets_run(snippet, capsys):
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out


def test_every_file_the_readme_shows_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target
