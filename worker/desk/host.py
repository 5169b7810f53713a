"""What `loracle doctor` knows of a host and its servers: what was found, why that matters, what to do."""

from __future__ import annotations

import contextlib
import difflib
import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from worker.settings import DOTENV, SHARED_VARIABLES, Settings, secret_variables

if TYPE_CHECKING:
    from worker.model.devices import Build

CLOCK_OFF_S = 5.0
LEAST_FREE, NO_ROOM = 5 * 2**30, 200 * 2**20
"""Bytes: with less there is a warning, with less an error."""
LEAST_DESCRIPTORS = 1024
LOOPBACK = ("localhost", "::1", "")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `ok`, `warning` or `error`; what was found, and unless all is well why it matters and what to do."""

    check: str
    state: str
    found: str
    why: str = ""
    way_out: str = ""


Found = tuple[str, str] | tuple[str, str, str, str]
"""A finding without the name of its check."""


def fine(found: str) -> Found:
    """Nothing is to be done."""
    return "ok", found


def judge_variables(variables: Mapping[str, str], home: Path) -> Found:
    """Whether a variable looks like a misspelt setting: it would do nothing, and nobody would say so."""
    names = [f"LORACLE_{name.upper()}" for name in Settings.model_fields] + list(SHARED_VARIABLES)
    known = {*names, DOTENV, *(f"{name}_FILE" for name in secret_variables())}
    meant = {
        variable: near[0]
        for variable in sorted({*variables} - known)
        if variable.startswith(("LORACLE_", "DATABASE_", "REDIS_", "OPENAI_"))
        and (near := difflib.get_close_matches(variable, names, n=1, cutoff=0.85))
    }
    if not meant:
        return fine(f"data directory {home}")
    return (
        "warning",
        f"data directory {home}; no such setting: {', '.join(meant)}",
        "A variable that nobody reads changes nothing.",
        "; ".join(f"Write {name} instead of {variable}" for variable, name in meant.items())
        + ", if that is meant.",
    )


def judge_clock(theirs: float, before: float, after: float) -> Found:
    """The database's clock, which was read between two looks at this host's."""
    off_s = max(before - theirs, theirs - after, 0.0)
    if off_s <= CLOCK_OFF_S:
        return fine("this host and the database agree within 5 s")
    ahead = "behind" if theirs > after else "ahead of"
    return (
        "warning",
        f"this host's clock is {off_s:,.0f} s {ahead} the database's",
        "Leases go by the database's clock and hold. But messages in Redis go by the hosts' clocks: one that "
        "is ahead delivers the others' batches a second time, which are scored once all the same.",
        "Let the host keep its time by NTP (timedatectl set-ntp true).",
    )


def judge_batch_time(slowest_s: float | None, visibility_s: float) -> Found:
    """How long batches take, against how long Redis leaves a message with the worker that took it."""
    if slowest_s is None:
        return fine("no batch has ended yet")
    said = f"the slowest of the newest batches took {slowest_s:,.1f} s; Redis waits {visibility_s:,.0f} s"
    if slowest_s <= visibility_s / 2:
        return fine(said)
    return (
        "warning",
        said,
        "After that time Redis gives the message to another worker. The lease keeps the batch from being scored "
        "twice, but the message is handed about in vain.",
        "Enqueue with smaller batches (LORACLE_BATCH_SIZE).",
    )


def judge_redis(title: str, exposed: bool | None, url: str) -> Found:
    """A server that was asked: whether it is `exposed`, as far as it says."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_near = parts.scheme == "redis+socket" or host in LOOPBACK or host.startswith("127.")
    # It let this host in without a password, and doesn't say what it does with others.
    if exposed or (exposed is None and not is_near and not parts.password):
        return (
            "error",
            f"{title} takes commands from other hosts without a password",
            "Anybody who reaches it can read and forge messages, empty the queue, and often take over its host.",
            "Set requirepass or an ACL, write the password into REDIS_URL, bind it to a private address and leave "
            "protected-mode on.",
        )
    if exposed is None:
        return fine(f"{title} (it doesn't say how it is guarded)")
    return fine(title)


def disk(settings: Settings) -> Found:
    """The disks of the data directory and of a SQLite database."""
    folders = {settings.home}
    if settings.database.startswith("sqlite"):
        folders.add(Path(settings.database.removeprefix("sqlite:///")).parent)
    free = {folder: shutil.disk_usage(_existing(folder)).free for folder in folders}
    return judge_disk(free)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def judge_disk(free: Mapping[Path, int]) -> Found:
    """The free bytes of each folder's disk."""
    folder = min(free, key=lambda path: free[path])
    said = f"{free[folder] / 2**30:,.1f} GiB free for {folder}"
    if free[folder] >= LEAST_FREE:
        return fine(said)
    return (
        "error" if free[folder] < NO_ROOM else "warning",
        said,
        "A database or queue that can't write stops every job until there is room; nothing that was saved is lost.",
        "Make room, or let LORACLE_HOME or DATABASE_URL name another disk. What could go is shown by "
        "`loracle purge --dry-run --older-than 90d`.",
    )


def most_descriptors() -> int:
    """How many files and sockets a process of this user may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def judge_descriptors(most: int) -> Found:
    """That number."""
    if most == resource.RLIM_INFINITY or most >= LEAST_DESCRIPTORS:
        return fine("no limit" if most == resource.RLIM_INFINITY else f"{most:,} open files at most")
    return (
        "warning",
        f"{most:,} open files at most",
        "A worker of the openai lane has a connection for each request in flight, and connections to both servers.",
        f"Raise it before you start the worker: `ulimit -n {LEAST_DESCRIPTORS}`, systemd: LimitNOFILE=65536.",
    )


def judge_tokenizer(environment: Mapping[str, str], cores: int) -> Found:
    """The variables that slow the tokenizer down. A worker sets TOKENIZERS_PARALLELISM for its children itself."""
    parallel = environment.get("TOKENIZERS_PARALLELISM", "true").lower() not in (
        "false",
        "0",
        "off",
        "no",
        "",
    )
    threads = environment.get("RAYON_NUM_THREADS", "")
    few = threads.isdecimal() and 0 < int(threads) < cores
    if parallel and not few:
        return fine(f"encodes with up to {cores} threads")
    name = "RAYON_NUM_THREADS" if few else "TOKENIZERS_PARALLELISM"
    return (
        "warning",
        f"{name}={environment[name]}, on {cores} cores",
        "The tokenizer then limits what a GPU scores."
        + ("" if few else " Workers set it themselves; `score`, `evaluate` and `train` obey it."),
        f"Unset {name}.",
    )


def nvidia_driver() -> str | None:
    """The version of this host's NVIDIA driver; "" if it doesn't answer, None if there is no card."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        if said:
            return said[0]
    return "" if Path("/dev/nvidia0").exists() else None


def judge_driver(build: Build, driver: str | None) -> Found:
    """Torch's build against the driver."""
    made_for = f"CUDA {build.cuda}" if build.cuda else "the CPU alone"
    said = f"torch {build.version} for {made_for}, {f'driver {driver}' if driver else 'no NVIDIA driver'}"
    if driver is None or build.gpus:
        return fine(said + (f", {build.gpus} GPUs" if build.gpus else ""))
    way_out = "Install a torch built for CUDA (https://pytorch.org/get-started/locally/)."
    if build.cuda:
        way_out = f"Install a driver that knows CUDA {build.cuda}, or a torch for an older CUDA."
    return (
        "warning",
        f"{said}: torch sees no GPU",
        "This host has an NVIDIA card, but its workers score on the CPU, many times slower.",
        way_out,
    )
