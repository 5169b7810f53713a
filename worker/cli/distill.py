"""`loracle distill`: from reviews without labels to an adapter of one's own and certified labels, in one job."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from worker.bootstrap import Store, choose_adapter, load_directory, restore_adapter
from worker.cli.common import (
    COUNT_S,
    WHY_S,
    Waiting,
    for_own_workers,
    json_option,
    note,
    open_all,
    pool_options,
    publisher,
    wait_for_jobs,
)
from worker.cli.enqueue import open_source, write_job
from worker.cli.run import CPU_BATCH, finish
from worker.desk.enqueue import GPU_BATCH, Publisher
from worker.desk.options import (
    choose_oracle,
    enqueue_options,
    guarantee_options,
    pinned_adapter,
    reading_options,
)
from worker.desk.plan import check_guarantee
from worker.desk.presence import check_queue
from worker.desk.status import figure_sentences, oracle_waiting_for, why_unscored
from worker.errors import Invalid, JobStateInvalid, OptionInvalid
from worker.jobs import deletion, distillation
from worker.jobs.source import Adapter
from worker.lifeline import NEEDS_PIPE, like_ctrl_c, tied
from worker.logs import Progress
from worker.model.manifest import BUNDLED, Manifest
from worker.pool.supervisor import LocalPool, WorkerPlan, check_devices, plan_workers
from worker.reviews import Job, dollars
from worker.settings import Settings
from worker.store.adapters import STUB
from worker.store.distillations import Answered, Distilled
from worker.store.tables import OPEN_REQUESTS

LABELS = (
    "The labels that the oracle gives: a,b,c (else those of your adapter). Or, as in `loracle enqueue`, what gold "
    "labels of FILE mean: 1=a,2=b."
)
HELD_OUT_NAME = "held out, labels by the oracle"


@click.command()
@click.argument("file")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New directory of the adapter.")
@click.option(
    "--guarantee",
    type=float,
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="Share of the labels that shall be the oracle's; see `loracle enqueue --help`.",
)
@click.option(
    "--answers", type=click.IntRange(min=20), default=2000, show_default=True, help="Labels to train on."
)
@click.option(
    "--held-out", type=click.IntRange(min=20), default=400, show_default=True, help="Labels to measure by."
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 2),
    default=2,
    show_default=True,
    help="2: half of the answers are about reviews of which a first adapter is least sure.",
)
@click.option("--base", metavar="BASE", help="Base model of the adapter; see `loracle train --help`.")
@click.option("--recipe", metavar="NAME", help="Recipe of the training; see `loracle train --help`.")
@click.option("--start-from", metavar="ADAPTER", help="Train this adapter on: a directory, or bundled.")
@click.option("--max-length", type=click.IntRange(min=8), help="Tokens of a review that are read.")
@partial(reading_options, labels=LABELS)
@guarantee_options
@pool_options
@json_option
def distill(
    file: str,
    out: Path,
    answers: int,
    held_out: int,
    rounds: int,
    base: str | None,
    recipe: str | None,
    start_from: str | None,
    max_length: int | None,
    concurrency: int,
    gpus: str,
    children: int | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Train an adapter on an oracle's labels for FILE, and label FILE with it under a guarantee. No labels needed.

    The oracle labels --answers reviews of all lengths. In a second round it labels those of which a first adapter is
    least sure. It also labels --held-out random reviews. An adapter is trained on the answers (`loracle train`). It
    is measured on the held-out reviews, and so is the adapter that you have (--adapter, else the active one). The
    better of the two labels all other reviews, as a cascade with --guarantee. Reviews that the oracle has labelled
    keep the oracle's label.

    All this is one job, and `loracle status JOB` shows its stage. After any interruption the same command goes on,
    and no answer is paid for twice. The trained adapter is in OUT and in the database (`loracle adapters list`), and
    its model card says who gave its labels. If the forecast is higher than --max-cost, the oracle is not asked at
    all. --labels a,b,c names the labels (else those of the adapter that you have); --labels 1=a,2=b says what gold
    labels of FILE mean.

    \b
    Example:
      loracle distill reviews.csv --out my-adapter --answers 2000 --max-cost 5
    """
    settings, store = open_all(to_make_jobs=True)
    check_queue(settings)
    plan = plan_workers(gpus, children, device=settings.device)
    check_devices(plan)
    on_cpu = all(one.gpu is None for one in plan)
    options = enqueue_options(settings, values, usual_batch=lambda: CPU_BATCH if on_cpu else GPU_BATCH)
    at_hand = pinned_adapter(store, settings, values["adapter"], say=note)
    labels = _labels(options.read.meanings, at_hand, start_from)
    if options.read.meanings is not None and options.read.meanings.is_list:
        # They are the oracle's; the file needs no gold labels.
        options = dataclasses.replace(options, read=dataclasses.replace(options.read, labels=None))
    training = _training_options(base, recipe, start_from, max_length)
    values |= {"policy": "cascade", "below": None, "audit": 0.0}
    # The adapter at hand is for comparison: with another one it is still the same job.
    adapter = Adapter(at_hand.id, "", labels, at_hand.languages)
    asked = dataclasses.replace(
        choose_oracle(store, settings, adapter, values, say=note, asks_itself=True),
        distilled=f"distilled for {'/'.join(labels)} {' '.join(training)}",
    )
    source = open_source(file, options, adapter)
    if source.is_stream:
        raise Invalid("distill needs a file: a stream on stdin can't be taken up again.")
    check_guarantee(settings, source, labels, asked, values, beforehand=answers + held_out)
    publish = publisher(settings, store)
    openai = WorkerPlan(None, concurrency, lane="openai")

    begun: list[int] = []

    def opened(job: Job) -> None:
        begun.append(job.id)
        at = store.ledger.distillations.open(
            job.id, rounds=rounds, answers=answers, held_out=held_out, seed=options.seed
        )
        if at.stage == "reading" and out.exists() and (not out.is_dir() or any(out.iterdir())):
            if not job.records_read:
                _leave_nothing(store, job.id)
            raise OptionInvalid(f"{out} already exists; name another directory with --out.")

    try:
        job = write_job(source, adapter, settings, store, asked=asked, opened=opened)
        with like_ctrl_c(), _alone(settings.home / "distill" / f"job-{job.id}") as folder:
            steps = _Steps(settings, store, job.id, labels, folder, out, training)
            while (at := steps.at()).stage != "labelling":
                if at.stage == "reading":
                    try:
                        asked_first = distillation.first_rows(store.queries.raters(job.id), at)
                    except Invalid:
                        _leave_nothing(store, job.id)
                        raise
                    store.ledger.distillations.ask(at, asked_first)
                elif at.stage == "asking":
                    with LocalPool(for_own_workers(settings), [openai], may_wait=True) as pool:
                        pool.start()
                        steps.wait_for_answers(at, publish, pool.poll)
                elif at.stage == "training":
                    steps.train(at, answers)
                else:
                    steps.measure(at)
        for sentence in figure_sentences(at.figures):
            note(sentence)
        with like_ctrl_c(), LocalPool(for_own_workers(settings), [*plan, openai], may_wait=True) as pool:
            pool.start()
            publish.publish()
            code = wait_for_jobs(
                store,
                [job.id],
                tick=pool.poll,
                why=lambda at: why_unscored(settings, store, at) or oracle_waiting_for(settings, store, at),
            )
    except KeyboardInterrupt:
        note("Interrupted. Nothing that was paid for is lost: the same command goes on.")
        return 130
    except Invalid:
        for job_id in begun:
            begun_at = store.queries.distillations.of(job_id)
            if begun_at is not None and begun_at.stage == "reading":
                note(f"The oracle wasn't asked anything. `loracle cancel {job_id}` gives job {job_id} up.")
        raise
    return finish(store, settings, job.id, code, as_json=as_json)


def _leave_nothing(store: Store, job_id: int) -> None:
    """Deletes a job that is refused before the oracle was asked: nobody would go on with it."""
    store.ledger.jobs.cancel(job_id)
    deletion.delete_job(job_id, texts_only=False, ledger=store.ledger, forget=lambda uploads: uploads)
    note(f"The oracle wasn't asked anything, and job {job_id} is deleted again.")


@dataclass(frozen=True, slots=True)
class _Steps:
    """The stages of one job after its file is read. Each may be done again from its beginning."""

    settings: Settings
    store: Store
    job_id: int
    labels: tuple[str, ...]
    folder: Path
    out: Path
    training: Sequence[str]

    def at(self) -> Distilled:
        found = self.store.queries.distillations.of(self.job_id)
        assert found is not None
        return found

    def wait_for_answers(self, at: Distilled, publisher: Publisher, tick: Callable[[], None]) -> None:
        publisher.publish()
        queries, waiting, looked = self.store.queries, Waiting(self.job_id), time.monotonic()
        with Progress(f"ask the oracle, round {at.round} of {at.rounds}") as shown:
            while queries.distillations.has_open_requests(self.job_id):
                tick()
                progress = queries.jobs.progress(self.job_id)
                if progress.job.state != "reading":
                    break
                asked = sum(progress.requests.values())
                open_ = sum(n for (_, state), n in progress.requests.items() if state in OPEN_REQUESTS)
                shown.update(asked - open_, f"{asked - open_:,} of {asked:,} answers", total=asked)
                if time.monotonic() - looked > WHY_S:
                    looked = time.monotonic()
                    waiting.tell(oracle_waiting_for(self.settings, self.store, progress))
                time.sleep(COUNT_S)
        job = queries.jobs.get(self.job_id)
        if job.oracle_error is not None:
            raise JobStateInvalid(
                f"the oracle isn't asked any more for job {job.id}: {job.oracle_error}. `loracle retry {job.id}` "
                f"lifts that (with --max-cost DOLLARS for a larger budget; {dollars(job.spent)} are spent); then the "
                "same command goes on."
            )
        self.store.ledger.distillations.move(at, "training")

    def train(self, at: Distilled, answers: int) -> None:
        """An adapter of this round; of the last one in `out`. Asks about more first, if more `answers` are wanted."""
        queries = self.store.queries
        raters = queries.raters(self.job_id)
        more = answers - at.answers
        if more > 0:
            self.store.ledger.distillations.ask(at, distillation.more_rows(raters, at, more), answers=answers)
            return
        found, held_out = self._answered()
        distillation.check_labels(found, self.labels, at)
        is_last = at.round == at.rounds
        directory = self.out if is_last else self.folder / "first"
        name = self.out.absolute().name
        data = self.folder / f"round-{at.round}.parquet"
        distillation.write_labelled(data, found)
        if (
            not (directory / "manifest.json").is_file()
            or _run_of(directory).joinpath("checkpoint.pt").exists()
        ):
            note(f"Training on {len(found):,} answers of the oracle (round {at.round} of {at.rounds}).")
            by = f"{self._oracle()}, asked about {len(found) + len(held_out):,} reviews; not by people"
            _trainer(
                "train", str(data), "--out", str(directory), "--name", name, "--text-column", "text",
                "--label-column", "label", "--labels", ",".join(self.labels), "--labelled-by", by,
                "--device", self.settings.device, *self.training,
            )  # fmt: skip
        if is_last:
            self.store.ledger.distillations.move(at, "measuring")
            return
        note("Looking for the reviews of which this adapter is least sure.")
        scorer = load_directory(directory, self.settings)
        unsure = distillation.unsure_rows(raters, at, scorer, queries.distillations)
        self.store.ledger.distillations.ask(at, unsure)

    def measure(self, at: Distilled) -> None:
        """Chooses the adapter by what was held out, and hands the job over to it."""
        _, held_out = self._answered()
        if not held_out:
            raise Invalid(
                f"the oracle gave none of the {at.held_out:,} answers that were to be held out: the adapter can't be "
                f"measured. `loracle retry {self.job_id}` asks again."
            )
        data = self.folder / "held-out.parquet"
        distillation.write_labelled(data, held_out)
        figures: dict[str, Any] = {"trained": self._measured(self.out, data, record=True)}
        trained_id = choose_adapter(self.store, str(self.out))
        chosen_id, job = trained_id, self.store.queries.jobs.get(self.job_id)
        row = self.store.queries.adapters.get(job.adapter_id)
        if row.sha256 != STUB and row.labels == self.labels:
            directory = restore_adapter(self.store, self.settings, row.id)
            figures["at_hand"] = self._measured(directory, data, record=False) | {"name": row.name}
            if figures["at_hand"]["accuracy"] >= figures["trained"]["accuracy"]:
                chosen_id = row.id
        figures["trained"] |= {"name": self.out.absolute().name, "adapter_id": trained_id}
        figures["chosen"] = "trained" if chosen_id == trained_id else "at_hand"
        self.store.ledger.distillations.label(at, adapter_id=chosen_id, figures=figures)
        # They hold texts.
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answered(self) -> tuple[list[Answered], list[Answered]]:
        read = self.store.queries.distillations.answered
        held_out = read(self.job_id, "held_out")
        return distillation.without(read(self.job_id, "training"), held_out), held_out

    def _oracle(self) -> str:
        job = self.store.queries.jobs.get(self.job_id)
        assert job.oracle_id is not None
        return self.store.queries.oracle.scorer(job.oracle_id).name

    def _measured(self, directory: Path, data: Path, *, record: bool) -> dict[str, Any]:
        """The share of the held-out reviews on which an adapter agrees with the oracle, with its 95 % interval."""
        names = ["--record", HELD_OUT_NAME] if record and not _is_recorded(directory) else []
        said = _trainer(
            "evaluate", str(directory), str(data), "--text-column", "text", "--label-column", "label",
            "--device", self.settings.device, "--errors", "0", "--json", *names,
        )  # fmt: skip
        found = json.loads(said)
        return {key: found[key] for key in ("accuracy", "interval", "n")}


def _labels(meanings: Any, at_hand: Adapter, start_from: str | None) -> tuple[str, ...]:
    """Those of --labels, else of --start-from, else of the adapter at hand."""
    own = at_hand.labels
    if start_from is not None:
        own = Manifest.read(BUNDLED if start_from == "bundled" else Path(start_from)).labels
        if meanings is not None and meanings.is_list and meanings.names != own:
            raise OptionInvalid(
                f"--labels {','.join(meanings.names)} aren't the labels of --start-from {start_from} "
                f"({','.join(own)}): leave one of them out."
            )
    return tuple(meanings.names) if meanings is not None and meanings.is_list else own


def _training_options(
    base: str | None, recipe: str | None, start_from: str | None, max_length: int | None
) -> list[str]:
    if base is not None and start_from is not None:
        raise OptionInvalid("--base and --start-from exclude each other: an adapter brings its base along.")
    given = {"--base": base, "--recipe": recipe, "--start-from": start_from, "--max-length": max_length}
    return [str(part) for name, value in given.items() if value is not None for part in (name, value)]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The folder of a job's stages, which one command has at a time.

    Raises:
        JobStateInvalid: another one has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobStateInvalid(
                f"another `loracle distill` is at work on {folder.name.replace('-', ' ')} here; wait for it."
            ) from None
        yield folder


def _run_of(directory: Path) -> Path:
    return directory.absolute().with_name(directory.name + ".run")


def _is_recorded(directory: Path) -> bool:
    return HELD_OUT_NAME in Manifest.read(directory).metrics


def _trainer(*arguments: str) -> str:
    """Runs a command of the trainer, which ends with this process; its progress is shown. What it printed.

    Raises:
        Invalid: it failed; what it said stands above.
    """
    command = tied([sys.executable, "-m", "trainer", *arguments])
    stdin = subprocess.PIPE if NEEDS_PIPE else subprocess.DEVNULL
    # A process group of its own: however this one is stopped, the trainer hears of it once, and saves what it has. By
    # SIGTERM, since a process in a script's background ignores SIGINT.
    with subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        try:
            said, _ = process.communicate()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    if process.returncode == 130:
        raise KeyboardInterrupt
    if process.returncode:
        raise Invalid("the trainer failed; the lines above say why. Mend that: the same command goes on.")
    return said
