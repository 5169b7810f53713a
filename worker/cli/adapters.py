"""`loracle adapters`: which there are, what they say, whether they are sound, and which one new jobs use."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from worker.bootstrap import BUNDLED_NAME, find_registered, load_directory, local_directory, restore_adapter
from worker.cli.adapter_views import list_adapters, minute, print_manifest, print_table
from worker.cli.common import echo_json, json_option, note, open_all
from worker.errors import AdapterInvalid
from worker.model.manifest import BUNDLED, Manifest
from worker.model.preflight import check_adapter
from worker.settings import Settings

DTYPES = ("auto", "bf16", "fp16", "fp32")

name_argument = click.argument("name", metavar="NAME|HASH|ID|DIR|bundled")
no_verify_option = click.option(
    "--no-verify",
    is_flag=True,
    help="Check files and hashes only; for a host that lacks the base model.",
)


@click.group()
def adapters() -> None:
    """List, check and choose the adapters of new jobs."""


@adapters.command("list", short_help="List the adapters in the database.")
@json_option
def list_command(as_json: bool) -> None:
    """List the adapters in the database, newest first; * marks the one that new jobs use."""
    settings, store = open_all()
    activation = store.queries.activation()
    active = activation.adapter_id if activation is not None else None
    found = list(list_adapters(store, active))
    if as_json:
        for one in found:
            echo_json(dataclasses.asdict(one))
        return
    print_table(found)
    if activation is not None:
        chosen = "the bundled adapter" if active is None else f"adapter {active}"
        note(f"New jobs use {chosen} since {minute(activation.activated_at)}.")
    _say_outranked(settings)


@adapters.command(short_help="Show what an adapter says of itself.")
@name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what an adapter says of itself: base, labels, encoding, training, metrics. --json is its manifest."""
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
@json_option
def verify(name: str, device: str | None, dtype: str | None, as_json: bool) -> None:
    """Load an adapter as a worker would: files, base, head and probes. Exit code 2 if it must not score.

    One from the database is restored into the cache first, anew where its files there were changed.
    """
    settings, store = open_all()
    chosen = {key: value for key, value in (("device", device), ("dtype", dtype)) if value is not None}
    directory = local_directory(name)
    if directory is None:
        directory = restore_adapter(store, settings, find_registered(store, name).id)
    details = _load(directory, settings.model_copy(update=chosen))
    manifest = Manifest.read(directory)
    if as_json:
        echo_json({"name": manifest.name, "directory": str(directory), "sound": True, **details})
        return
    from worker.model.classifier import PROBE_LOGIT_TOLERANCE, PROBE_PROBABILITY_TOLERANCE

    where = f"{details['dtype']} on {details['device']}"
    click.echo(f"Adapter '{manifest.name}' {manifest.sha256[:12]} is sound in {where}.")
    click.echo(f"  files   {len(manifest.files)}, each with the sha256 in its manifest: {directory}")
    click.echo(f"  base    {manifest.base.id}, weights {manifest.base.weights_sha256[:12]}")
    click.echo(f"  head    {'/'.join(manifest.labels)}")
    click.echo(
        f"  probes  {len(manifest.probes)}: logits in fp32 before the merge within {PROBE_LOGIT_TOLERANCE:g}, "
        f"probabilities in {where} after merge and cast within {PROBE_PROBABILITY_TOLERANCE:g}"
    )


@adapters.command(short_help="Put an adapter into the database.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--activate", "activated", is_flag=True, help="New jobs use it from now on.")
@no_verify_option
@json_option
def add(directory: Path, activated: bool, no_verify: bool, as_json: bool) -> None:
    """Verify the adapter in DIRECTORY and put it into the database, from where every host has it.

    Its name is the one it was trained with. The same adapter added twice is one.
    """
    settings, store = open_all()
    _check(directory, settings, no_verify=no_verify)
    known = {row.id for row in store.queries.adapters()}
    row = store.queries.adapter(store.ledger.register_adapter(directory))
    if activated:
        store.ledger.activate_adapter(row.id)
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


@adapters.command(short_help="Let new jobs use an adapter.")
@name_argument
@no_verify_option
@json_option
def activate(name: str, no_verify: bool, as_json: bool) -> None:
    """Verify an adapter and let new jobs use it, whichever host enqueues them.

    --adapter and LORACLE_ADAPTER outrank it. Running workers load it with its first batch; jobs that exist keep
    theirs. `bundled` goes back to the adapter that comes with Loracle.
    """
    settings, store = open_all()
    adapter_id: int | None = None
    if name == BUNDLED_NAME:
        manifest = Manifest.read(BUNDLED)
        chosen, sha256 = manifest.name, manifest.sha256
    else:
        directory = local_directory(name)
        if directory is not None:
            _check(directory, settings, no_verify=no_verify)
            row = store.queries.adapter(store.ledger.register_adapter(directory))
        else:
            row = find_registered(store, name)
            if not no_verify and not row.is_stub:
                _load(restore_adapter(store, settings, row.id), settings)
        adapter_id, chosen, sha256 = row.id, row.name, row.sha256
    changed = store.ledger.activate_adapter(adapter_id)
    if as_json:
        echo_json({"adapter_id": adapter_id, "name": chosen, "sha256": sha256, "changed": changed})
        return
    which = "the bundled adapter" if adapter_id is None else f"adapter {adapter_id}"
    if changed:
        click.echo(f"New jobs use {which} '{chosen}' {sha256[:12]}; jobs that exist keep theirs.")
    else:
        click.echo(f"New jobs use {which} '{chosen}' {sha256[:12]} already.")
    _say_outranked(settings)


def _check(directory: Path, settings: Settings, *, no_verify: bool) -> None:
    """Verifies a directory: what needs no model first, since that is told at once."""
    check_adapter(directory)
    if not no_verify:
        _load(directory, settings)


def _load(directory: Path, settings: Settings) -> Mapping[str, Any]:
    """Loads an adapter with all its checks; what its scorer says of itself."""
    return load_directory(directory, settings).identity.details


def _say_outranked(settings: Settings) -> None:
    if settings.adapter is not None:
        note(f"LORACLE_ADAPTER is set here and outranks it: jobs from this host use '{settings.adapter}'.")
