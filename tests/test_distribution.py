"""The wheel: built, installed elsewhere, and run from there, with its package data and types."""

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    target = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = target.glob("veilsum-*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """An environment that holds the wheel, and borrows this one's dependencies behind it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, with_pip=True)
    install = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_it_holds_three_typed_packages_and_their_data_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"secagg", "dp", "fedavg"}
    for package in ("secagg", "dp", "fedavg"):
        assert f"{package}/py.typed" in names
    assert any(name.startswith("fedavg/datasets/data/digits") for name in names)
    assert any(name.endswith(".html") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_command_trains_and_writes_its_report(elsewhere, tmp_path):
    run = tmp_path / "run"
    command = [
        elsewhere / "bin" / "veilsum",
        "simulate",
        "digits",
        "--rounds",
        "2",
        "--json",
        "--output",
        str(run),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["rounds"] == 2
    assert Path(figures["report"]).is_file()
    where = "import fedavg, secagg, dp; print(fedavg.__file__, secagg.__file__, dp.__file__)"
    loaded = subprocess.run(
        [elsewhere / "bin" / "python", "-c", where], capture_output=True, text=True, cwd=tmp_path, check=True
    ).stdout.split()
    assert all(name.startswith(str(elsewhere)) for name in loaded)
