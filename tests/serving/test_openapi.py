"""Requests made from the OpenAPI description: whatever arrives, the server does not fail."""

import hypothesis
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

# Made for each operation.
EXAMPLES = 20


def test_no_request_makes_the_server_fail(served):
    description = served.http.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(description)
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.seed(0)
        @hypothesis.given(case=operation.as_strategy())
        def ask(case):
            nonlocal asked
            asked += 1
            if "name" in case.path_parameters and asked % 2:
                case.path_parameters["name"] = "m"
            case.call_and_validate(
                base_url=served.url,
                checks=[not_a_server_error, status_code_conformance, content_type_conformance],
            )

        ask()
    assert asked > 200
