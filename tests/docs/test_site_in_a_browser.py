"""The built site in a real browser: axe finds nothing serious, as wide as a phone or a desk, in light and dark.

Also: no page asks another host for anything, and none is wider than its window. Needs a Chromium and axe-core (from
npm); where one of them is missing, the test says so and is skipped.
"""

from __future__ import annotations

import functools
import html
import http.server
import json
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.fedavg.report.pages import BROWSER, FLAGS
from tests.fedavg.report.test_accessibility import axe as axe  # a fixture

pytestmark = pytest.mark.drill
ROOT = Path(__file__).parents[2]
PAGES = [
    "index.html",
    "tutorials/wrap-a-loop.html",
    "sharp-edges.html",
    "protocol.html",
    "reference/command-line.html",
    "reference/fedavg.html",
    "benchmarks.html",
]
RUN = """
<script src="/axe.js"></script>
<script>
addEventListener("load", () => setTimeout(() => axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const kept = found.violations.map(v => ({id: v.id, impact: v.impact, nodes: v.nodes.map(n => n.html.slice(0, 160))}));
  const root = document.documentElement;
  root.setAttribute("data-wide", Math.max(0, root.scrollWidth - innerWidth));
  root.setAttribute("data-scheme", document.body.getAttribute("data-md-color-scheme"));
  root.setAttribute("data-axe", JSON.stringify(kept));
}), 500));
</script>
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built by the Makefile's own command, with every line that the build printed."""
    pytest.importorskip("mkdocs")
    (command,) = re.findall(r"\$\(BIN\)/python (-m mkdocs build .*)", (ROOT / "Makefile").read_text())
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, *shlex.split(command), "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves the site, with axe in every page."""

    axe = ""
    spoil = ("", "")

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if self.path == "/axe.js":
            content = self.axe.encode()
        elif path.is_file():
            content = path.read_bytes()
        else:
            self.send_error(404)
            return
        if path.suffix == ".html":
            content = content.decode().replace(*self.spoil).replace("</body>", RUN + "</body>").encode()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.end_headers()
        self.wfile.write(content)


def judged(site, axe, folder, page, *, width, scheme, spoil=("\0", "")):
    """What axe finds on a page, by how much it is too wide, and in which scheme it was shown."""
    handler = functools.partial(type("Served", (Pages,), {"axe": axe, "spoil": spoil}), directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [
        BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1000",
        f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=30000", "--dump-dom",
        f"http://127.0.0.1:{server.server_address[1]}/{page}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, check=True, capture_output=True, timeout=300)
    finally:
        server.shutdown()
        server.server_close()
    found = dict(re.findall(r'data-(axe|wide|scheme)="([^"]*)"', done.stdout.decode().split(">", 2)[1]))
    assert "axe" in found, done.stderr.decode()[-1000:]
    return json.loads(html.unescape(found["axe"])), int(found["wide"]), found["scheme"]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    ("width", "scheme", "name"),
    [(360, 1, "default"), (1280, 0, "slate"), (1280, 1, "default"), (360, 0, "slate")],
)
def test_axe_finds_nothing_serious(site, axe, tmp_path, page, width, scheme, name):
    found, wide, shown = judged(site, axe, tmp_path, page, width=width, scheme=scheme)
    assert [one for one in found if one["impact"] in ("serious", "critical")] == []
    assert wide == 0
    assert shown == name


def test_axe_would_find_a_fault(site, axe, tmp_path):
    found, *_ = judged(
        site, axe, tmp_path, "index.html", width=1280, scheme=1, spoil=('<html lang="en"', "<html")
    )
    assert "html-has-lang" in {one["id"] for one in found}


def test_no_page_asks_another_host_for_anything(site):
    asked = set()
    for page in site.rglob("*.html"):
        text = page.read_text()
        asked |= set(re.findall(r'(?:src|srcset)="((?:https?:)?//[^"]*)"', text))
        asked |= set(re.findall(r'<link[^>]+href="((?:https?:)?//[^"]*)"', text))
    for style in [*site.rglob("*.css")]:
        asked |= set(re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]*)", style.read_text()))
    assert asked == set()
