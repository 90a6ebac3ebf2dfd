"""A release, rehearsed on this machine: everything but the upload. Run by `make release-rehearsal`.

1. Two clean clones of HEAD are built apart, one in a build environment of its own; the files must be equal, byte for
   byte.
2. Metadata is validated, and the sdist must hold what git tracks and nothing else.
3. Checksums are signed with a throw-away key, verified, and verified not to hold for another file.
4. The wheel is served by an index on loopback, installed from it into an empty environment, and runs the demo there.

Files are left in `dist/`. Nothing leaves the machine; dependencies come from the configured registry. What a real
release adds is in `docs/releasing.md`.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
SUMS = "SHA256SUMS"
NAMESPACE = "veilsum-release"
SIGNER = "rehearsal@veilsum.invalid"


class Failed(Exception):
    """The release is not fit; the message says why."""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command and return its stdout.

    Raises:
        Failed: it left with another code than 0.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        raise Failed(
            f"{' '.join(map(str, command))} left with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def clone(target: Path) -> Path:
    """A clean checkout of HEAD."""
    run("git", "clone", "--quiet", "--local", "--no-hardlinks", ROOT, target)
    return target


def build(source: Path, target: Path, *options: str) -> dict[str, Path]:
    """Build sdist and, from it, wheel; timestamps are those of the commit."""
    when = run("git", "log", "-1", "--format=%ct", cwd=source).strip()
    pins = str(source / ".ci" / "constraints.txt")
    run(
        sys.executable, "-m", "build", *options, "--outdir", target, source,
        cwd=source, SOURCE_DATE_EPOCH=when, PIP_CONSTRAINT=pins,
    )  # fmt: skip
    return {path.name: path for path in sorted(target.iterdir())}


def digest(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def require_equal(ours: dict[str, Path], again: dict[str, Path]) -> None:
    """Raise unless both builds made the same files."""
    if {name: digest(path) for name, path in ours.items()} != {
        name: digest(path) for name, path in again.items()
    }:
        raise Failed(f"two builds of one commit differ in {', '.join(sorted({*ours, *again}))}")


def metadata(artefact: Path) -> bytes:
    """The core metadata of a wheel or an sdist."""
    if artefact.suffix == ".whl":
        with zipfile.ZipFile(artefact) as wheel:
            (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
            return wheel.read(name)
    with tarfile.open(artefact) as sdist:
        member = sdist.extractfile(f"{artefact.name.removesuffix('.tar.gz')}/PKG-INFO")
        return member.read() if member is not None else b""


def check_metadata(artefacts: dict[str, Path]) -> str:
    """Validate the metadata of both files; returns the version.

    Raises:
        Failed: it is not valid, not the same in both, or lacks what a registry shows.
    """
    from packaging.metadata import Metadata
    from trove_classifiers import classifiers

    read = {name: metadata(path) for name, path in artefacts.items()}
    if len({*read.values()}) != 1 or len(read) != 2:
        raise Failed(f"{', '.join(read)} do not hold the same metadata; one wheel and one sdist should")
    try:
        found = Metadata.from_email(next(iter(read.values())), validate=True)
    except ExceptionGroup as errors:
        raise Failed("; ".join(map(str, errors.exceptions))) from errors
    if unknown := {*(found.classifiers or ())} - {*classifiers}:
        raise Failed(f"no registry knows the classifiers {sorted(unknown)}")
    if not (found.description or "").strip() or "markdown" not in (found.description_content_type or ""):
        raise Failed("the metadata holds no README")
    if not any(name.endswith("-py3-none-any.whl") for name in read):
        raise Failed(f"{', '.join(read)}: the wheel is not for every Python 3 and platform")
    return str(found.version)


def check_contents(sdist: Path, source: Path) -> int:
    """Raise unless the sdist holds what git tracks, and its own metadata; returns the number of files."""
    with tarfile.open(sdist) as archive:
        held = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    tracked = {*run("git", "ls-files", cwd=source).splitlines(), "PKG-INFO"}
    if odd := sorted(held ^ tracked):
        raise Failed(f"sdist and git differ in {', '.join(odd[:10])}{', ...' * (len(odd) > 10)}")
    return len(held)


def sign(folder: Path, work: Path) -> None:
    """Write checksums, sign them with a key that is thrown away, verify, and see a forgery refused."""
    names = sorted(path.name for path in folder.iterdir() if path.name.startswith("veilsum-"))
    sums = folder / SUMS
    sums.write_text("".join(f"{digest(folder / name)}  {name}\n" for name in names))
    key = work / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", SIGNER, "-f", key)
    run("ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key, sums)
    (folder / "allowed_signers").write_text(f"{SIGNER} {key.with_suffix('.pub').read_text()}")
    key.unlink()
    verify(folder, sums)
    forged = work / SUMS
    forged.write_text(sums.read_text().replace("0", "1"))
    try:
        verify(folder, forged)
    except Failed:
        return
    raise Failed("a forged list of checksums was accepted")


def verify(folder: Path, sums: Path) -> None:
    """Check signature and checksums, as somebody who downloaded the folder does.

    Raises:
        Failed: one of them does not hold.
    """
    command = ["ssh-keygen", "-Y", "verify", "-f", folder / "allowed_signers", "-I", SIGNER, "-n", NAMESPACE]
    with sums.open("rb") as content:
        done = subprocess.run(
            [*command, "-s", folder / f"{SUMS}.sig"], stdin=content, capture_output=True, text=True
        )
    if done.returncode:
        raise Failed(f"the signature of {sums} does not hold: {done.stderr.strip() or done.stdout.strip()}")
    for line in sums.read_text().splitlines():
        expected, name = line.split()
        if digest(folder / name) != expected:
            raise Failed(f"{name} is not the file that was signed")


@contextmanager
def index(folder: Path) -> Iterator[str]:
    """A registry on loopback that knows one project; yields its address."""
    page = folder / "simple" / "veilsum"
    page.mkdir(parents=True, exist_ok=True)
    links = (
        f'<a href="../../{path.name}#sha256={digest(path)}">{path.name}</a><br>'
        for path in sorted(folder.glob("veilsum-*"))
    )
    (page / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple/"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def try_it(version: str, place: Path, *, quick: bool) -> str:
    """Install from the local index into an empty environment, and run the demo there; returns its last line."""
    run(sys.executable, "-m", "venv", place / "environment", cwd=place)
    python = place / "environment" / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    with index(DIST) as address:
        alone = ("--no-deps", "--no-cache-dir", "--index-url", address)
        run(*pip, *alone, f"veilsum=={version}", cwd=place, NO_PROXY="127.0.0.1")
    run(*pip, f"veilsum[report]=={version}", cwd=place)  # Only what it needs: it is there already.
    run(python, "-m", "pip", "check", cwd=place)
    veilsum = place / "environment" / "bin" / "veilsum"
    if run(veilsum, "--version", cwd=place).split()[-1] != version:
        raise Failed(f"the installed command is not of version {version}")
    demo = ("digits", "--rounds", "5") if quick else ("mnist", "--fallback")
    figures = run(veilsum, "simulate", *demo, "--json", "--output", place / "run", cwd=place).splitlines()[-1]
    run(veilsum, "budget", "verify", place / "run" / "operator" / "ledger.sqlite", cwd=place)
    return figures


def main() -> None:
    """Rehearse, and say what was done."""
    parser = argparse.ArgumentParser(
        description="Build, check, sign, install and try a release; upload nothing."
    )
    parser.add_argument(
        "--quick", action="store_true", help="train on the embedded digits instead of running the demo"
    )
    quick = parser.parse_args().quick
    if shutil.which("ssh-keygen") is None:
        raise Failed("ssh-keygen is missing; install OpenSSH (Debian: apt-get install openssh-client)")
    if run("git", "status", "--porcelain").strip():
        print("Note: what is rehearsed is HEAD, without the changes that are not committed.")
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = clone(work / "one" / "checkout")
        ours = build(source, DIST)
        again = build(clone(work / "another place"), work / "again", "--no-isolation")
        require_equal(ours, again)
        print("built twice, equal byte for byte: " + ", ".join(ours))
        version = check_metadata(ours)
        count = check_contents(next(path for name, path in ours.items() if name.endswith(".tar.gz")), source)
        print(f"metadata of {version} is valid; the sdist holds the {count} files that git tracks, no other")
        sign(DIST, work)
        print(f"signed and verified: {DIST / SUMS}; a forgery was refused; the key is thrown away")
        place = work / "elsewhere"
        place.mkdir()
        print("installing from a local index into an empty environment, and running the demo ...", flush=True)
        print(try_it(version, place, quick=quick))
    print(f"Nothing was uploaded. The files are in {DIST}.")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"release rehearsal: {error}")
