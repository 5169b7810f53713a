"""Walks: read, typed, and written down."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.conftest import environment_of
from tests.acceptance.walks.terminal import SIGNALS, Typed
from tests.fake_openai import FakeOpenAI

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.walk"))
WIDE, NARROW = 120, 60

# What differs from run to run. Blanks before it go too, since they line it up.
MASKS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d([.,]\d+)?)?(\+00:00|Z)?", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DAY"),
    (r"(?<![\w.])(?=\w*\d)[0-9a-f]{12,64}\b", "HASH"),
    (r" *\b[\d,]+(\.\d+)? (reviews|rows)/s", r" N \2/s"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"\b\d+ kB", "N kB"),
    (r"(?<= in )[\d.]+ s: [\d,]+ tokens/s", "N s: N tokens/s"),
    (r"peak memory \d+ MiB", "peak memory N MiB"),
    (r"[\d.]+ ms a review", "N ms a review"),
    # Other processors round other sums: two digits of a figure are enough.
    (r"(?<![\d.$])([01]\.\d\d)(\d+)", lambda found: found[1] + "x" * len(found[2])),
    (r"\(\d+ threads?\)", "(N threads)"),
    # Of `doctor`, what depends on the host.
    (
        r"(?m)^(ok|warning) +(versions|database|redis|disk|descriptors|tokenizer|driver|device) .*"
        r"(\n {21}(why|do): .*)*",
        r"…       \2",
    ),
    # A worker that goes on with what another one left.
    (r"CPU: (has nothing to do|works on \d+ batch(es)?)", "CPU: N batches"),
    (r'("reviews_per_s":)[\d.]+', r"\1N"),
    (r"(pid|Worker|Child) \d+", r"\1 N"),
    # How many of them there are follows from how long it takes.
    (r"TIME (INFO Child N: .* in the last|INFO The sweeper found:|ERROR Batch) .*\n", ""),
    (r"\n  left     about .*", ""),
]


@dataclass
class Stage:
    """Where one person types: a folder, variables, what runs beside, and what the transcript says so far."""

    folder: Path
    variables: dict[str, str]
    said: list[str] = field(default_factory=list)
    beside: list[Typed] = field(default_factory=list)

    def masked(self, text: str) -> str:
        """Without what differs from run to run."""
        for path, name in ((self.variables["LORACLE_HOME"], "HOME"), (str(self.folder), "FOLDER")):
            text = text.replace(path, name)
        text = text.replace(socket.gethostname(), "HOST")
        for pattern, shown in MASKS:
            text = re.sub(pattern, shown, text)
        return text.rstrip()

    def see(self, typed: Typed) -> str:
        """What stands there when a command has ended."""
        text, code = typed.end()
        # Blanks behind a table's last column are seen by nobody.
        text = "\n".join(line.rstrip() for line in text.rstrip().split("\n"))
        return self.masked(text) + (f"\n[exit code {code}]" if code else "")

    def type(
        self, command: str, columns: int | None = WIDE, *, errors: bool = True, lines: int | None = None
    ) -> Typed:
        """Starts a command."""
        words = shlex.split(command)
        variables = dict(self.variables)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        assert words[0] == "loracle", command
        stdin = None
        if "<" in words:
            stdin = self.folder / words.pop()
            words.pop()
        return Typed(
            words[1:], variables, self.folder, columns=columns, stdin=stdin, errors=errors, lines=lines
        )


def walk(name: str, folder: Path, deeds: dict[str, Callable[..., str | None]]) -> str:
    """Types a walk in an empty folder, and gives its transcript."""
    folder = folder / "a folder"
    folder.mkdir()
    with FakeOpenAI() as oracle:
        variables = {
            **environment_of(folder / "her home"),
            "LANG": "C",
            "LORACLE_DEVICE": "cpu",
            # Where the processor has bf16, scores would be other ones.
            "LORACLE_DTYPE": "fp32",
            "OMP_NUM_THREADS": "1",
            "OPENAI_API_KEY": "fake",
            "OPENAI_BASE_URL": oracle.url,
            "TERM": "xterm-256color",
            "TZ": "UTC",
        }
        for unset in ("COLUMNS", "PYTHONUNBUFFERED", "LC_ALL", "LC_CTYPE", "NO_COLOR"):
            variables.pop(unset, None)
        stage = Stage(folder, variables)
        deeds[f"files of {name}"](stage)
        try:
            for step in _steps((HERE / f"{name}.walk").read_text(encoding="utf-8").splitlines()):
                _take(stage, step, deeds)
            assert not stage.beside, "a walk ends what runs beside"
        except BaseException as error:
            error.add_note("\n".join(stage.said[-30:]))
            raise
        finally:
            for typed in stage.beside:
                typed.kill(SIGNALS["^KILL"])
                typed.end()
    return "\n".join(stage.said) + "\n"


def _steps(lines: Sequence[str]) -> list[list[str]]:
    """Each line with those below it that belong to it."""
    steps: list[list[str]] = []
    for line in filter(str.strip, lines):
        if line.startswith(("> ", "^C at ")):
            steps[-1].append(line)
        else:
            steps.append([line])
    return steps


def _take(stage: Stage, step: list[str], deeds: dict[str, Callable[..., str | None]]) -> None:
    first, *keys = step
    kind, _, rest = first.partition(" ")
    stage.said.append("\n".join(["", *step] if kind == "#" else step))
    if kind == "#":
        return
    if rest.startswith("export "):
        name, _, value = shlex.split(rest)[1].partition("=")
        stage.variables[name] = value
    elif kind == "$":
        typed = stage.type(rest)
        for key in keys:
            answer = re.fullmatch(r'> (.*)|\^C at "(.*)"', key)
            assert answer, key
            if answer[1] is not None:
                typed.type(f"{answer[1]}\n", at="[y/N]: ")
            else:
                typed.type("\x03", at=answer[2])
        stage.said.append(stage.see(typed))
    elif kind == "?":
        wide, narrow, piped = (stage.see(stage.type(rest, columns)) for columns in (WIDE, NARROW, None))
        stage.said.append(wide)
        for place, seen in (("60 columns", narrow), ("in a pipe", piped)):
            if seen != wide:
                stage.said.append(f"--- {place}\n{seen}")
    elif kind == "|":
        rest, quiet, _ = rest.partition(" 2>/dev/null")
        rest, head, _ = rest.partition(" | head -1")
        stage.said.append(stage.see(stage.type(rest, None, errors=not quiet, lines=1 if head else None)))
    elif kind == "&":
        typed = stage.type(rest)
        stage.beside.append(typed)
        typed.wait_for(" is ready." if " worker" in rest else "Ctrl-C")
    elif kind == "^C" or kind in SIGNALS:
        typed = stage.beside.pop()
        if kind == "^C":
            typed.type("\x03", at="")
        else:
            typed.kill(SIGNALS[kind])
        stage.said.append(stage.see(typed))
    else:
        assert kind == "@", first
        stage.said.append(stage.masked(_by_hand(stage, rest, deeds) or ""))


def _by_hand(stage: Stage, deed: str, deeds: dict[str, Callable[..., str | None]]) -> str | None:
    for name, function in deeds.items():
        if deed == name or deed.startswith(f"{name} "):
            return function(stage, *deed[len(name) :].split())
    raise AssertionError(f"nobody knows how to {deed}")
