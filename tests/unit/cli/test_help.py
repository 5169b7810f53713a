"""Every command's help ends with an example that the command takes, and shells complete what there is."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from worker.cli import COMMANDS, cli
from worker.cli.completion import SHELLS, VARIABLE


def commands() -> Iterator[tuple[str, click.Command]]:
    """All commands by how they are typed, those of groups too."""
    waiting: list[tuple[str, click.Command]] = []
    for name, (place, _) in COMMANDS.items():
        module, attribute = place.split(":")
        waiting.append((name, getattr(import_module(module), attribute)))
    while waiting:
        path, command = waiting.pop(0)
        yield path, command
        if isinstance(command, click.Group):
            waiting += [(f"{path} {name}", one) for name, one in command.commands.items()]


def test_help_ends_with_an_example_that_the_command_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reviews.csv").write_text("text,label\nfine,positive\n")
    for folder in ("my-adapter", "plain"):
        Path(folder).mkdir()
    for path, command in commands():
        # Behind it stand the options.
        shown = CliRunner().invoke(cli, [*path.split(), "--help"], prog_name="loracle").output
        *_, title, example = [line.strip() for line in (command.help or "").splitlines() if line.strip()]
        assert title == "Example:", path
        assert f"Example:\n    {example}\n" in shown, path
        words = shlex.split(example)
        assert [*words[: 1 + len(path.split())]] == ["loracle", *path.split()], example
        # Parsed as a whole, with every check of the types, and not run.
        current: click.Command = cli
        words = words[1:]
        while isinstance(current, click.Group):
            assert words, f"{example}: the example of a group names one of its commands"
            found = current.get_command(click.Context(current), words.pop(0))
            assert found is not None, example
            current = found
        with current.make_context(current.name, words):
            pass


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell_is_one_that_it_reads(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell], prog_name="loracle")
    assert done.exit_code == 0
    assert VARIABLE in done.output
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=done.output, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_commands_are_completed_without_importing_them() -> None:
    code = (
        "import sys; from worker.cli import main\ntry: main()\nfinally:\n"
        " assert not {'sqlalchemy', 'torch', 'pydantic'} & set(sys.modules)"
    )
    asked = {**os.environ, VARIABLE: "bash_complete", "COMP_WORDS": "loracle pu", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("plain,purge\n", "")


def test_distill_says_whose_labels_its_option_names() -> None:
    for command, whose in (("distill", "that the oracle gives"), ("run", "Which label a value means")):
        shown = CliRunner().invoke(cli, [command, "--help"], prog_name="loracle").output
        assert whose in " ".join(shown.split())
