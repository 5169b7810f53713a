"""The options that say how a review file is read: the same ones in every command that reads one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from worker.errors import OptionInvalid
from worker.files.records import FORMATS, QUOTES, ReadOptions
from worker.model.manifest import is_language

Command = Callable[..., Any]

LABELS = "Which label a value means: 1=negative,2=positive or 1-2=negative,4-5=positive; else left out."


def _comma_list(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for part in value for name in part.split(",") if name.strip())


def _columns(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    return () if value is None else tuple(name.strip() for name in value.split(","))


_COLUMNS = [
    click.option(
        "--text-column",
        metavar="NAME",
        help="Column of the texts (else guessed); title,body joins two.",
    ),
    click.option("--label-column", metavar="NAME", help="Column of gold labels (else guessed)."),
]
_OPTIONS = [
    click.option("--id-column", metavar="NAME", help="Column of your own ids, back in every result."),
    click.option(
        "--keep-columns",
        metavar="A,B|all",
        multiple=True,
        callback=_comma_list,
        help="Columns to carry along; all: every one that has no other use (a column named all comes first).",
    ),
    click.option(
        "--keep-markers", is_flag=True, help="nan, NULL, N/A and the like are texts, not missing values."
    ),
    click.option("--format", "format_", type=click.Choice(FORMATS), help="What the file is (else guessed)."),
    click.option("--no-header", is_flag=True, help="The first line is a record; columns are 1, 2, …"),
    click.option(
        "--columns",
        metavar="A,B",
        callback=_columns,
        help="The names of all columns of a file without a header.",
    ),
    click.option(
        "--delimiter",
        metavar="CHAR",
        help="Of csv: tab, comma, semicolon, pipe or a character (else guessed).",
    ),
    click.option(
        "--quote",
        type=click.Choice(QUOTES),
        help='A quote in a quoted cell is "" or \\", or quotes are characters (else guessed).',
    ),
    click.option(
        "--skip-lines",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Lines to leave out first.",
    ),
    click.option("--sheet", metavar="NAME|N", help="Of a workbook: its name or number (else the first)."),
    click.option("--encoding", default="utf-8", show_default=True, help="Of text files."),
]


NAMES = (
    "text_column", "label_column", "labels", "id_column", "keep_columns", "keep_markers", "format_", "no_header",
    "columns", "delimiter", "quote", "skip_lines", "sheet", "encoding",
)  # fmt: skip


def file_options(command: Command, *, labels: str = LABELS) -> Command:
    """Adds the options that say how files are read; `labels` is the help of --labels."""
    meanings = click.option("--labels", metavar="VALUE=LABEL,…", help=labels)
    for option in reversed([*_COLUMNS, meanings, *_OPTIONS]):
        command = option(command)
    return command


def read_options(values: Mapping[str, Any], **more: Any) -> ReadOptions:
    """The options as one value.

    Raises:
        OptionInvalid: a value that no file can be read with.
    """
    named = {name.removesuffix("_"): values[name] for name in NAMES}
    return ReadOptions(**named, **more)


def languages_option(help_: str) -> Callable[[Command], Command]:
    """The option that says which languages an adapter's texts are in."""
    return click.option("--languages", metavar="en,de", callback=_languages, help=help_)


def _languages(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    codes = tuple(dict.fromkeys(code.strip().lower() for code in value.split(",")))
    for code in codes:
        if not is_language(code):
            raise OptionInvalid(f"--languages {value}: {code!r} is no code of two letters, such as en or de.")
    return codes
