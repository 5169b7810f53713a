"""What the API's description promises, tried with made-up requests: no answer is a 500 or of another shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.checks import content_type_conformance, not_a_server_error, response_schema_conformance

from tests.contract.rated import rate
from tests.web import program, site
from worker.bootstrap import open_store
from worker.settings import Settings

HEADERS = {"host": "localhost", "user-agent": "a program"}
EXAMPLES = 12
"""Of each operation."""


@pytest.fixture
def web_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    store = open_store(Settings(_env_file=None, home=tmp_path))
    rate(store.ledger)
    stub = store.ledger.adapters.register_stub()
    monkeypatch.setattr("worker.web.predict.default_adapter", lambda *_: (stub, "active"))
    with program(site(store, tmp_path)) as client:
        yield schemathesis.openapi.from_asgi(
            "/openapi.json", client.app, headers={"host": "localhost", "user-agent": "x"}
        )


schema = schemathesis.pytest.from_fixture("web_schema")


@schema.parametrize()
@settings(max_examples=EXAMPLES)
def test_every_operation_answers_as_described(case: schemathesis.Case) -> None:
    if "job_id" in case.path_parameters:
        case.path_parameters["job_id"] = (
            1 if case.path_parameters["job_id"] % 2 else case.path_parameters["job_id"]
        )
    # A job that is over can be followed to its end.
    case.call_and_validate(
        headers=HEADERS,
        checks=[not_a_server_error, content_type_conformance, response_schema_conformance],
    )
