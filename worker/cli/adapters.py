"""`loracle adapters`, and how adapters are shown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from worker.bootstrap import (
    find_registered,
    load_directory,
    local_directory,
    restore_adapter,
)
from worker.cli.activation import may_activate
from worker.cli.common import (
    PIPE_WIDTH,
    backend_option,
    echo_json,
    json_option,
    minute,
    note,
    open_all,
    print_table,
)
from worker.desk.adapters import Listed, check_directory, list_adapters, outranked
from worker.desk.adapters import activate as make_active
from worker.desk.results import for_programs
from worker.errors import AdapterInvalid
from worker.files.options import languages_option
from worker.logs import log_to_stderr
from worker.model.encoding import Cleaning, Encoding, Truncation
from worker.model.manifest import Manifest
from worker.model.plain_peft import PlainAdapter, import_adapter
from worker.reviews import DTYPES
from worker.settings import Settings, read_settings


def print_adapters(listed: Sequence[Listed]) -> None:
    """A line per adapter; * marks the active one."""
    from rich.markup import escape

    # Without the base, which `show` has: with it they are too wide for many terminals.
    columns = ("", "id", "name", "sha256", "labels", "accuracy", "MB", "jobs", "added")
    rows = []
    for one in listed:
        measured = "-" if one.accuracy is None else f"{one.accuracy:.4f} {one.accuracy_on}"
        if one.accuracy_interval is not None:
            low, high = one.accuracy_interval
            measured = f"{one.accuracy:.4f} ({low:.4f}-{high:.4f}) {one.accuracy_on}"
        cells = (
            "*" if one.active else "",
            "-" if one.adapter_id is None else str(one.adapter_id),
            one.name,
            one.sha256[:12],
            "/".join(one.labels),
            measured,
            f"{one.size_bytes / 1e6:.1f}",
            f"{one.jobs:,}",
            "bundled" if one.added_at is None else minute(one.added_at),
        )
        rows.append([escape(cell) for cell in cells])
    print_table(columns, rows, width=PIPE_WIDTH)
    if sum(one.accuracy is not None for one in listed) > 1:
        note(
            "Each accuracy, with its 95 % interval, is of the data named beside it. Only the same file shows which "
            "adapter is better: `loracle evaluate ADAPTER FILE`."
        )


def print_manifest(manifest: Manifest, *, title: str, sha256: str) -> None:
    """What an adapter says of itself."""
    base, encoding = manifest.base, manifest.encoding
    revision = f" at {base.revision}" if base.revision else ""
    click.echo(f"{manifest.name} ({title})")
    for key, value in (
        ("sha256", sha256),
        ("base", f"{base.id}{revision}, weights {base.weights_sha256[:12]}"),
        ("labels", ", ".join(f"{number} {label}" for number, label in enumerate(manifest.labels))),
        ("encoding", f"{encoding.max_length} tokens, {encoding.truncation}, cleaning {encoding.cleaning}"),
        ("temperature", str(manifest.scaling)),
        ("made", manifest.created_at or "unknown"),
        ("files", ", ".join(sorted(manifest.files))),
        ("probes", f"{len(manifest.probes)} sentences"),
    ):
        click.echo(f"  {key:<12} {value}")
    for section, values in (("training", manifest.training), ("metrics", manifest.metrics)):
        click.echo(f"  {section:<12} {'' if values else 'none recorded'}".rstrip())
        for key, value in _flat(values):
            click.echo(f"    {key:<22} {value}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    # {"lora": {"r": 16}} as ("lora.r", "16").
    for key, value in sorted(values.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(str(one) for one in value)
        else:
            yield f"{prefix}{key}", str(value)


name_argument = click.argument("name", metavar="NAME|HASH|ID|DIR|bundled")
no_verify_option = click.option(
    "--no-verify",
    is_flag=True,
    help="Check files and hashes only; for a host that lacks the base model.",
)


@click.group()
def adapters() -> None:
    """List, check and choose the adapters of new jobs.

    A job pins its adapter when it is enqueued: --adapter, else LORACLE_ADAPTER, else the active one, else the one
    that comes with Loracle. The database carries it to every host. A host's disk is only a cache: if a byte changes
    there, the worker notices it and restores the file. A worker needs no restart for a new adapter; it keeps the last
    few in memory.

    \b
    Example:
      loracle adapters list
    """


@adapters.command("list", short_help="List the adapters in the database.")
@json_option
def list_command(as_json: bool) -> None:
    """List the adapters in the database, newest first; * marks the one that new jobs use.

    \b
    Example:
      loracle adapters list
    """
    settings, store = open_all()
    activation = store.queries.adapters.activation()
    active = activation.adapter_id if activation is not None else None
    found = list(list_adapters(store, active))
    if as_json:
        for one in found:
            echo_json(for_programs(one))
        return
    print_adapters(found)
    if activation is not None:
        chosen = "the bundled adapter" if active is None else f"adapter {active}"
        note(f"New jobs use {chosen} since {minute(activation.activated_at)}.")
    _say_outranked(settings)


@adapters.command(short_help="Show what an adapter says of itself.")
@name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what an adapter says of itself: base, labels, encoding, training, metrics. --json is its manifest.

    \b
    Example:
      loracle adapters show bundled
    """
    _, store = open_all()
    directory = local_directory(name)
    if directory is not None:
        manifest = Manifest.read(directory)
        title, sha256 = str(directory), manifest.sha256
    else:
        row = find_registered(store, name)
        if row.is_stub:
            raise AdapterInvalid(
                "the stub has no manifest: it gives labels without a model, for tests and drills."
            )
        manifest = Manifest.from_json(json.dumps(row.manifest))
        title, sha256 = f"adapter {row.id}", row.sha256
    if as_json:
        click.echo(manifest.to_json(), nl=False)
    else:
        print_manifest(manifest, title=title, sha256=sha256)


@adapters.command(short_help="Load an adapter with every check a worker makes.")
@name_argument
@click.option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 … (else LORACLE_DEVICE).")
@click.option("--dtype", type=click.Choice(DTYPES), help="Number format (else LORACLE_DTYPE).")
@backend_option
@json_option
def verify(name: str, device: str | None, dtype: str | None, backend: str | None, as_json: bool) -> None:
    """Load an adapter as a worker would: files, base, head and probes. Exit code 2 if it must not score.

    An adapter from the database is first copied into the cache. Changed files in the cache are replaced.

    \b
    Example:
      loracle adapters verify bundled
    """
    settings, store = open_all()
    named = {"device": device, "dtype": dtype, "backend": backend}
    chosen = {key: value for key, value in named.items() if value is not None}
    directory = local_directory(name)
    if directory is None:
        directory = restore_adapter(store, settings, find_registered(store, name).id)
    scorer = load_directory(directory, settings.model_copy(update=chosen))
    manifest = Manifest.read(directory)
    if as_json:
        said = {"name": manifest.name, "directory": str(directory), "sound": True}
        echo_json({**said, **scorer.identity.details})
        return
    from worker.model.probes import LOGIT_TOLERANCE, PROBABILITY_TOLERANCE

    where = scorer.computed_by
    click.echo(f"Adapter '{manifest.name}' {manifest.sha256[:12]} is sound in {where}.")
    click.echo(f"  files   {len(manifest.files)}, each with the sha256 in its manifest: {directory}")
    click.echo(f"  base    {manifest.base.id}, weights {manifest.base.weights_sha256[:12]}")
    click.echo(f"  head    {'/'.join(manifest.labels)}")
    click.echo(
        f"  probes  {len(manifest.probes)}: logits in fp32 before the merge within {LOGIT_TOLERANCE:g}, "
        f"probabilities after merge and cast within {PROBABILITY_TOLERANCE:g}"
    )


@adapters.command(short_help="Put an adapter into the database.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--activate", "activated", is_flag=True, help="New jobs use it from now on.")
@no_verify_option
@json_option
def add(directory: Path, activated: bool, no_verify: bool, as_json: bool) -> None:
    """Verify the adapter in DIRECTORY and put it into the database, from where every host has it.

    Its name is the one it was trained with. The same adapter added twice is one.

    \b
    Example:
      loracle adapters add my-adapter --activate
    """
    settings, store = open_all()
    check_directory(directory, settings, verify=not no_verify)
    known = {row.id for row in store.queries.adapters.all()}
    row = store.queries.adapters.get(store.ledger.adapters.register(directory))
    activated = activated and may_activate(store, row.manifest.get("metrics", {}))
    if activated:
        store.ledger.adapters.activate(row.id)
    if as_json:
        echo_json(
            {
                "adapter_id": row.id,
                "name": row.name,
                "sha256": row.sha256,
                "new": row.id not in known,
                "activated": activated,
            }
        )
        return
    already = " was in the database already" if row.id in known else " added"
    click.echo(f"Adapter {row.id} '{row.name}' {row.sha256[:12]}{already}.")
    if activated:
        click.echo("New jobs use it; jobs that exist keep theirs.")
        _say_outranked(settings)


@adapters.command("import", short_help="Make a plain PEFT adapter one of Loracle's.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--labels", metavar="A,B", help="Its labels, in the order of the numbers it was trained with.")
@click.option("--max-length", type=click.IntRange(min=8), help="Tokens of a review it was trained with.")
@click.option(
    "--truncation",
    type=click.Choice(get_args(Truncation)),
    default="head",
    show_default=True,
    help="Which tokens of a longer review.",
)
@click.option(
    "--cleaning",
    type=click.Choice(get_args(Cleaning)),
    default="none",
    show_default=True,
    help="What is taken out of texts.",
)
@languages_option("Of the texts it was trained on; without, files aren't checked for others.")
@click.option("--base", metavar="NAME|DIR", help="Its base model (else as its configuration says).")
@click.option("--name", help="Name of the adapter.  [default: the directory's]")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="New directory.  [default: DIRECTORY-loracle, here]"
)
def import_command(
    directory: Path,
    labels: str | None,
    max_length: int | None,
    truncation: Truncation,
    cleaning: Cleaning,
    languages: tuple[str, ...] | None,
    base: str | None,
    name: str | None,
    out: Path | None,
) -> None:
    """Make a plain PEFT adapter (LoRA, SEQ_CLS, safetensors) one of Loracle's: a copy with manifest and probes.

    DIRECTORY holds adapter_config.json and adapter_model.safetensors, and stays as it is. What its files don't say
    is asked for: the labels, and the length that its reviews were cut to. Reviews are encoded as transformers'
    tokenizers do it by themselves (the first tokens, nothing cleaned) unless --truncation or --cleaning says
    otherwise. It has no temperature: `loracle evaluate OUT FILE --fit-temperature` fits one.

    \b
    Example:
      loracle adapters import plain --out imported --labels negative,positive --max-length 256
    """
    settings = read_settings()
    log_to_stderr(settings.log_level, settings.log_format)
    plain = PlainAdapter.read(directory)
    if max_length is None:
        raise AdapterInvalid(
            f"{directory} doesn't say how many tokens of a review it was trained with. Say it with --max-length, "
            "for example --max-length 256."
        )
    whole = directory.resolve().name
    out = out or Path(f"{whole}-loracle")
    manifest = import_adapter(
        plain,
        out,
        name=name or whole,
        labels=[one.strip() for one in labels.split(",")] if labels else (),
        encoding=Encoding(max_length, truncation, cleaning),
        base_id=base or settings.base_model,
        languages=languages or (),
    )
    if not labels:
        note(f"labels: {', '.join(manifest.labels)} (from the base's configuration; --labels says otherwise)")
    print_manifest(manifest, title=str(out), sha256=manifest.sha256)
    note(f"Score with it: loracle run FILE --adapter {out}")


@adapters.command(short_help="Let new jobs use an adapter.")
@name_argument
@no_verify_option
@json_option
def activate(name: str, no_verify: bool, as_json: bool) -> None:
    """Verify an adapter and let new jobs use it, whichever host enqueues them.

    --adapter and LORACLE_ADAPTER count before it. Running workers load it with its first batch. Existing jobs keep
    their adapter. `bundled` goes back to the adapter that comes with Loracle.

    \b
    Example:
      loracle adapters activate bundled
    """
    settings, store = open_all()
    done = make_active(
        store, settings, name, verify=not no_verify, agreed=lambda metrics: may_activate(store, metrics)
    )
    if done is None:
        note("New jobs use the adapter they used before.")
        return
    if as_json:
        echo_json(dataclasses.asdict(done))
        return
    click.echo(str(done))
    _say_outranked(settings)


def _say_outranked(settings: Settings) -> None:
    if (said := outranked(settings)) is not None:
        note(said)
