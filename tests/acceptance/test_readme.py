"""Every command in the code blocks of the README, then of the reference, in one data directory, on small files.

A new command runs here by itself. What can't run as it stands is in `INSTEAD`, with what is run in its place.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import re
import shlex
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance import forked
from tests.acceptance.conftest import left_behind
from tests.fake_openai import FakeOpenAI
from tests.unit import models

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", ".github/REFERENCE.md", ".github/CONTRIBUTING.md", "docker/README.md")
}
TYPED = PAGES["README.md"] + PAGES[".github/REFERENCE.md"]
LIMIT_S = 600
TINY = "--base tiny --max-length 32 --token-budget 512 --epochs 1 --dtype fp32"

INSTEAD = {
    # Another database begins with job 1 again; no server is needed to see that the commands work.
    "export DATABASE_URL=postgresql://loracle:secret@db/loracle": "export LORACLE_HOME=servers",
    "export REDIS_URL=rediss://:secret@redis:6379/0": "",
    "tail -f reviews.txt | loracle enqueue -": "cat reviews.txt | loracle enqueue -",
    "export OPENAI_API_KEY=…": "export OPENAI_API_KEY=fake OPENAI_BASE_URL=$FAKE",
    # Here these are the fifth and the sixth.
    "loracle results JOB --to sqlite:///shop.db --table labels": (
        "loracle results 5 --to sqlite:///shop.db --table labels"
    ),
    "loracle results JOB --with-text --all-rows -o shop-labels.xlsx": (
        "loracle results 6 --with-text --all-rows -o shop-labels.xlsx"
    ),
    # The corrections are a person's part.
    "loracle review 2 --import work.csv --author ann": (
        "fill in work.csv; loracle review 2 --import work.csv --author ann"
    ),
    # A tiny random base, an epoch: nothing is downloaded, nothing takes minutes.
    "loracle train corrected.parquet --label-column gold_label --out better": (
        f"loracle train corrected.parquet --label-column gold_label --out better {TINY}"
    ),
    "loracle train reviews.csv --out my-adapter": f"loracle train reviews.csv --out my-adapter {TINY}",
    "loracle train imdb/train.parquet --test imdb/test.parquet --out imdb-adapter": (
        f"loracle train imdb/train.parquet --test imdb/test.parquet --out imdb-adapter {TINY}"
    ),
    "loracle train --recipe imdb-distilroberta --out article": (
        f"loracle train imdb/train.parquet --recipe imdb-distilroberta --out article {TINY}"
    ),
    # The neural contenders have tests of their own.
    "loracle compare train.csv --test test.csv --quick": (
        "loracle compare train.csv --test test.csv --quick --contenders tfidf"
    ),
    # Two trainings: it has a test of its own.
    "loracle distill reviews.csv --out my-own --answers 2000 --max-cost 5": "loracle distill --help",
    # They need each other; `loracle web` and its API have tests of their own.
    "loracle web": "",
    "curl -F file=@reviews.csv -F policy=adapter http://127.0.0.1:8765/api/jobs": "",
    'curl "http://127.0.0.1:8765/api/jobs/1/results?label=negative&with_text=true"': "",
    "curl -H 'Content-Type: application/json' -d '{\"inputs\": \"Not bad at all.\"}' "
    "http://127.0.0.1:8765/predict": "",
    'curl -H \'Content-Type: application/json\' -d \'{"corrections": [{"row_no": 1, "label": "negative"}]}\' '
    "http://127.0.0.1:8765/api/jobs/1/corrections": "",
    # They make an environment and take minutes: that they are there and hang together is what is seen.
    "make demo": "make --dry-run demo",
    "make test": "make --dry-run test",
}


def blocks(language: str) -> list[list[str]]:
    """The lines of each code block, without comments."""
    found = re.findall(rf"^```{language}\n(.*?)^```", TYPED, re.MULTILINE | re.DOTALL)
    return [[line for line in map(_bare, block.splitlines()) if line] for block in found]


def _bare(line: str) -> str:
    # A comment begins at a # outside quotes.
    return re.sub(r"""^((?:[^#"']|"[^"]*"|'[^']*')*)#.*""", r"\1", line).strip()


class Terminal:
    """One shell: its folder, its variables, and the workers that still run in it."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder, self.variables = folder, variables
        self.workers: list[tuple[str, ForkServerProcess, Path]] = []
        self._count = 0

    def run(self, line: str) -> None:
        """Types a line; what fails is named."""
        for command in line.split("; "):
            if command == "fill in work.csv":
                fill_in(self.folder / "work.csv")
            elif command.startswith("export "):
                for pair in shlex.split(command)[1:]:
                    name, _, value = pair.partition("=")
                    self.variables[name] = os.path.expandvars(value).replace("$FAKE", self.variables["FAKE"])
            elif command.startswith("make --dry-run "):
                done = subprocess.run(
                    command.split(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S
                )
                assert done.returncode == 0, f"{command}\n{done.stderr}"
            elif match := re.fullmatch(r"(?:cat (\S+) \| )?loracle (.+)", command):
                self._loracle(command, shlex.split(match[2]), self.folder / match[1] if match[1] else None)
            else:
                assert not command, f"a page has a command that this test can't type: {command}"

    def _loracle(self, command: str, arguments: list[str], stdin: Path | None) -> None:
        self._count += 1
        out = self.folder / f"said-{self._count}.txt"
        process = forked.start(arguments, self.variables, self.folder, stdin=stdin, stdout=out, stderr=out)
        if arguments[0] == "worker":
            self.workers.append((command, process, out))
            deadline = time.monotonic() + LIMIT_S
            while " is ready." not in out.read_text():
                assert process.is_alive(), f"{command} ended:\n{out.read_text()}"
                assert time.monotonic() < deadline, f"{command} isn't ready:\n{out.read_text()}"
                time.sleep(0.05)
            return
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()
        assert process.exitcode == 0, f"{command} -> {process.exitcode}\n{out.read_text()}"

    def stop_workers(self) -> None:
        """As Ctrl-C and the closing of the terminal do."""
        for command, process, out in self.workers:
            process.terminate()
            process.join(LIMIT_S)
            assert process.exitcode == 0, f"{command} -> {process.exitcode}\n{out.read_text()}"
        self.workers.clear()


def fill_in(path: Path) -> None:
    """Half of the listed reviews are negative, half positive, says a person."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["correction"] = models.LABELS[number % 2]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_files(folder: Path) -> None:
    """The files that the README names, small."""
    (folder / "imdb").mkdir()
    names = "reviews.csv november.csv a.csv train.csv test.csv b.jsonl.gz reviews.txt other.parquet"
    for seed, name in enumerate([*names.split(), "imdb/train.parquet", "imdb/test.parquet"]):
        texts, gold = models.make_reviews(40, seed=seed)
        if name.endswith(".csv"):
            with (folder / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("text", "label"), *zip(texts, gold, strict=True)])
        elif name.endswith(".parquet"):
            pq.write_table(pa.table({"text": texts, "label": gold}), folder / name)
        elif name.endswith(".gz"):
            with gzip.open(folder / name, "wt", encoding="utf-8") as file:
                file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        else:
            (folder / name).write_text("\n".join(texts) + "\n", encoding="utf-8")
    with (folder / "shop.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(text, 1 + place % 5, "2026-11-01") for place, text in enumerate(models.make_reviews(40)[0])]
        csv.writer(file).writerows([("text", "Stars", "Date"), *rows])
    with contextlib.closing(sqlite3.connect(folder / "shop.db")) as shop:
        shop.execute("CREATE TABLE reviews (id INTEGER, body TEXT)")
        shop.executemany("INSERT INTO reviews VALUES (?, ?)", enumerate(models.make_reviews(40)[0]))
        shop.commit()
    models.make_base(folder / "tiny")


@pytest.fixture
def terminal(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    write_files(tmp_path)
    # Threads that wait for each other by spinning would cost more than the tiny models do.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with FakeOpenAI() as server:
        opened = Terminal(tmp_path, {**environment, "FAKE": server.url, "OMP_NUM_THREADS": "1"})
        try:
            yield opened
        finally:
            for _, process, _ in opened.workers:
                process.kill()


def test_what_people_ask_is_answered_by_commands_that_are_tried() -> None:
    answers = TYPED[TYPED.index("## People ask") :].split("\n## ")[0]
    tried = {line for block in blocks("sh") for line in block}
    commands = re.findall(r"`(loracle [^`]+)`", answers)
    assert len(commands) > 8
    assert not [command for command in commands if command not in tried]


def _anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(name: str) -> None:
    links = re.findall(r'\]\(([^)]+)\)|src="([^"]+)"', PAGES[name])
    for link in filter(None, (one or other for one, other in links)):
        path, _, anchor = link.partition("#")
        target = ROOT / name if not path else (ROOT / name).parent / path
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.timeout(900)
def test_every_command_of_the_readme_works_in_its_order(terminal: Terminal) -> None:
    home = terminal.variables["LORACLE_HOME"]
    replaced = set()
    for block in blocks("sh"):
        for line in block:
            if line in INSTEAD:
                replaced.add(line)
            terminal.run(INSTEAD.get(line, line))
        terminal.stop_workers()
        terminal.variables["LORACLE_HOME"] = home
        if any(line.startswith("loracle run") for line in block):
            # The first job is the bundled adapter's; what follows needs labels, not good ones.
            terminal.variables["LORACLE_ADAPTER"] = "stub"
    assert replaced == set(INSTEAD), "these aren't on the pages any more"
    with contextlib.closing(sqlite3.connect(Path(home) / "loracle.db")) as database:
        for block in blocks("sql"):
            for statement in "\n".join(block).split(";"):
                assert not statement.strip() or database.execute(statement).fetchall(), statement
    assert left_behind(Path(home)) == []
