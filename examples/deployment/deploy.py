"""A whole Flower deployment on loopback: certificates, keys, SuperLink, SuperNodes, a run, and everything stopped.

    python -m examples.deployment.deploy /tmp/deployment --nodes 12 --rounds 5

Every party is a process of its own, with TLS, node authentication, and, against a malicious server, identities in a
roster. The same steps, host by host, are in README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import tomli_w

import dp
from examples.deployment.certificates import make_certificates, make_node_key
from examples.deployment.people import write_people, write_stand_ins
from fedavg.flower import PrivateRounds, make_folders
from fedavg.secure_aggregation import SecureAggregation

_APP = Path(__file__).parent / "app"
_CONNECTION = "loopback"
_START_SECONDS = 60.0
_ASK_SECONDS = 20.0


class Deployment:
    """One deployment in a folder.

    Args:
        folder: where everything lives; must not exist yet.
        nodes: how many SuperNodes.
        rounds: rounds of the run.
        noise_multiplier: z.
        adversary: "malicious" or "semi_honest".
        app: the Flower app.
        scripts: a folder whose commands come before Flower's own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int,
        rounds: int,
        noise_multiplier: float = 1.0,
        adversary: Literal["malicious", "semi_honest"] = "malicious",
        app: Path = _APP,
        scripts: Path | None = None,
    ) -> None:
        self.folder, self.nodes, self.rounds, self.app = folder, nodes, rounds, app
        self._scripts = scripts or Path(sys.executable).parent
        folder.mkdir(parents=True)
        self.server_folder = folder / "server"
        self.server_folder.mkdir()
        make_certificates(folder / "tls", ["127.0.0.1", "localhost"])
        self.node_folders = make_folders(folder / "nodes", nodes)
        self.settings = PrivateRounds(
            task=f"{folder.name} {time.time():.0f}",
            nodes=nodes,
            rounds=rounds,
            privacy=dp.Privacy(noise_multiplier=noise_multiplier, delta=1e-3, l2_clip_norm=1.0),
            metrics={"loss": 5.0},
            secure=SecureAggregation(dropout=0.2, corruption=0.1, adversary=adversary),
        )
        for node in self.node_folders:
            make_node_key(node)
            self.settings.write(node / "rounds.json")
        self.settings.write(self.server_folder / "rounds.json")
        if self.settings.is_malicious:
            shutil.copy(folder / "nodes" / "roster.json", self.server_folder)
        self.superlink: subprocess.Popen[bytes] | None = None
        self.supernodes: dict[int, subprocess.Popen[bytes]] = {}
        self._port = _free_port()

    @property
    def test_data(self) -> Path:
        """The server's test set."""
        return self.server_folder / "test.npz"

    def start(self) -> None:
        """Start the SuperLink, register the nodes' keys, start the SuperNodes."""
        self.start_superlink()
        for node in range(self.nodes):
            self.register(node)
            self.start_node(node)

    def start_superlink(self) -> None:
        """Start the SuperLink and wait until it answers."""
        tls = self.folder / "tls"
        self.superlink = self._process(
            "superlink",
            ["flower-superlink", "--host", "127.0.0.1", "--port", str(self._port), "--enable-supernode-auth",
             "--ssl-ca-certfile", str(tls / "ca.pem"), "--ssl-certfile", str(tls / "server.pem"),
             "--ssl-keyfile", str(tls / "server.key"), "--database", str(self.server_folder / "superlink.db"),
             "--disable-runtime-dependency-installation"],
        )  # fmt: skip
        home = self.folder / "home" / "cli"
        home.mkdir(parents=True)
        connection = {"address": f"127.0.0.1:{self._port}", "root-certificates": str(tls / "ca.pem")}
        superlink = {"default": _CONNECTION, _CONNECTION: connection}
        (home / "config.toml").write_text(tomli_w.dumps({"superlink": superlink}))
        _wait(lambda: _listens(self._port), "the SuperLink to listen", self.log("superlink"))

    def register(self, node: int) -> None:
        """Tell the SuperLink a node's public authentication key."""
        self._flwr("supernode", "register", str(self.node_folders[node] / "auth.pub"), _CONNECTION)

    def start_node(self, node: int, **environment: str) -> None:
        """Start a SuperNode, for the first time or again."""
        folder = self.node_folders[node]
        config = f'veilsum="{folder}" data="{folder / "data.npz"}" partition-id={node}'
        self.supernodes[node] = self._process(
            f"node-{node:03d}",
            ["flower-supernode", "--superlink", f"127.0.0.1:{self._port}", "--root-certificates",
             str(self.folder / "tls" / "ca.pem"), "--auth-supernode-private-key", str(folder / "auth.key"),
             "--host", "127.0.0.1", "--port", str(_free_port()), "--node-config", config],
            **environment,
        )  # fmt: skip
        (folder / "pid").write_text(str(self.supernodes[node].pid))

    def kill_node(self, node: int) -> None:
        """SIGKILL a SuperNode and everything it started."""
        _kill(self.supernodes.pop(node))

    def run(
        self, *, seconds: float = 1800.0, meanwhile: Callable[[], None] | None = None, **config: str
    ) -> None:
        """Submit the app and wait for its end.

        Raises:
            RuntimeError: the run failed or did not end in time.
        """
        settings = f'rounds={self.rounds} folder="{self.server_folder}"'
        answer = json.loads(self._flwr("run", str(self.app), _CONNECTION, "-c", settings, "--format", "json"))
        if "run-id" not in answer:
            raise RuntimeError(f"the app was not accepted: {answer}")
        run_id, deadline = str(answer["run-id"]), time.monotonic() + seconds
        while (status := self._status(run_id)).split(":")[0] != "finished":
            if meanwhile is not None:
                meanwhile()
            if time.monotonic() > deadline:
                self._flwr("stop", run_id, _CONNECTION)
                raise RuntimeError(
                    f"the run is {status} after {seconds:.0f} seconds; see {self.log('superlink')}"
                )
            time.sleep(1.0)
        if status != "finished:completed":
            raise RuntimeError(f"the run ended as {status}; see {self.log('superlink')}")

    def stop(self) -> None:
        """Stop every process of this deployment."""
        for process in (*self.supernodes.values(), self.superlink):
            if process is not None:
                _kill(process)
        self.supernodes, self.superlink = {}, None

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.folder / "logs" / f"{name}.log"

    def _status(self, run_id: str) -> str:
        rows = json.loads(self._flwr("ls", _CONNECTION, "--format", "json"))["runs"]
        return next(str(row["status"]) for row in rows if str(row["run-id"]) == run_id)

    def _flwr(self, *arguments: str) -> str:
        done = subprocess.run(
            [_script("flwr"), *arguments],
            env=self._environment("cli"),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"flwr {arguments[0]} failed: {done.stdout[-500:]} {done.stderr[-500:]}")
        return done.stdout

    def _environment(self, name: str, **more: str) -> dict[str, str]:
        """Flower's scripts on the path, a home of its own, nothing told to anybody, one thread."""
        path = os.pathsep.join(
            (str(self._scripts), str(Path(sys.executable).parent), os.environ.get("PATH", ""))
        )
        return {
            **os.environ,
            "PATH": path,
            "FLWR_HOME": str(self.folder / "home" / name),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            **more,
        }

    def _process(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        self.log(name).parent.mkdir(exist_ok=True)
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                [_script(command[0]), *command[1:]],
                env=self._environment(name, **environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextlib.contextmanager
def deployed(deployment: Deployment) -> Iterator[Deployment]:
    """A deployment that is stopped whatever happens."""
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.stop()


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process and all that it started; Flower puts some of it into sessions of its own."""
    for pid in (process.pid, *_descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _descendants(pid: int) -> list[int]:
    """Ids of everything that a process started, directly or not (Linux)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = children.get(pid, [])
    for child in found:
        found.extend(children.get(child, []))
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(ready: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {_START_SECONDS:.0f} seconds for {what}; see {log}")
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--noise-multiplier", type=float, default=1.0)
    parser.add_argument("--semi-honest", action="store_true", help="trust the server to follow the protocol")
    parser.add_argument(
        "--stand-ins", action="store_true", help="made-up data instead of HAR; fetches nothing"
    )
    options = parser.parse_args()
    deployment = Deployment(
        options.folder,
        nodes=options.nodes,
        rounds=options.rounds,
        noise_multiplier=options.noise_multiplier,
        adversary="semi_honest" if options.semi_honest else "malicious",
    )
    (write_stand_ins if options.stand_ins else write_people)(deployment.node_folders, deployment.test_data)
    with deployed(deployment):
        print(f"{options.nodes} SuperNodes are up; training ...")
        deployment.run()
    for line in (deployment.server_folder / "rounds.jsonl").read_text().splitlines():
        row = json.loads(line)
        server, readers = row["epsilon"]["server"], row["epsilon"]["readers"]
        print(
            f"round {row['round']}: {row.get('survivors', 'no')} of {row['cohort']} in the sum, {row.get('seconds')} s,"
            f" epsilon against the server {server:.2f}, against readers {readers:.2f}"
        )
    print(json.loads((deployment.server_folder / "evaluations.json").read_text()))


if __name__ == "__main__":
    main()
