"""`python -m tests.pictures .github`: the README's pictures. Both show the sample file, really scored.

terminal.svg is what the commands print on a terminal; page.png is the job's live page in a headless Chromium.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from tests.acceptance.test_walk import browser_path, running

COMMANDS = ("run worker/data/sample_reviews.csv", "status 1", "results 1 --limit 5")


def _typed(command: str, environment: dict[str, str]) -> str:
    """What stays on a terminal after the command: progress is written over itself, and a log line over progress."""
    script = ["script", "--quiet", "--return", "--command", command, "/dev/null"]
    done = subprocess.run(script, env=environment, stdout=subprocess.PIPE, check=True)
    lines: list[str] = []
    for line in done.stdout.decode().replace("\r\n", "\n").split("\n"):
        shown = line.split("\r")[-1]
        del lines[len(lines) - shown.count("\x1b[1A") :]
        lines.append(re.sub(r"\x1b\[(\?\d+[hl]|\d*[A-K])", "", shown))
    return "\n".join(lines)


def _main(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="loracle-") as home, sync_playwright() as playwright:
        environment = {**os.environ, "LORACLE_HOME": home, "COLUMNS": "100", "TERM": "xterm-256color"}
        console = Console(record=True, width=100, file=io.StringIO())
        for command in COMMANDS:
            console.print(f"[bold green]$[/] [bold]loracle {command}[/]", highlight=False)
            console.print(Text.from_ansi(_typed(f"loracle {command}", environment)))
        # A picture loads no font from the network.
        drawn = re.sub(r"@font-face \{[^}]*\}\s*|Fira Code, ", "", console.export_svg(title=""))
        (folder / "terminal.svg").write_text(drawn, encoding="utf-8")
        with running(environment, "web", "--port", "0") as web:
            assert web.stderr is not None
            address = re.findall(r"Open (http://[^/]+)/", web.stderr.readline())[0]
            browser = playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 1000}, color_scheme="light")
            page.goto(f"{address}/jobs/1")
            page.wait_for_selector("figure")
            page.screenshot(path=folder / "page.png")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
