"""The schema on both databases: made by Alembic alone, and checked before use."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

# pytest-alembic's four built-in tests, run here on both databases.
from pytest_alembic.tests import (  # noqa: F401
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Engine, inspect, text

from worker.errors import SchemaMismatch
from worker.store.engine import make_engine
from worker.store.schema import alembic_config, check_schema, current_revision, head_revision, upgrade


@pytest.fixture
def alembic_engine(empty_database_url: str) -> Iterator[Engine]:
    engine = make_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture(name="alembic_config")
def _alembic_config() -> Config:
    return alembic_config()


@pytest.fixture
def empty(alembic_engine: Engine) -> Engine:
    return alembic_engine


def test_an_empty_database_is_told_to_upgrade_and_then_fits(empty: Engine) -> None:
    with pytest.raises(SchemaMismatch, match="is empty: run `loracle db upgrade`"):
        check_schema(empty)
    assert current_revision(empty) is None
    upgrade(empty)
    check_schema(empty)
    assert current_revision(empty) == head_revision()
    upgrade(empty)


def test_the_revision_that_is_checked_for_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == head_revision()


def test_alembic_check_finds_nothing_to_migrate(engine: Engine) -> None:
    with engine.begin() as connection:
        command.check(alembic_config(connection))


def test_a_database_behind_is_told_to_upgrade(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    behind = head_revision()
    monkeypatch.setattr("worker.store.schema.head_revision", lambda: "9999")
    with pytest.raises(SchemaMismatch, match=rf"at revision {behind}.*needs 9999: run `loracle db upgrade`"):
        check_schema(engine)


def test_a_database_ahead_asks_for_a_newer_loracle_and_stays_as_it_is(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'future'"))
    with pytest.raises(SchemaMismatch, match="upgraded by a newer Loracle"):
        check_schema(engine)
    with pytest.raises(SchemaMismatch, match="upgraded by a newer Loracle"):
        upgrade(engine)
    assert current_revision(engine) == "future"


def test_two_upgrades_at_once_make_one_schema(empty: Engine) -> None:
    errors: list[Exception] = []
    barrier = threading.Barrier(3)

    def run() -> None:
        barrier.wait()
        engine = make_engine(empty.url.render_as_string(hide_password=False))
        try:
            upgrade(engine)
        except Exception as error:
            errors.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    check_schema(empty)


def test_foreign_keys_are_enforced(engine: Engine) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"), engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO rejects (job_id, row_no, line_no, kind, reason) VALUES (1, 1, 1, 'unreadable', 'x')"
            )
        )


def test_results_has_a_row_per_review_and_says_whose_label_is_final(engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO adapters (id, name, sha256, manifest, created_at) VALUES (1, 'a', 'a', '{}', 0)",
            "INSERT INTO jobs (id, identity, name, source, state, policy, adapter_id, oracle_id, priority, "
            "batch_size, max_rejects, options, records_read, created_at) "
            "VALUES (1, 'i', 'n', 's', 'running', 'cascade', 1, 2, 0, 8, 0.1, '{}', 9, 0)",
            "INSERT INTO scorers (id, sha256, kind, name, details, created_at) VALUES "
            "(1, 'a', 'adapter', 'minilm', '{}', 0), (2, 'o', 'openai', 'gpt', '{}', 0)",
            "INSERT INTO reviews (job_id, row_no, external_id, text, text_sha256, gold_label, error) VALUES "
            + ", ".join(
                f"(1, {row}, 'x{row}', 't{row}', '', NULL, {'NULL' if row != 5 else repr('refused')})"
                for row in range(1, 9)
            ),
            "INSERT INTO requests (job_id, row_no, scorer_id, reason, state, created_at) VALUES "
            "(1, 2, 2, 'cascade', 'labelled', 0), (1, 3, 2, 'cascade', 'failed', 0), "
            "(1, 4, 2, 'audit', 'labelled', 0), (1, 5, 2, 'fallback', 'refused', 0), "
            "(1, 6, 2, 'policy', 'labelled', 0), (1, 7, 2, 'policy', 'open', 0)",
            "INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, cost_nanos, created_at) VALUES "
            "(1, 1, 'adapter', 1, 'pos', 0.9, NULL, 0), (1, 2, 'adapter', 1, 'pos', 0.6, NULL, 0), "
            "(1, 2, 'oracle', 2, 'neg', 0.8, 500000000, 0), "
            "(1, 3, 'adapter', 1, 'pos', 0.7, NULL, 0), (1, 4, 'adapter', 1, 'pos', 0.7, NULL, 0), "
            "(1, 4, 'oracle', 2, 'neg', 1, 500000000, 0), "
            "(1, 6, 'adapter', 1, 'pos', 0.7, NULL, 0), (1, 6, 'oracle', 2, 'neg', NULL, 250000000, 0), "
            "(1, 7, 'adapter', 1, 'pos', 0.7, NULL, 0)",
            "INSERT INTO batches (id, job_id, lane, scorer_id, rank, number, first_row, last_row, size, state, "
            "attempts, created_at) VALUES (1, 1, 'openai', 2, 0, 0, 0, 0, 3, 'done', 1, 0), "
            "(2, 1, 'openai', 2, 0, 0, 0, 0, 3, 'running', 1, 0)",
            # Of calls that gave no label too; one that nobody heard of again; one under way.
            "INSERT INTO reservations (job_id, batch_id, reserved_nanos, cost_nanos, tokens, created_at) VALUES "
            "(1, 1, 2000000000, 1250000000, 40, 0), (1, 1, 2000000000, 500000000, 20, 0), "
            "(1, 1, 750000000, NULL, NULL, 0), "
            "(1, 2, 2000000000, NULL, NULL, 0)",
        ):
            connection.execute(text(statement))
        rows = connection.execute(
            text(
                "SELECT row_no, label, score, source, scorer, error, asked, cost "
                "FROM results WHERE job_id = 1 ORDER BY row_no"
            )
        ).all()
        costs = connection.execute(
            text("SELECT scorer, labels, paid_labels, tokens, cost, lost FROM costs ORDER BY scorer_id")
        )
        assert [tuple(row) for row in costs] == [
            ("minilm", 6, 0, 0, 0.0, 0.0),
            ("gpt", 3, 3, 60, 1.75, 0.75),
        ]
    assert [tuple(row) for row in rows] == [
        (1, "pos", 0.9, "adapter", "minilm", None, None, None),
        (2, "neg", 0.8, "oracle", "gpt", None, "cascade", 0.5),
        (3, "pos", 0.7, "adapter_unconfirmed", "minilm", None, "cascade", None),
        # An audit never decides.
        (4, "pos", 0.7, "adapter", "minilm", None, "audit", None),
        (5, None, None, None, None, "refused", "fallback", None),
        # The oracle gave no probability: the adapter's isn't the label's.
        (6, "neg", None, "oracle", "gpt", None, "policy", 0.25),
        # Under the policy `oracle` the adapter only audits.
        (7, None, None, None, None, None, "policy", None),
        (8, None, None, None, None, None, None, None),
    ]
    assert [column["name"] for column in inspect(engine).get_columns("results")] == [
        "job_id", "row_no", "id", "label", "score", "source", "scorer", "gold_label", "error", "asked", "cost",
        "corrected", "corrected_label", "labelled_at",
    ]  # fmt: skip


def test_a_correction_is_gold_and_leaves_the_final_label_as_it_is(engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO adapters (id, name, sha256, manifest, created_at) VALUES (1, 'a', 'a', '{}', 0)",
            "INSERT INTO jobs (id, identity, name, source, state, policy, adapter_id, priority, batch_size, "
            "max_rejects, options, records_read, created_at) "
            "VALUES (1, 'i', 'n', 's', 'done', 'adapter', 1, 0, 8, 0.1, '{}', 3, 0)",
            "INSERT INTO scorers (id, sha256, kind, name, details, created_at) VALUES (1, 'a', 'stub', 'm', '{}', 0)",
            "INSERT INTO reviews (job_id, row_no, text, text_sha256, gold_label) VALUES "
            "(1, 1, 'a', '', 'pos'), (1, 2, 'b', '', NULL), (1, 3, 'c', '', 'neg')",
            "INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, created_at) VALUES "
            "(1, 1, 'adapter', 1, 'pos', 0.9, 7.5), (1, 2, 'adapter', 1, 'pos', 0.9, 8.5)",
            "INSERT INTO corrections (job_id, row_no, label, created_at) VALUES (1, 1, 'neg', 9), (1, 2, 'pos', 9)",
        ):
            connection.execute(text(statement))
        rows = connection.execute(
            text(
                "SELECT row_no, label, gold_label, corrected, corrected_label, labelled_at FROM results "
                "ORDER BY row_no"
            )
        ).all()
    assert [tuple(row) for row in rows] == [
        (1, "pos", "neg", 1, "neg", 7.5),
        (2, "pos", "pos", 1, "pos", 8.5),
        (3, None, "neg", 0, None, None),
    ]
