"""Make all pictures of the documentation: `python -m docs.make.images [RUN_FOLDER]` after `make demo`.

`plan.png` is what `veilsum budget plan --plot` draws. `report.png` is a screenshot of the run's report, cut to its
first part, and needs a Chromium (Debian's package `chromium`). The experiments' plots come from their kept results,
with the page that shows them (`docs/make/experiments.py`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "images"
WIDTH, HEIGHT = 1000, 1500
PLAN = "--population 280 --cohort 70 --rounds 10 --max-participations 6 --delta 1e-5 --epsilon-readers 4"


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


def plan(target: Path) -> None:
    """Draw the plan of `docs/tutorials/budget.md`."""
    code = "from fedavg.cli import main; main()"
    command = [
        "budget",
        "plan",
        *PLAN.split(),
        "--epsilon-server",
        "10",
        "--parameters",
        "654",
        "--plot",
        str(target),
    ]
    subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True)


def main() -> None:
    """Take the run folder from the command line."""
    IMAGES.mkdir(exist_ok=True)
    plan(IMAGES / "plan.png")
    print(f"wrote {IMAGES / 'plan.png'}")
    subprocess.run([sys.executable, "-m", "docs.make.experiments"], check=True, cwd=IMAGES.parents[1])
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "veilsum-runs/demo")
    page = run / "public" / "report.html"
    if not page.is_file():
        sys.exit(f"{page} is missing; run `make demo` first, or name a run folder")
    screenshot(page, IMAGES / "report.png")
    print(f"wrote {IMAGES / 'report.png'}")


if __name__ == "__main__":
    main()
