"""A Prompt's way through ledger and oracle: real database, real socket, no broker."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from tests.contract.asking import ask, pack
from tests.contract.enqueued import sql
from tests.fake_openai import VOICES, BatchPlan, FakeOpenAI, Fault, Voice, rule_label
from tests.unit import oracles
from worker.bootstrap import make_oracle
from worker.desk.status import why_nobody_can
from worker.errors import DatabaseBusy, OracleUnavailable
from worker.jobs import asking as story
from worker.jobs import holding, scoring
from worker.jobs.asking import advance_bulks, ask_prompt
from worker.oracle import asking, bulk
from worker.oracle.asking import OracleScorer
from worker.oracle.bulk import BulkScorer
from worker.oracle.prompts import Learnt
from worker.reviews import Money
from worker.settings import Settings
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.prompts import Bulks, Prompts
from worker.store.queries import Queries


class Gate:
    """Lets everything through; what it lets through is a probe when a test says so."""

    def __init__(self) -> None:
        self.probing = False

    def admit(self, tokens: int, heartbeat: object) -> AbstractContextManager[bool]:
        return nullcontext(self.probing)

    def answered(self, headers: object, *, unused: int = 0) -> None:
        pass

    def failed(self, error: OracleUnavailable) -> None:
        pass


class Site:
    """A database and an oracle's scorer."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.ledger = Ledger(self.engine, max_attempts=3, lease_s=3600)
        self.queries = Queries(self.engine)
        self.gate = Gate()
        self.worker = "here openai (pid 1)"
        self.scorer: OracleScorer | BulkScorer | None = None

    def oracle_for(self, scorer_id: int) -> OracleScorer | BulkScorer:
        assert self.scorer is not None
        return self.scorer

    def ask(self, count: int, scorer: OracleScorer | BulkScorer, **options: Any) -> int:
        self.scorer = scorer
        return ask(self.ledger, count, oracle=scorer.identity, **options).id

    def step(self, *, rounds: int = 20, max_total: Money | None = None, size: int = 10) -> int:
        """Packs and asks until nothing is due; how many requests were answered."""
        answered = 0
        for _ in range(rounds):
            pack(self.ledger, size=size, bulk=isinstance(self.scorer, BulkScorer))
            self.ledger.publishing.sweep("openai", queue_empty=True)
            batch_ids = self.ledger.publishing.choose("openai", window=1000)
            if not batch_ids:
                break
            for batch_id in batch_ids:
                answered += ask_prompt(
                    batch_id,
                    ledger=self.ledger,
                    oracle_for=self.oracle_for,
                    gate_for=lambda scorer: self.gate,
                    publish=lambda lane, batch_ids: self.ledger.publishing.publish_again(batch_ids),
                    window=1000,
                    worker=self.worker,
                    retry_delay_s=0.0,
                    poll_s=0.0,
                    max_total=max_total,
                )
        return answered

    def labels(self, job_id: int) -> list[str | None]:
        return [row["label"] for row in self.queries.results.iterate(job_id)]

    def errors(self, job_id: int) -> list[str | None]:
        return [row["error"] for row in self.queries.results.iterate(job_id)]

    def texts(self, job_id: int) -> list[str]:
        rows = sql(self.engine, "SELECT text FROM reviews WHERE job_id = :job ORDER BY row_no", job=job_id)
        return [str(text) for (text,) in rows]

    def expected(self, job_id: int) -> list[str]:
        return [rule_label(text, oracles.LABELS)[0] for text in self.texts(job_id)]


@pytest.fixture
def site(sqlite_url: str) -> Iterator[Site]:
    made = Site(sqlite_url)
    yield made
    made.engine.dispose()


def test_a_job_is_labelled_and_done(site: Site) -> None:
    with FakeOpenAI() as server:
        job_id = site.ask(25, oracles.oracle(server, "decisions"))
        assert site.step() == 25
        assert site.labels(job_id) == site.expected(job_id)
        assert site.queries.jobs.state(job_id) == "done"
        assert len(server.calls) == 3
        spent = site.queries.jobs.get(job_id).spent
        assert spent == oracles.PRICE.cost(*server.billed).dollars
        assert [row.cost for row in site.queries.oracle.costs(job_id)] == [spent]


def test_a_budget_ends_the_oracle_and_every_review_says_why(site: Site) -> None:
    with FakeOpenAI() as server:
        scorer = oracles.oracle(server)
        job_id = site.ask(40, scorer, max_cost=0.0045)
        site.step()
        found = site.queries.jobs.get(job_id)
        assert found.state == "stopped"
        assert "--max-cost" in str(found.error)
        assert 0 < found.spent <= 0.0045
        assert oracles.PRICE.cost(*server.billed).dollars <= 0.0045
        labels, errors = site.labels(job_id), site.errors(job_id)
        assert 0 < labels.count(None) < 40
        assert all(
            (label is None) == (error is not None) for label, error in zip(labels, errors, strict=True)
        )
        # Nothing that was answered is asked again with more money.
        calls = len(server.calls)
        assert site.ledger.jobs.retry(job_id, max_cost=Money.at_most(1)) == labels.count(None)
        site.step()
        assert site.labels(job_id) == site.expected(job_id)
        assert sum(len(call.texts) for call in server.calls[calls:]) == labels.count(None)
        assert max(server.answered.values()) == 1


def test_one_job_s_budget_leaves_the_others_alone(site: Site) -> None:
    with FakeOpenAI() as server:
        scorer = oracles.oracle(server)
        poor = site.ask(5, scorer, max_cost=1e-6)
        rich = site.ask(5, scorer)
        site.step()
        assert site.queries.jobs.state(poor) == "stopped"
        assert site.queries.jobs.state(rich) == "done"
        assert site.labels(rich) == site.expected(rich)
        assert all(not set(call.texts) & set(site.texts(poor)) for call in server.calls)


def test_the_global_cap_parks(site: Site) -> None:
    with FakeOpenAI() as server:
        job_id = site.ask(5, oracles.oracle(server))
        site.step(max_total=Money.at_most("1e-6"))
        assert server.calls == []
        assert sql(site.engine, "SELECT state FROM batches") == [("parked",)]
        assert "LORACLE_MAX_COST" in str(site.queries.oracle.prompt_error(1))
        sql(site.engine, "UPDATE batches SET not_before = 0")
        site.step(max_total=Money.at_most(10))
        assert site.queries.jobs.state(job_id) == "done"


def test_without_quota_the_prompt_is_parked(site: Site) -> None:
    with FakeOpenAI(tape=[Fault("quota")]) as server:
        job_id = site.ask(5, oracles.oracle(server))
        site.step()
        assert len(server.calls) == 1
        assert sql(site.engine, "SELECT state, attempts FROM batches") == [("parked", 0)]
        site.step()
        assert len(server.calls) == 1
        # Whoever retries says that there is quota again.
        oracle_id = site.queries.jobs.get(job_id).oracle_id
        assert oracle_id is not None
        site.ledger.prompts.ask_now(oracle_id)
        site.step()
        assert site.labels(job_id) == site.expected(job_id)


def test_a_wrong_key_stops_the_job_with_a_clear_error(site: Site) -> None:
    with FakeOpenAI(tape=[Fault("status", status=401)]) as server:
        job_id = site.ask(25, oracles.oracle(server))
        site.step()
        found = site.queries.jobs.get(job_id)
        assert found.state == "stopped"
        assert "OPENAI_API_KEY" in str(found.error)
        assert len(server.calls) == 1
        assert site.labels(job_id) == [None] * 25
        assert all("not asked" in str(error) for error in site.errors(job_id))


@pytest.mark.parametrize("as_bulk", [False, True])
def test_a_worker_that_is_set_up_for_another_oracle_leaves_the_job_to_others_and_says_so_once(
    site: Site, as_bulk: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "HAND_ON_PAUSE_S", 0.0)
    with FakeOpenAI() as server:
        made = oracles.bulk(server) if as_bulk else oracles.oracle(server)
        job_id = site.ask(25, made)
        other = Settings(openai_base_url="http://other.test/v1", openai_api_key="any", _env_file=None)  # type: ignore[call-arg, arg-type]
        site.oracle_for = lambda scorer_id: make_oracle(made.spec, other, Learnt())  # type: ignore[method-assign]
        assert site.step() == 0
        assert server.calls == []
        assert site.queries.jobs.state(job_id) == "running"
        rows = sql(
            site.engine, "SELECT DISTINCT state, attempts, lease_token FROM batches WHERE lane = 'openai'"
        )
        assert rows == [("queued", 0, None)]
        [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert f"can't ask the oracle of job {job_id} and" in said
        assert f"is at {server.url}, and OPENAI_BASE_URL of this worker is http://other.test/v1." in said
        [fault] = site.queries.faults.all()
        assert (fault.worker, fault.is_device, fault.adapter_id) == (site.worker, False, None)
        why = str(why_nobody_can([fault], 1))
        assert why.startswith(
            f"no worker can ask its oracle: {site.worker}: the job's oracle is at {server.url}"
        )
        assert why_nobody_can([fault], 2) is None

        # Started anew with the job's address it is another worker, as any other host's is.
        site.worker = "here openai (pid 2)"
        site.oracle_for = lambda scorer_id: made  # type: ignore[method-assign]
        site.step()
        assert site.labels(job_id) == site.expected(job_id)


def test_a_review_that_breaks_the_server_stands_alone_at_last(site: Site) -> None:
    with FakeOpenAI(poison={"review 7 ": Fault("status", status=500)}) as server:
        job_id = site.ask(10, oracles.oracle(server))
        site.step(rounds=60)
        labels, expected = site.labels(job_id), site.expected(job_id)
        assert labels[6] is None
        assert "answered 500" in str(site.errors(job_id)[6])
        assert labels[:6] + labels[7:] == expected[:6] + expected[7:]


def test_an_outage_wears_nobody_out(site: Site) -> None:
    with FakeOpenAI(tape=[Fault("status")] * 15) as server:
        job_id = site.ask(10, oracles.oracle(server))
        # The breaker is half-open: a question of our own goes ahead.
        site.gate.probing = True
        site.step(rounds=10)
        assert sql(site.engine, "SELECT state, attempts FROM batches") == [("queued", 0)]
        assert {text for call in server.calls for text in call.texts} == {asking.PROBE_TEXT}
        site.step()
        assert site.labels(job_id) == site.expected(job_id)


def test_foreign_errors_are_named_without_their_words(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeOpenAI() as server:
        job_id = site.ask(1, oracles.oracle(server))

        def broken(*_: object, **__: object) -> None:
            raise KeyError("review 1 of job 1")

        monkeypatch.setattr(OracleScorer, "ask", broken)
        site.step(rounds=10)
        assert site.errors(job_id) == ["KeyError while asking"]
        assert "review 1" not in caplog.text


@pytest.mark.parametrize(
    "plans",
    [
        [BatchPlan()],
        [BatchPlan(polls=3)],
        [BatchPlan(drop=2), BatchPlan()],
        [BatchPlan(fail_lines=2), BatchPlan(fail_lines=1), BatchPlan()],
        [BatchPlan(status="expired", answered=0.5), BatchPlan()],
        [BatchPlan(status="cancelled", answered=0.3), BatchPlan()],
        [BatchPlan(output_file=False), BatchPlan()],
        [BatchPlan(status="failed", errors=("invalid_json_line",)), BatchPlan()],
        [BatchPlan(status="failed", errors=("token_limit_exceeded",)), BatchPlan()],
    ],
    ids=["good", "slow", "dropped", "failed-lines", "expired", "cancelled", "no-output", "failed", "token-limit"],
)  # fmt: skip
def test_a_bulk_s_results_are_resolved_row_by_row(
    site: Site, plans: list[BatchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "TOKEN_LIMIT_S", 0.0)
    with FakeOpenAI(batches=plans) as server:
        job_id = site.ask(20, oracles.bulk(server, reviews_per_prompt=3))
        site.step(rounds=60, size=1000)
        assert site.labels(job_id) == site.expected(job_id)
        assert site.queries.jobs.state(job_id) == "done"
        # Nobody is asked again whose answer came back (in the case without an output file none did).
        if plans[0].output_file:
            assert max(server.asked.values()) == 1
            # At half the price, and every reservation settled.
            spent = site.queries.jobs.get(job_id).spent
            billed = oracles.PRICE.halved().cost(*server.billed).dollars
            # Of lines that are in no file nobody knows whether they were done: they count as spent.
            assert spent > billed if plans[0].drop else spent == billed
        assert sql(site.engine, "SELECT count(*) FROM reservations WHERE cost_nanos IS NULL") == [(0,)]
        # What was uploaded is deleted.
        uploaded = {batch["input_file_id"] for batch in server.shelf.batches.values()}
        assert set(server.shelf.deleted_files) | (uploaded if len(plans) > 1 else set()) >= uploaded


@pytest.mark.parametrize("dies_in", ["note_upload", "note_submission", "collect"])
def test_a_worker_that_dies_on_the_way_never_submits_twice(
    site: Site, dies_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The process is gone."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with FakeOpenAI() as server:
        job_id = site.ask(6, oracles.bulk(server, reviews_per_prompt=3), max_cost=0.05)
        with monkeypatch.context() as patched:
            patched.setattr(Bulks, dies_in, die)
            with pytest.raises(Killed):
                site.step(size=1000)
        sql(site.engine, "UPDATE batches SET lease_until = 0 WHERE state = 'running'")
        site.step(size=1000)
        assert site.labels(job_id) == site.expected(job_id)
        assert len(server.shelf.batches) == 1
        assert site.queries.jobs.get(job_id).spent <= 0.05


def test_bulks_advance_without_a_worker(site: Site) -> None:
    with FakeOpenAI() as server:
        job_id = site.ask(6, oracles.bulk(server, reviews_per_prompt=3))
        pack(site.ledger, size=100, bulk=True)

        def advance() -> int:
            found = [one.batch_id for one in site.ledger.bulks.all(open_only=True)]
            site.ledger.bulks.due_now(found)
            return advance_bulks(
                found, ledger=site.ledger, oracle_for=site.oracle_for, poll_s=60, max_total=None
            )

        assert [advance() for _ in range(4)] == [0, 0, 6, 0]
        assert site.queries.jobs.state(job_id) == "done"


def test_a_bulk_without_money_is_not_sent(site: Site) -> None:
    with FakeOpenAI() as server:
        job_id = site.ask(6, oracles.bulk(server), max_cost=1e-6)
        site.step(size=1000)
        assert server.shelf.files == {}
        assert site.queries.jobs.get(job_id).state == "stopped"


def test_the_scorer_is_rebuilt_from_the_database_alone(site: Site) -> None:
    with FakeOpenAI() as server:
        made = oracles.spec(server, "decisions", redacted=True, window="head+tail:300")
        number = site.ledger.scorers.register(made.identity)
        again = type(made).parse(site.queries.oracle.scorer(number).details)
        assert again == made
        assert again.identity == made.identity
        for change in ({"model": "other"}, {"redacted": False}, {"reviews_per_prompt": 3}, {"route": "chat"}):
            assert dataclasses.replace(made, **change).identity.sha256 != made.identity.sha256  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "route", ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/{}", "GET /v1/files/{}/content"]
)
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_batch_api_that_says_never_ends_the_job(site: Site, route: str, status: int) -> None:
    refusals = [Fault("status", status=status)] * 100
    with FakeOpenAI(shelf_faults={route: refusals}) as server:
        job_id = site.ask(6, oracles.bulk(server))
        site.step(rounds=30, size=1000)
        found = site.queries.jobs.get(job_id)
        assert found.state == "stopped"
        assert f"answered {status}" in str(found.error)
        assert all(f"answered {status}" in str(error) for error in site.errors(job_id))
        assert len(refusals) - len(server.shelf_faults[route]) == 1
        # What wasn't submitted costs nothing.
        assert (found.spent > 0) == route.startswith("GET")
        # Nothing is left lying there.
        if route.startswith("POST"):
            assert server.shelf.files == {}
        # Once it is mended, `retry` goes on.
        server.shelf_faults = {}
        site.ledger.jobs.retry(job_id)
        site.step(rounds=30, size=1000)
        assert site.labels(job_id) == site.expected(job_id)


@pytest.mark.parametrize("heard", [True, False])
def test_a_submission_of_which_nobody_heard_is_looked_for_before_it_is_made_again(
    site: Site, heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Fault("reset") if heard else Fault("status", status=503)
    with FakeOpenAI(shelf_faults={"POST /v1/batches": [broken]}) as server:
        job_id = site.ask(6, oracles.bulk(server))
        site.step(rounds=1, size=1000)
        if not heard:
            # OpenAI may only be slow to list it.
            assert site.step(rounds=3, size=1000) == 0
            assert server.shelf.batches == {}
            monkeypatch.setattr(story, "GRACE_S", 0.0)
        sql(site.engine, "UPDATE batches SET not_before = 0")
        site.step(rounds=30, size=1000)
        assert site.labels(job_id) == site.expected(job_id)
        assert len(server.shelf.batches) == 1
        assert sql(site.engine, "SELECT count(*) FROM reservations WHERE cost_nanos IS NULL") == [(0,)]


def test_odd_lines_of_a_bulk_are_asked_again_and_the_others_saved(site: Site) -> None:
    with FakeOpenAI(batches=[BatchPlan(odd_lines=5)]) as server:
        job_id = site.ask(8, oracles.bulk(server, reviews_per_prompt=1))
        site.step(rounds=30, size=1000)
        assert site.labels(job_id) == site.expected(job_id)
        assert sorted(server.asked.values()) == [1, 1, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("voice", "form"),
    [
        (VOICES["mistral"], "json_schema"),
        (dataclasses.replace(VOICES["groq"], unknown=()), "json_object"),
    ],
    ids=["parameters", "form"],
)
def test_what_one_bulk_teaches_is_no_fault_of_those_that_were_submitted_before(
    site: Site, voice: Voice, form: str
) -> None:
    with FakeOpenAI(voice=voice) as server:
        learnt = Learnt()
        job_id = site.ask(24, oracles.bulk(server, reviews_per_prompt=3, learnt=learnt))
        site.step(rounds=60, size=12)
        assert site.queries.jobs.get(job_id).error is None
        assert site.labels(job_id) == site.expected(job_id)
        # Each Bulk's refusal counts against the form that it asked for.
        assert learnt.dialect.form == form


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (BatchPlan(fail_lines=1000, fail_status=400), "answered 400 bad_value."),
        (BatchPlan(odd_lines=1000), "answered 200: the answer isn't a completion."),
    ],
    ids=["refused", "odd"],
)
def test_a_bulk_of_which_every_line_is_refused_stops_its_job(site: Site, plan: BatchPlan, said: str) -> None:
    with FakeOpenAI(batches=[plan]) as server:
        job_id = site.ask(40, oracles.bulk(server, reviews_per_prompt=10))
        site.step(rounds=30, size=1000)
        found = site.queries.jobs.get(job_id)
        assert found.state == "stopped"
        assert str(found.error).startswith(f"the server refuses every request: {server.url} {said}")
        assert len(server.shelf.batches) == 1
        assert site.errors(job_id) == [f"not asked: {found.error}"] * 40
        # Once it is mended, `retry` goes on.
        site.ledger.jobs.retry(job_id)
        site.step(rounds=30, size=1000)
        assert site.labels(job_id) == site.expected(job_id)


def test_a_bulk_of_reviews_at_fault_alone_stops_nothing(site: Site) -> None:
    # First the others are answered, then three reviews alone are refused again and again.
    refused = BatchPlan(fail_lines=3, fail_status=400)
    with FakeOpenAI(batches=[refused] * 3) as server:
        job_id = site.ask(20, oracles.bulk(server, reviews_per_prompt=1))
        site.step(rounds=60, size=1000)
        assert site.queries.jobs.state(job_id) == "done"
        assert site.labels(job_id).count(None) == 3
        assert len(server.shelf.batches) == 3


def test_a_bulk_that_is_refused_as_a_whole_twice_stops_its_job(site: Site) -> None:
    with FakeOpenAI(batches=[BatchPlan(status="failed", errors=("model_not_found",))] * 3) as server:
        job_id = site.ask(20, oracles.bulk(server))
        site.step(rounds=60, size=1000)
        found = site.queries.jobs.get(job_id)
        assert found.state == "stopped"
        assert "refuses every request: the Batch API answered: model_not_found" in str(found.error)
        assert len(server.shelf.batches) == 2


def test_a_bulk_that_does_not_say_what_it_took_is_taken_to_have_used_all(site: Site) -> None:
    with FakeOpenAI(batches=[BatchPlan(usage=False)]) as server:
        job_id = site.ask(8, oracles.bulk(server, reviews_per_prompt=2))
        site.step(rounds=30, size=1000)
        reserved = sql(site.engine, "SELECT sum(reserved_nanos) FROM reservations")[0][0]
        assert site.queries.jobs.get(job_id).spent == Money(reserved).dollars


def test_a_bulk_larger_than_its_budget_is_sent_in_parts(site: Site) -> None:
    with FakeOpenAI() as server:
        # All 40 could cost 0.0058 at most, and do cost a third of it.
        job_id = site.ask(40, oracles.bulk(server, reviews_per_prompt=5), max_cost=0.004)
        for _ in range(12):
            site.step(rounds=20, size=1000)
            sql(site.engine, "UPDATE batches SET not_before = 0 WHERE state = 'parked'")
        assert site.labels(job_id) == site.expected(job_id)
        assert len(server.shelf.batches) > 1
        assert site.queries.jobs.get(job_id).spent <= 0.004


def test_a_file_too_large_for_the_batch_api_is_halved(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST_BYTES", 20_000)
    with FakeOpenAI() as server:
        job_id = site.ask(60, oracles.bulk(server, reviews_per_prompt=2))
        site.step(rounds=60, size=1000)
        assert site.labels(job_id) == site.expected(job_id)
        assert len(server.shelf.batches) > 1
        assert sql(site.engine, "SELECT count(*) FROM reservations WHERE cost_nanos IS NULL") == [(0,)]


def test_what_a_server_says_in_words_is_kept_nowhere(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    plan = BatchPlan(status="failed", errors=("line 3: 'SECRET review'", "invalid_json_line"))
    with FakeOpenAI(batches=[plan] * 3) as server:
        job_id = site.ask(2, oracles.bulk(server))
        site.step(rounds=60, size=1000)
        assert all("invalid_json_line" in str(error) for error in site.errors(job_id))
        for table in ("bulks", "batches", "reviews"):
            assert "SECRET" not in str(sql(site.engine, f"SELECT error FROM {table}"))
        assert "SECRET" not in caplog.text


def test_a_lease_is_kept_while_a_call_takes_longer(site: Site) -> None:
    site.ledger = Ledger(site.engine, max_attempts=3, lease_s=0.3)
    with FakeOpenAI() as server:
        job_id = site.ask(1, oracles.oracle(server, timeout_s=240.0))
        pack(site.ledger)
        (batch_id,) = site.ledger.publishing.choose("openai", window=10)
        answer, ends = server.answer, set[object]()

        def wait_for_renewals(route: str, body: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
            while len(ends) < 4:
                ends.update(sql(site.engine, "SELECT lease_until FROM batches WHERE id = :id", id=batch_id))
            return answer(route, body, fault)

        server.answer = wait_for_renewals  # type: ignore[method-assign]
        ask_prompt(
            batch_id,
            ledger=site.ledger,
            oracle_for=site.oracle_for,
            gate_for=lambda scorer: site.gate,
            publish=lambda lane, batch_ids: None,
            window=1000,
            retry_delay_s=0.0,
        )
        assert len(server.calls) == 1
        assert site.labels(job_id) == site.expected(job_id)


def test_paid_answers_outlive_a_database_that_is_away_for_a_moment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "SAVE_AGAIN_S", 0.0)
    save, away = Prompts.save, [DatabaseBusy("locked"), DatabaseBusy("locked")]

    def unlucky(*arguments: Any, **options: Any) -> None:
        if away:
            raise away.pop()
        save(*arguments, **options)

    monkeypatch.setattr(Prompts, "save", unlucky)
    with FakeOpenAI() as server:
        job_id = site.ask(5, oracles.oracle(server))
        site.step()
        assert site.labels(job_id) == site.expected(job_id)
        assert len(server.calls) == 1


def test_one_message_is_enough_for_many_prompts_and_none_for_those_after_a_failure(site: Site) -> None:
    with FakeOpenAI(tape=[*[None] * 6, Fault("status", status=401, code="invalid_api_key")]) as server:
        first = site.ask(4, oracles.oracle(server), priority=1)
        second = site.ask(6, oracles.oracle(server))
        pack(site.ledger, size=1)
        (message,) = site.ledger.publishing.choose("openai", window=1)
        entered: list[None] = []

        def counting() -> AbstractContextManager[None]:
            entered.append(None)
            return nullcontext()

        answered = ask_prompt(
            message,
            ledger=site.ledger,
            oracle_for=site.oracle_for,
            gate_for=lambda scorer: site.gate,
            publish=lambda lane, batch_ids: None,
            window=1,
            retry_delay_s=0.0,
            goes_on=lambda: True,
            counting=counting,
        )
    assert (answered, len(server.calls), len(entered)) == (6, 7, 7)
    # The first job's end is seen though the task went on with another one's.
    assert site.queries.jobs.state(first) == "done"
    assert site.labels(first) == site.expected(first)
    waiting = "SELECT count(*) FROM batches WHERE state = 'queued' AND attempts = 0"
    assert sql(site.engine, waiting) == [(4,)]
    assert site.labels(second).count(None) == 4
