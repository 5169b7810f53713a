"""What must be true whatever went wrong, checked without a line of the product: by its own SQL, the history that the
processes left, what the oracle's server saw, and what is left in the queue.

A broken promise is a sentence; `check` gives all of them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fake_openai import rule_label
from tests.fake_openai.server import Call, FakeOpenAI
from tests.faults.history import Event
from worker.scorers.stub import LABELS, stub_score

Read = Callable[[str], list[tuple[Any, ...]]]

WRITES = (
    "Batches.finish", "Batches.hand_over", "Prompts.save", "Prompts.park", "Leases.renew", "Leases.release",
    "Bulks.begin", "Bulks.note_upload", "Bulks.note_submission", "Bulks.wait", "Bulks.collect", "Bulks.abandon",
    "Bulks.split", "Bulks.submit_again",
)  # fmt: skip
"""What only the holder of a lease may do."""
GIVES_UP = (
    "Batches.finish", "Batches.hand_over", "Prompts.park", "Leases.release", "Bulks.note_submission", "Bulks.wait",
    "Bulks.collect", "Bulks.abandon", "Bulks.split", "Bulks.submit_again",
)  # fmt: skip
CLAIMS = ("Leases.claim", "Leases.claim_next", "Prompts.claim_unpublished", "WorkerFaults.claim_next")


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to look at. `read` runs a statement on the database; `waiting` is how many messages a queue holds
    or has handed out. `failing` rows, as (job, row), may have no label. `price`: nano-dollars for a token sent,
    and for one that comes back."""

    read: Read
    events: Sequence[Event] = ()
    server: FakeOpenAI | None = None
    price: tuple[int, int] = (100, 0)
    waiting: Mapping[str, int] = field(default_factory=dict)
    failing: frozenset[tuple[int, int]] = frozenset()


def check(seen: Seen) -> list[str]:
    """Every promise that is broken, now that all is quiet."""
    found: list[str] = []
    for rule in (
        _labels, _rows, _nothing_open, _money, _leases, _written_once, _corrections, _deleted, _counts, _agreements,
        _guarantees, _days, _asked, _retry_after, _bulks, _messages, _published,
    ):  # fmt: skip
        found += rule(seen)
    return found


def _labels(seen: Seen) -> Iterator[str]:
    """Each label is the one that its rater gives to that text: none is guessed, mixed up or somebody else's."""
    rows = seen.read(
        "SELECT l.job_id, l.row_no, l.rater, l.label, r.text FROM labels l "
        "LEFT JOIN reviews r ON r.job_id = l.job_id AND r.row_no = l.row_no ORDER BY 1, 2, 3"
    )
    once = Counter(row[:3] for row in rows)
    for job_id, row_no, rater, label, text in rows:
        where = f"job {job_id} row {row_no}"
        if text is None:
            yield f"{where} has a label of the {rater} and no review"
            continue
        right = stub_score(text).label if rater == "adapter" else rule_label(text, LABELS)[0]
        if label != right:
            yield f"{where} has the label {label} of the {rater}, which says {right}"
        if once[job_id, row_no, rater] > 1:
            yield f"{where} has {once[job_id, row_no, rater]} labels of the {rater}"


def _rows(seen: Seen) -> Iterator[str]:
    """Each row of a job that is over has its final label or a reason, and never both."""
    for job_id, row_no, error, final in seen.read(_FINAL):
        if final is None and error is None:
            yield f"job {job_id} row {row_no} has neither a label nor a reason"
        if final is not None and error is not None:
            yield f"job {job_id} row {row_no} has a label and a reason why it has none: {error}"
        if final is None and (job_id, row_no) not in seen.failing:
            yield f"job {job_id} row {row_no} has no label: {error}"


_FINAL = """
SELECT r.job_id, r.row_no, r.error,
  CASE WHEN q.reason IN ('policy', 'fallback') OR j.policy LIKE 'oracle%' THEN o.label
       WHEN q.reason IN ('cascade', 'guarantee') THEN coalesce(o.label, a.label)
       ELSE a.label END AS final
FROM reviews r JOIN jobs j ON j.id = r.job_id AND j.state = 'done'
LEFT JOIN requests q ON q.job_id = r.job_id AND q.row_no = r.row_no
LEFT JOIN labels a ON a.job_id = r.job_id AND a.row_no = r.row_no AND a.rater = 'adapter'
LEFT JOIN labels o ON o.job_id = r.job_id AND o.row_no = r.row_no AND o.rater = 'oracle'
ORDER BY 1, 2
"""


def _nothing_open(seen: Seen) -> Iterator[str]:
    """Nothing is left to do."""
    open_ones = {
        "batches": "state IN ('queued', 'running', 'submitted', 'parked')",
        "requests": "state IN ('open', 'packed')",
        "bulks": "state IN ('packed', 'submitted')",
        "measurings": "true",
        "jobs": "state NOT IN ('done', 'stopped', 'cancelled')",
    }
    for table, condition in open_ones.items():
        [(count,)] = seen.read(f"SELECT count(*) FROM {table} WHERE {condition}")
        if count:
            yield f"{count} {table} are open"
    for batch_id, state in seen.read("SELECT id, state FROM batches WHERE lease_token IS NOT NULL"):
        yield f"batch {batch_id} is {state} and still leased"


def _money(seen: Seen) -> Iterator[str]:
    """What a job spent is the sum of its reservations, no cap was ever passed, and no answer was paid for unseen."""
    reservations = seen.read(
        "SELECT job_id, created_at, settled_at, reserved_nanos, cost_nanos FROM reservations ORDER BY id"
    )
    sums: Counter[int] = Counter()
    for job_id, _, _, reserved, cost in reservations:
        sums[job_id] += reserved if cost is None else cost
    for job_id, spent, most in seen.read("SELECT id, spent_nanos, max_cost_nanos FROM jobs ORDER BY id"):
        if spent != sums[job_id]:
            yield f"job {job_id} has spent {spent}, but its reservations come to {sums[job_id]}"
        if most is not None:
            steps = [(at, reserved) for job, at, _, reserved, _ in reservations if job == job_id]
            steps += [
                (settled, cost - reserved)
                for job, _, settled, reserved, cost in reservations
                if job == job_id and cost is not None
            ]
            height = 0
            for _, step in sorted(steps):
                height += step
                if height > most:
                    yield f"job {job_id} had {height} set aside of {most}"
                    break
    if seen.server is not None:
        [(known,)] = seen.read(
            "SELECT coalesce((SELECT sum(spent_nanos) FROM jobs), 0) "
            "+ coalesce((SELECT sum(spent_nanos) FROM deleted_jobs), 0)"
        )
        billed = seen.server.billed_nanos(*seen.price)
        if known < billed:
            yield f"{billed} nano-dollars were billed and {known} are known"


def _leases(seen: Seen) -> Iterator[str]:
    """Nobody writes under a lease that somebody else has by now, and nobody deletes what is being worked on."""
    by_batch: dict[int, list[Event]] = defaultdict(list)
    for event in seen.events:
        if event.what in CLAIMS and event.done and event.found:
            by_batch[event.found["batch"]].append(event)
    for event in seen.events:
        if event.what not in WRITES or not event.done or event.found.get("done") is False:
            continue
        batch_id, token = event.given["batch"], event.given["token"]
        claims = by_batch[batch_id]
        own = next((claim for claim in claims if claim.found["token"] == token), None)
        if own is None:
            continue
        for other in claims:
            assert other.ended is not None
            assert own.ended is not None
            if other.began >= own.ended and other.ended <= event.began:
                yield f"{event.what} of batch {batch_id} was done under a lease that was lost"
                break
    for deletion in (event for event in seen.events if event.what == "Deletion.begin" and event.done):
        for claim in (one for claims in by_batch.values() for one in claims):
            if claim.found.get("job") != deletion.given["job"] or (claim.ended or 0) > deletion.began:
                continue
            over = any(_ends(event, claim) and event.began < (deletion.ended or 0) for event in seen.events)
            if not over and not _is_lost(claim, deletion, seen.events):
                yield f"job {deletion.given['job']} was deleted while batch {claim.found['batch']} was held"


def _ends(event: Event, claim: Event) -> bool:
    same = (
        event.given.get("batch") == claim.found["batch"] and event.given.get("token") == claim.found["token"]
    )
    return same and (event.what in GIVES_UP or (event.what == "Prompts.save" and bool(event.given["ends"])))


def _is_lost(claim: Event, before: Event, events: Sequence[Event]) -> bool:
    """Whether the claim's process was killed, or somebody else claimed the batch after it."""
    if any(event.pid == claim.pid and event.ended is None for event in events):
        return True
    last = max(event.began for event in events if event.pid == claim.pid)
    return last <= claim.began or any(
        event.what in CLAIMS
        and event.found.get("batch") == claim.found["batch"]
        and (claim.ended or 0) <= event.began < before.began
        for event in events
    )


def _written_once(seen: Seen) -> Iterator[str]:
    """A batch is ended once, and its labels are in the database afterwards."""
    ended: Counter[int] = Counter()
    kept = {(job, row, rater): label for job, row, rater, label in seen.read(_LABELS)}
    deleted = {job_id for (job_id,) in seen.read("SELECT id FROM deleted_jobs")}
    for event in seen.events:
        if event.what in ("Batches.finish", "Prompts.save", "Bulks.collect") and event.done:
            ended[event.given["batch"]] += bool(event.given["ends"])
            for place, labels in event.given["labels"].items():
                job_id, rater = int(place.split()[0]), place.split()[1]
                for row_no, label in labels.items():
                    found = kept.get((job_id, int(row_no), rater))
                    if found != label and job_id not in deleted:
                        yield f"job {job_id} row {row_no}: {label} of the {rater} was saved, {found} is kept"
    for batch_id, times in ended.items():
        if times > 1:
            yield f"batch {batch_id} was ended {times} times"


_LABELS = "SELECT job_id, row_no, rater, label FROM labels"


def _corrections(seen: Seen) -> Iterator[str]:
    """A person's word stays until a person changes it."""
    said: dict[tuple[int, int], set[str]] = defaultdict(set)
    for event in seen.events:
        if event.what == "Corrections.save" and event.failed is None:
            for row_no, label in event.given["labels"].items():
                key = (event.given["job"], int(row_no))
                if event.done:
                    said[key].clear()
                said[key].add(label)
    kept = {
        (job, row): label for job, row, label in seen.read("SELECT job_id, row_no, label FROM corrections")
    }
    for key, labels in said.items():
        if kept.get(key) not in labels:
            yield f"job {key[0]} row {key[1]} was corrected to {' or '.join(labels)}, {kept.get(key)} is kept"
    for key in kept.keys() - said.keys():
        if seen.events:
            yield f"job {key[0]} row {key[1]} has a correction that nobody made"


def _deleted(seen: Seen) -> Iterator[str]:
    """Of a deleted job nothing is left but its number and what it spent."""
    for event in seen.events:
        if event.what != "Deletion.end" or not event.done:
            continue
        job_id = event.given["job"]
        for table in ("reviews", "rejects", "labels", "requests", "batches", "corrections", "agreements",
                      "label_days", "reservations", "measurings", "guarantees"):  # fmt: skip
            [(count,)] = seen.read(f"SELECT count(*) FROM {table} WHERE job_id = {job_id}")
            if count:
                yield f"job {job_id} is deleted, and {count} of its {table} are left"
        if not seen.read(f"SELECT 1 FROM deleted_jobs WHERE id = {job_id}"):
            yield f"job {job_id} was deleted, and its number and cost were not kept"


def _counts(seen: Seen) -> Iterator[str]:
    """Each row was read once: the numbers are those of the file, without a gap."""
    for job_id, read, rows, first, last in seen.read(
        "SELECT j.id, j.records_read, count(*), min(n.row_no), max(n.row_no) FROM jobs j JOIN ("
        "SELECT job_id, row_no FROM reviews UNION ALL SELECT job_id, row_no FROM rejects) n ON n.job_id = j.id "
        "GROUP BY j.id, j.records_read"
    ):
        if (rows, first, last) != (read, 1, read):
            yield f"job {job_id} read {read} records and has {rows}, from {first} to {last}"


def _agreements(seen: Seen) -> Iterator[str]:
    """What is kept of the agreement with gold is what the labels and corrections say now."""
    pairs = seen.read(_GOLD)
    for raters, column in (("gold,adapter", 2), ("gold,final", 3)):
        for job_id, n, statistics in seen.read(
            "SELECT job_id, n, statistics FROM agreements WHERE selection = 'all' AND slice = 'all' "
            f"AND raters = '{raters}'"
        ):
            both = [
                (row[1], row[column])
                for row in pairs
                if row[0] == job_id and None not in (row[1], row[column])
            ]
            counted = Counter(both)
            if isinstance(statistics, str):
                statistics = json.loads(statistics)
            table = [[counted[gold, said] for said in LABELS] for gold in LABELS]
            if n != len(both) or statistics["table"] != table:
                yield f"job {job_id}: {raters} was kept as {statistics['table']} of {n}, it is {table}"
    for (job_id,) in seen.read(
        "SELECT j.id FROM jobs j WHERE j.state = 'done' AND (j.measured_at IS NULL OR (EXISTS (SELECT 1 FROM labels "
        "l JOIN reviews r ON r.job_id = l.job_id AND r.row_no = l.row_no WHERE l.job_id = j.id AND "
        "r.gold_label IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM agreements a WHERE a.job_id = j.id)))"
    ):
        yield f"job {job_id} is done and was not measured"


_GOLD = f"""
SELECT r.job_id, coalesce(c.label, r.gold_label), a.label, f.final
FROM reviews r
LEFT JOIN corrections c ON c.job_id = r.job_id AND c.row_no = r.row_no
LEFT JOIN labels a ON a.job_id = r.job_id AND a.row_no = r.row_no AND a.rater = 'adapter'
LEFT JOIN ({_FINAL.replace("ORDER BY 1, 2", "")}) f ON f.job_id = r.job_id AND f.row_no = r.row_no
"""


def _guarantees(seen: Seen) -> Iterator[str]:
    """A guarantee that is kept counts what was asked, and the audit is as large as it was fixed."""
    for job_id, sample, cut, certificate in seen.read(
        "SELECT g.job_id, g.sample, g.cut, g.certificate FROM guarantees g JOIN jobs j ON j.id = g.job_id "
        "WHERE j.state = 'done'"
    ):
        if cut is None or certificate is None:
            yield f"job {job_id} is done and has no certificate"
            continue
        found = json.loads(certificate) if isinstance(certificate, str) else certificate
        [(audited, asked)] = seen.read(
            "SELECT count(CASE WHEN reason = 'guarantee' THEN 1 END), count(*) FROM requests "
            f"WHERE job_id = {job_id}"
        )
        [(alone,)] = seen.read(
            "SELECT count(*) FROM labels l WHERE l.rater = 'adapter' AND NOT EXISTS (SELECT 1 FROM requests q "
            f"WHERE q.job_id = l.job_id AND q.row_no = l.row_no) AND l.job_id = {job_id}"
        )
        if (audited, asked, alone) != (sample, found["asked"], found["trusted"]) or alone > cut:
            yield (
                f"job {job_id}: {sample} were to be audited, {found['asked']} asked about and {found['trusted']} "
                f"left alone before {cut}; it was {audited}, {asked} and {alone}"
            )


def _days(seen: Seen) -> Iterator[str]:
    """The kept counts of a job that is done are those of its final labels."""
    finals = Counter((job_id, final) for job_id, _, _, final in seen.read(_FINAL) if final is not None)
    kept = {
        (job_id, label): n
        for job_id, label, n in seen.read(
            "SELECT d.job_id, d.label, sum(d.n) FROM label_days d "
            "JOIN jobs j ON j.id = d.job_id AND j.state = 'done' GROUP BY d.job_id, d.label"
        )
    }
    for job_id, label in finals.keys() | kept.keys():
        if finals[job_id, label] != kept.get((job_id, label), 0):
            yield (
                f"job {job_id}: {kept.get((job_id, label), 0)} labels {label} are counted, there are "
                f"{finals[job_id, label]}"
            )


def _asked(seen: Seen) -> Iterator[str]:
    """What has a saved answer isn't asked again."""
    if seen.server is None:
        return
    texts = {(job, row): text for job, row, text in seen.read("SELECT job_id, row_no, text FROM reviews")}
    saved_at: dict[str, int] = {}
    for event in seen.events:
        if event.what in ("Prompts.save", "Bulks.collect") and event.done and event.ended is not None:
            for place, labels in event.given["labels"].items():
                for row_no in labels:
                    text = texts.get((int(place.split()[0]), int(row_no)))
                    if text is not None:
                        saved_at[text] = min(event.ended, saved_at.get(text, event.ended))
    for call in seen.server.calls:
        for text in call.texts:
            if call.at * 1e9 > saved_at.get(text, float("inf")):
                yield "a review was asked about again after its answer was saved"


def _retry_after(seen: Seen) -> Iterator[str]:
    """While a server wants to be left alone nobody asks it."""
    if seen.server is None:
        return
    rest: dict[str, Call] = {}
    for call in seen.server.calls:
        told = rest.get(call.model)
        if told is not None and call.at < told.at + told.wait_s:
            yield f"the server wanted {told.wait_s} s of rest and was asked after {call.at - told.at:.3f} s"
        if call.wait_s:
            rest[call.model] = call


def _bulks(seen: Seen) -> Iterator[str]:
    """No Bulk is submitted twice, by its key or by its reviews."""
    if seen.server is None:
        return
    batches = list(seen.server.shelf.batches.values())
    keys = Counter(batch["metadata"]["client_key"] for batch in batches)
    for times in keys.values():
        if times > 1:
            yield f"a Bulk was submitted {times} times"
    known = {remote for (remote,) in seen.read("SELECT remote_id FROM bulks WHERE remote_id IS NOT NULL")}
    for batch in batches:
        if batch["id"] not in known and batch["status"] != "failed":
            yield f"{batch['id']} was submitted and is known to nobody"


def _messages(seen: Seen) -> Iterator[str]:
    """The queue is empty when nothing is left to do."""
    for place, count in seen.waiting.items():
        if count:
            yield f"{count} messages are left in {place}"


def _published(seen: Seen) -> Iterator[str]:
    """A message names a batch that everybody can see."""
    for event in seen.events:
        if event.what == "Celery.send_task" and not event.given["committed"]:
            yield f"a message for batch {event.given['batch']} was sent before the batch was committed"
