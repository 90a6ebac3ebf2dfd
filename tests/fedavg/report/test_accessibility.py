"""The page in a real browser, judged by axe: no serious finding in light, in the dark, or as wide as a phone.

Needs a Chromium and axe-core, which npm fetches; where one of them is missing, the test says so and is skipped.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from fedavg.report import page
from tests.fedavg.report.pages import BROWSER, FLAGS, audited, finished

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

AXE = "axe-core@4.10.3"
RUN = """
<script>%s</script>
<script>
axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const kept = found.violations.map(v => ({id: v.id, impact: v.impact, nodes: v.nodes.map(n => n.html.slice(0, 200))}));
  document.documentElement.setAttribute("data-axe", JSON.stringify({violations: kept, passes: found.passes.length}));
});
</script>
"""


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The source of axe-core."""
    if BROWSER is None:
        pytest.skip("no chromium is installed, so no page is judged")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, so axe-core cannot be fetched")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), AXE]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    if done.returncode or not source.exists():
        pytest.skip("npm could not fetch axe-core, so no page is judged")
    return source.read_text("utf-8")


def judged(text, axe, folder, *, width, scheme):
    """What axe finds; the page's own ban on scripts is lifted for axe alone."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    target = folder / "page.html"
    target.write_text(text.replace("</body>", RUN % axe + "</body>"), encoding="utf-8")
    command = [
        BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1400",
        f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=20000", "--dump-dom", target.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, timeout=180)
    found = re.search(r'data-axe="([^"]*)"', done.stdout.decode())
    assert found, done.stderr.decode()[-1000:]
    return json.loads(html.unescape(found.group(1)))["violations"]


@pytest.mark.parametrize(("width", "scheme"), [(1000, 1), (1000, 0), (500, 1)])
def test_axe_finds_nothing_serious(axe, tmp_path, width, scheme):
    view = replace(audited(finished()), example_level="DP-SGD over 200 examples.\n" * 30)
    found = judged(page.render(view), axe, tmp_path, width=width, scheme=scheme)
    assert [one for one in found if one["impact"] in ("serious", "critical")] == []


def test_axe_would_find_a_fault(axe, tmp_path):
    """The same page without its language and with pale words has serious findings."""
    text = page.render(finished()).replace('<html lang="en">', "<html>")
    text = text.replace("--muted: #5b6470", "--muted: #d0d0d0")
    found = {one["id"] for one in judged(text, axe, tmp_path, width=1000, scheme=1)}
    assert {"html-has-lang", "color-contrast"} <= found
