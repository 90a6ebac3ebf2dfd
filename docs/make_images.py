"""Make the pictures of the README and the docs: `python docs/make_images.py RUN_FOLDER` after `make demo`.

Needs a Chromium (Debian's package `chromium`). The picture is a screenshot of the run's report, cut to its first part.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH, HEIGHT = 1000, 1500


def screenshot(page: Path, target: Path) -> None:
    """Render a local page headless and keep its first screen."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("no chromium was found; install it (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={WIDTH},{HEIGHT}",
                f"--screenshot={target}",
                page.absolute().as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def main() -> None:
    """Take the run folder from the command line."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "veilsum-runs/demo")
    page = run / "public" / "report.html"
    if not page.is_file():
        sys.exit(f"{page} is missing; run `make demo` first, or name a run folder")
    target = Path(__file__).parent / "images" / "report.png"
    target.parent.mkdir(exist_ok=True)
    screenshot(page, target)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
