"""The OpenAPI page is true: whatever fits it, and much that does not, is answered without a server error."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from servers import Running


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_makes_a_server_error_and_answers_are_as_described(server: Running, mode: GenerationMode) -> None:
    """mode: requests that fit the schema, and requests that break it."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    asked = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # nothing in it that could be wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=[not_a_server_error, response_schema_conformance, status_code_conformance])

        check()
        asked.add(f"{operation.method.upper()} {operation.path}")
    assert "POST /v1/recommendations" in asked
    assert len(asked) >= 7
