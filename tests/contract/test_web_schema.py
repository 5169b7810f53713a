"""What the API's description promises, tried with made-up requests: no answer is a 500 or of another shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis.checks import content_type_conformance, not_a_server_error, response_schema_conformance

from tests.contract.rated import rate
from tests.web import site
from worker.bootstrap import open_store
from worker.reviews import OVER
from worker.settings import Settings
from worker.web.app import create_app

HEADERS = {"host": "localhost", "user-agent": "a program"}
EXAMPLES = 5
"""Of each operation."""
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


def test_every_operation_answers_as_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(Settings(_env_file=None, home=tmp_path))
    # A job that is over can be followed to its end.
    rate(store.ledger, audited=False)
    stub = store.ledger.adapters.register_stub()
    monkeypatch.setattr("worker.web.predict.default_adapter", lambda *_: (stub, "active"))
    app = create_app(site(store, tmp_path))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)
    tried = []
    for found in schema.get_all_operations():
        operation = found.ok()
        tried.append(operation.label)

        @given(case=operation.as_strategy())
        @settings(max_examples=EXAMPLES)
        def answers(case: schemathesis.Case) -> None:
            if "job_id" in case.path_parameters:
                # Else hardly one would be the job's.
                case.path_parameters["job_id"] = 1
            if "follow" in (case.query or {}) and store.queries.jobs.state(1) not in OVER:
                # Another operation has opened the job again, and nobody works on it.
                case.query["follow"] = False
            case.call_and_validate(headers=HEADERS, checks=CHECKS)

        answers()
    assert len(tried) >= 14
