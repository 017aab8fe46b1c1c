"""The OpenAPI document says what the code does, and Schemathesis finds nothing else."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import psycopg
import pytest
import requests
import yaml

from receiver.app import create_app
from receiver.routes.documentation import OPENAPI
from receiver.settings import ReceiverSettings
from tests import PROJECT
from tests.receiver.conftest import PROBLEM_TYPE, Receiver, assert_problem

DOCUMENT: dict[str, Any] = yaml.safe_load(OPENAPI.read_text())
OPERATIONS = {
    operation["operationId"]: operation for methods in DOCUMENT["paths"].values() for operation in methods.values()
}

# Answers to faults, which test_faults and test_gateway bring about.
FAULTS = {408, 500, 503}

GUARDED = (400, 401, 429)  # answers to clients that are not known, have no key, or are over the limit

JSON = {"content-type": "application/json"}
REQUESTS: dict[tuple[str, int], tuple[str, str, dict[str, Any]]] = {
    ("post_coins", 202): ("POST", "/coins", {"json": {"coins": ["bitcoin", ""]}}),
    ("post_coins", 400): ("POST", "/coins", {"data": "{", "headers": JSON}),
    ("post_coins", 413): ("POST", "/coins", {"data": "x" * 2**21, "headers": JSON}),
    ("post_coins", 415): ("POST", "/coins", {"data": "x"}),
    ("post_coins", 422): ("POST", "/coins", {"json": {"coins": [""]}}),
    ("list_coins", 200): ("GET", "/coins?exchange=binance", {}),
    ("list_coins", 404): ("GET", "/coins?id=nonesuch", {}),
    ("list_coins", 422): ("GET", "/coins?limit=0", {}),
    ("get_coin", 200): ("GET", "/coins/bitcoin", {}),
    ("get_coin", 404): ("GET", "/coins/nonesuch", {}),
    ("get_submission", 200): ("GET", "/submissions/1", {}),
    ("get_submission", 404): ("GET", "/submissions/999", {}),
    ("get_livez", 200): ("GET", "/livez", {}),
    ("get_readyz", 200): ("GET", "/readyz", {}),
    ("get_metrics", 200): ("GET", "/metrics", {}),
    ("get_openapi", 200): ("GET", "/openapi.json", {}),
    ("get_docs", 200): ("GET", "/docs", {}),
}


@pytest.fixture
def data(connection: psycopg.Connection, receiver: Receiver) -> None:
    connection.execute("INSERT INTO coins (id, exchanges, complete) VALUES ('bitcoin', '{binance}', true)")
    assert receiver.post_ids("bitcoin", "nonesuch").json()["submission"] == 1


def assert_documented(operation: str, response: requests.Response) -> None:
    """Check an answer's media type and shape against the document."""
    documented = OPERATIONS[operation]["responses"][str(response.status_code)]
    if "$ref" in documented:
        documented = DOCUMENT["components"]["responses"][documented["$ref"].split("/")[-1]]
    assert not response.headers["content-type"].endswith("json") or response.content.endswith(b"\n")
    media_type = response.headers["content-type"].split(";")[0]
    schema = documented["content"][media_type]["schema"]
    if media_type.endswith("json"):
        jsonschema_rs.validate({**schema, "components": DOCUMENT["components"]}, response.json())
    if response.status_code >= 400:
        assert_problem(response, response.status_code)


def test_the_document_has_the_routes_of_the_code() -> None:
    app = create_app(ReceiverSettings(database_url="postgresql://"))
    coded = {
        (
            rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}"),
            method.lower(),
            rule.endpoint.split(".")[-1],
        )
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith("swagger_ui.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    documented = {
        (path, method, operation["operationId"])
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }
    assert coded == documented


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(("operation", "status"), REQUESTS)
def test_every_documented_answer_is_given_as_documented(receiver: Receiver, operation: str, status: int) -> None:
    method, path, arguments = REQUESTS[operation, status]
    response = receiver.request(method, path, **arguments)
    assert response.status_code == status
    assert_documented(operation, response)


def test_every_documented_answer_is_tested() -> None:
    documented = {(name, int(status)) for name, operation in OPERATIONS.items() for status in operation["responses"]}
    guarded = {(name, status) for name, operation in OPERATIONS.items() if "security" not in operation
               for status in GUARDED}  # fmt: skip
    assert {pair for pair in documented if pair[1] not in FAULTS} == set(REQUESTS) | guarded


@pytest.mark.parametrize("operation", sorted(name for name in OPERATIONS if "security" not in OPERATIONS[name]))
def test_answers_to_clients_that_may_not_are_as_documented(
    start_receiver: Callable[..., Receiver], operation: str
) -> None:
    guarded = start_receiver(RECEIVER_API_KEYS="ann:a", RECEIVER_RATE_LIMIT="1/hour", RECEIVER_TRUSTED_PROXIES="1")
    method, path, arguments = next(REQUESTS[pair] for pair in REQUESTS if pair[0] == operation)
    for status in GUARDED:
        guarded.http.headers["X-Forwarded-For"] = "unknown" if status == 400 else "192.0.2.1"
        response = guarded.request(method, path, **arguments)
        assert response.status_code == status
        assert_documented(operation, response)


def test_faults_are_documented_as_problems() -> None:
    for operation in OPERATIONS.values():
        for status in FAULTS & {int(status) for status in operation["responses"]}:
            name = operation["responses"][str(status)]["$ref"].split("/")[-1]
            assert list(DOCUMENT["components"]["responses"][name]["content"]) == [PROBLEM_TYPE]


def test_the_document_describes_every_parameter_and_has_an_example_of_every_answer() -> None:
    for name, operation in OPERATIONS.items():
        assert all(parameter.get("description") for parameter in operation["parameters"]), name
        for status, response in operation["responses"].items():
            described = (
                DOCUMENT["components"]["responses"][response["$ref"].split("/")[-1]] if "$ref" in response else response
            )
            for media_type, content in described["content"].items():
                example = content["example"]
                if media_type.endswith("json"):
                    schema = {**content["schema"], "components": DOCUMENT["components"]}
                    jsonschema_rs.validate(schema, example)
                assert int(status) < 400 or example["status"] == int(status)


def test_the_docs_are_swagger_ui_and_need_no_network(receiver: Receiver) -> None:
    page = receiver.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) >= 4
    for source in sources:
        assert source.startswith("/docs/")
        response = receiver.get(source)
        assert (response.status_code, len(response.content)) == (200, int(response.headers["content-length"]))
    assert '"url": "/openapi.json"' in page
    assert '"tryItOutEnabled": true' in page
    assert '"validatorUrl": null' in page
    assert_problem(receiver.get("/docs/../../settings.py".replace("..", "%2E%2E")), 404)


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("seconds", [20, pytest.param(60, marks=pytest.mark.faults)])
def test_schemathesis_finds_nothing(receiver: Receiver, tmp_path: Path, seconds: int) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{receiver.port}/openapi.json"),
        *("--max-time", str(seconds), "--generation-deterministic"),
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.receiver.schemathesis_hooks",
        "PYTHONPATH": str(PROJECT),
    }
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
