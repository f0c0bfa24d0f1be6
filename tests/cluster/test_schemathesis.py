"""Requests made from the page that describes the API, by whoever knows nothing but that page: no answer but those it names, none of them a 5xx.

`IGOR_EXAMPLES` gives another number of requests a route; the soak sends many more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from tests.harness.cluster import Cluster

pytestmark = pytest.mark.cluster

EXAMPLES, SOAK_EXAMPLES = 5, 500
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = ("/v1/events", "/stream")  # answers without an end
ENDS_THE_TEST = (("delete", "/v1/tokens/{token}"), ("delete", "/v1/nodes/{node}"), ("post", "/v1/nodes/{node}/leave"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(1) as started:
        started.push("shop", {"name": "idle", "command": "true"})
        started.wait_run(started.api("POST", "/v1/jobs/idle/runs", {})["id"])
        yield started


def battery(cluster: Cluster, examples: int) -> None:
    node = cluster.nodes[0]
    headers = {"Authorization": f"Bearer {cluster.token}"}
    schema: Any = schemathesis.openapi.from_dict(cluster.api("GET", "/v1/openapi.json"))
    asked, wrong = 0, []
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith(ENDLESS) or (operation.method.lower(), operation.path) in ENDS_THE_TEST:
            continue

        @seed(int(os.environ.get("IGOR_SEED") or 11))
        @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def one(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(base_url=node.address, headers=headers, checks=CHECKS, timeout=30)

        try:
            one()
        except (Exception, BaseExceptionGroup) as problem:
            told = [str(one) for one in getattr(problem, "exceptions", [problem])]
            wrong += [f"{operation.method.upper()} {operation.path}: {text}" for text in told]
    assert not wrong, "\n\n".join(wrong)
    assert asked > 50 * examples / 2
    assert node.running and cluster.wait_run(cluster.api("POST", "/v1/jobs/shop/idle/runs", {})["id"])["state"] == "succeeded"


def test_every_answer_is_one_that_the_page_names(cluster: Cluster) -> None:
    battery(cluster, int(os.environ.get("IGOR_EXAMPLES") or EXAMPLES))


@pytest.mark.soak
def test_every_answer_is_one_that_the_page_names_for_long(cluster: Cluster) -> None:
    battery(cluster, int(os.environ.get("IGOR_EXAMPLES") or SOAK_EXAMPLES))
