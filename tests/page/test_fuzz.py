"""Uploads and requests that nobody means well with; `python -m tests.faults.page` sends hundreds."""

from __future__ import annotations

from pathlib import Path

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.faults.page import seeds, send

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


def test_damaged_uploads_are_refused_or_answered(client: httpx.Client, tmp_path: Path) -> None:
    counts, wrong = send(client, seeds(tmp_path), seed=7, count=40)
    assert wrong == [] and sum(counts.values()) == 40
    assert counts["200"] and counts["400"]


def test_answers_are_as_the_openapi_document_says(client: httpx.Client) -> None:
    document = schemathesis.openapi.from_url(f"{str(client.base_url).rstrip('/')}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert [operation.path for operation in operations] == ["/v1/image", "/v1/video", "/v1/model", "/healthz"]
    for operation in operations:

        @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
        @given(operation.as_strategy())
        def conforms(case: Case) -> None:
            case.call_and_validate(checks=CHECKS)

        conforms()
