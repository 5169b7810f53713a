"""Hostile inputs by surface: each run tries mutated inputs of a seed, and every one is answered or refused."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.faults.fuzz.guard import Input, tried
from tests.faults.fuzz.mutate import mutated
from tests.faults.fuzz.named import CASES, Case
from tests.faults.fuzz.seeds import KINDS, Seed, adapter_files, manifest_of, safetensors, seeds
from tests.faults.scenario import Scenario, Struck
from worker.model.manifest import MANIFEST

INPUTS = 200
"""In one run of a scenario."""
PARTS = 20
"""In which the inputs that have a name are tried."""

TITLES = {
    "csv": "hostile csv files", "txt": "hostile text files", "json": "hostile JSON files",
    "parquet": "hostile parquet files", "workbooks": "hostile workbooks", "packed": "hostile packed files",
    "corrections": "hostile corrections", "adapters": "hostile adapters", "archives": "hostile archives of adapters",
    "bases": "hostile base models", "settings": "hostile settings and URLs",
    "batches": "hostile results of the Batch API", "answers": "hostile answers of the oracle",
}  # fmt: skip


def inputs(kind: str, seed: int, count: int, folder: Path) -> Iterator[Input]:
    """So many mutated inputs, written into the folder; the first ones are the seeds as they are."""
    generator = random.Random(f"{kind} {seed}")
    originals = seeds(kind)
    for number in range(count):
        original = originals[number % len(originals)]
        made = original if number < len(originals) else mutated(original, kind, generator)
        if number >= len(originals) and made.options.get("counted") and generator.random() < 0.3:
            made = replace(made, options={**made.options, "stream": True, "counted": False})
        yield written(made, folder / f"{seed}-{number}")


def written(seed: Seed, folder: Path) -> Input:
    """The seed as a file in the folder, with what belongs to it."""
    folder.mkdir(parents=True)
    path = folder / seed.name
    options = dict(seed.options)
    if seed.surface == "adapter":
        for name, content in adapter_files().items():
            (folder / name).write_bytes(content)
        if seed.name != MANIFEST:
            # Its hash is right: who made it is hostile, not a disk that fails.
            files = {**adapter_files(), seed.name: seed.content}
            del files[MANIFEST]
            (folder / MANIFEST).write_text(manifest_of(files).to_json())
    elif seed.surface == "base":
        for name in ("one.safetensors", "two.safetensors"):
            (folder / name).write_bytes(safetensors({"a": [1]}))
    elif seed.surface == "archive":
        manifest = folder / MANIFEST
        manifest.write_bytes(adapter_files()[MANIFEST])
        options = {"manifest": str(manifest)}
    path.write_bytes(seed.content)
    return Input(seed.surface, folder if seed.surface in ("adapter", "base") else path, options)


def try_all(found: list[Input], title: str, keep: Path) -> None:
    """Fails with the first input whose promise is broken; it is kept in this folder."""
    for one, verdict in tried(found):
        if not verdict.kept:
            culprit = keep / "culprit"
            if one.path.is_dir():
                shutil.copytree(one.path, culprit, dirs_exist_ok=True)
            elif one.path.is_file():
                culprit = culprit.with_name(f"culprit-{one.path.name}")
                shutil.copy(one.path, culprit)
            raise AssertionError(
                f"{title}: {verdict.kind} with {culprit} ({one.path.parent.name}/{one.path.name}, surface "
                f"{one.surface}, options {dict(one.options)}): {verdict.said}"
            )


def run(kind: str, seed: int, folder: Path, *, count: int = INPUTS) -> Struck:
    """A run of the scenario of this kind."""
    try_all(list(inputs(kind, seed, count, folder / "inputs")), f"{TITLES[kind]}, seed {seed}", folder)
    shutil.rmtree(folder / "inputs")
    return Struck()


def run_named(seed: int, folder: Path) -> Struck:
    """A share of the inputs that have a name, the slow ones too."""
    try_named(CASES[seed::PARTS], folder)
    return Struck()


def try_named(cases: Sequence[Case], folder: Path) -> None:
    """Makes these inputs, and fails with the first whose promise is broken."""
    inputs = folder / "inputs"
    made = []
    for number, case in enumerate(cases):
        (inputs / str(number)).mkdir(parents=True)
        made.append(case.make(inputs / str(number)))
    try:
        try_all(made, "named inputs", folder)
    finally:
        # Some folders are deeper than shutil.rmtree can go.
        subprocess.run(["rm", "-rf", str(inputs)], check=True)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("hostile inputs that have a name", run_named, full=PARTS),
    *(Scenario(TITLES[kind], partial(run, kind), full=25) for kind in KINDS),
)
