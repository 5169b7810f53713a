"""`make report-check`: a report in a real headless Chromium, as screenshots (light, dark, small) and as a PDF.

Asserts what only a browser knows: nothing is requested, no content is wider than a small screen, no hash is
broken letter by letter there, and the details' tables are on paper. The pictures lie in the folder that is
named, for people to look at.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.report_job import save_job
from worker.report.data import read_report
from worker.report.page import render
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries
from worker.store.schema import upgrade

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_S = 120

# In a frame of the width of a telephone; the outer page's title says how wide its content is, and in how many lines a
# hash is.
FRAME = """<!DOCTYPE html><title>?</title><iframe src="{page}" style="width:390px;height:900px;border:0"></iframe>
<script>onload = () => {{ const one = document.querySelector("iframe").contentDocument.documentElement;
const hashes = [...one.querySelectorAll("dd")].filter((found) => /^[0-9a-f]{{64}}$/.test(found.textContent));
const lines = hashes.map((found) => found.clientHeight / parseFloat(getComputedStyle(found).lineHeight));
document.title = `${{one.scrollWidth}} of ${{one.clientWidth}}, ${{Math.max(0, ...lines).toFixed()}}`; }}</script>"""


def main() -> int:
    """Exit code 0 if all is well or no browser is installed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the page and its pictures go")
    folder: Path = parser.parse_args().folder.resolve()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        _say(f"Skipped: none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium).")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    page = _make_page(folder)
    check = Check(browser, folder)
    check.screenshot(page, "light")
    check.screenshot(page, "dark", "--blink-settings=preferredColorScheme=0", "--force-dark-mode")
    check.screenshot(page, "small", width=500)
    check.pdf(page)
    check.width(page)
    for problem in check.problems:
        _say(f"Problem: {problem}")
    _say(f"Page, screenshots and PDF: {folder}")
    return 1 if check.problems else 0


class Check:
    """A browser at work in a folder; `problems` says what was wrong."""

    def __init__(self, browser: str, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        self.problems: list[str] = []

    def screenshot(self, page: Path, name: str, *options: str, width: int = 1280) -> None:
        """A picture of the whole page."""
        target = self.folder / f"{name}.png"
        self._run(
            *options,
            f"--window-size={width},14000",
            "--hide-scrollbars",
            f"--screenshot={target}",
            page.as_uri(),
        )
        if not target.exists() or target.stat().st_size < 20_000:
            self.problems.append(f"no picture {target.name}")

    def pdf(self, page: Path) -> None:
        """The page on paper: what is folded away on the screen is on it."""
        target = self.folder / "print.pdf"
        self._run("--no-pdf-header-footer", f"--print-to-pdf={target}", page.as_uri())
        if not target.exists():
            self.problems.append("no PDF")
        elif reader := shutil.which("pdftotext"):
            text = subprocess.run(
                [reader, "-layout", str(target), "-"],
                capture_output=True,
                text=True,
                check=True,
                timeout=TIMEOUT_S,
            ).stdout
            for wanted in (
                "Reviews by score and label",
                "Calibration, bin by bin",
                "Agreement by length, in brackets",
                "You can count, compare and sort by these labels",
            ):
                if wanted not in text:
                    self.problems.append(f"'{wanted}' isn't on paper")

    def width(self, page: Path) -> None:
        """Whether a telephone has to scroll sideways."""
        frame = self.folder / "frame.html"
        frame.write_text(FRAME.format(page=page.as_uri()), encoding="utf-8")
        shown = self._run(
            "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()
        )
        frame.unlink()
        title = shown.partition("<title>")[2].partition("</title>")[0]
        found = re.fullmatch(r"(\d+) of (\d+), (\d+)", title)
        if found is None or int(found[1]) > int(found[2]):
            self.problems.append(f"on a telephone the page is too wide ({title or 'unknown'} pixels)")
        elif not 1 <= int(found[3]) <= 3:
            self.problems.append(f"on a telephone a hash has {found[3]} lines")

    def _run(self, *options: str) -> str:
        with tempfile.TemporaryDirectory() as profile:
            done = subprocess.run(
                [
                    self.browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--no-first-run", "--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={profile}",
                    *options,
                ],
                capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
            )  # fmt: skip
        for line in done.stderr.splitlines():
            if "Content Security Policy" in line:
                self.problems.append(line)
        return done.stdout


def _make_page(folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as data:
        engine = make_engine(f"sqlite:///{data}/loracle.db")
        upgrade(engine)
        job_id = save_job(engine, Ledger(engine), 3000, rejects=["empty text"] * 3, failed=["refused"])
        html = render(read_report(Queries(engine), job_id))
        engine.dispose()
    page = folder / "report.html"
    page.write_text(html, encoding="utf-8")
    return page


def _say(message: str) -> None:
    print(message, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
