"""OpenAPI 3.1 from the table of routes: what is described is what is served.

Shapes of queries and bodies come from the structs that decode them; most answers are described in words, because they are free-form objects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from igor_node.http.problems import CONTENT_TYPE, Problem
from igor_node.http.routes import JOB, RUN, NoBody, NoQuery, Route, Where, template

REFUSALS = {
    400: "Malformed", 401: "No token", 403: "Role too small", 404: "Not found", 405: "Another method", 409: "Conflict", 410: "Gone",
    412: "Another version", 413: "Too large", 415: "Not JSON", 417: "Expects what cannot be", 421: "Another cluster, or not the leader",
    422: "Invalid", 428: "A condition is missing", 429: "Too many", 431: "Headers too large", 503: "No quorum",
}  # fmt: skip
REF = "#/components/schemas/{name}"
ANY = {"type": "object"}


def describe_routes(routes: Sequence[Route], version: str, cookie: str = "igor_session") -> dict[str, Any]:
    shown = [route for route in routes if not route.hidden]
    kinds = [kind for route in shown for kind in (route.body, route.answer) if kind is not None and kind not in (NoBody, list)]
    _, components = msgspec.json.schema_components([Problem, *kinds], ref_template=REF)
    paths: dict[str, Any] = {}
    for route in shown:
        paths.setdefault(template(route.path), {})[route.method.lower()] = operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Igor", "version": version, "description": "A masterless job scheduler. Any node answers every request."},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": cookie},
            },
        },
    }


def operation(route: Route) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": [*path_parameters(route), *query_parameters(route)],
        "responses": responses(route),
        "security": [] if route.role is None and not route.own_token else [{"token": []}, {"session": []}],
        "x-role": None if route.role is None else str(route.role),
        "x-reach": None if route.role is None else str(route.reach),
    }
    if route.body is not None and route.body is not NoBody:
        schema = {"$ref": REF.format(name=route.body.__name__)}
        described["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return described


def operation_id(route: Route) -> str:
    words = re.findall(r"[a-z]+", template(route.path).removeprefix("/v1"))
    return "_".join([route.method.lower(), *words])


def path_parameters(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", template(route.path))
    notes = {"job": "name, or project/name" if JOB in route.path else "", "run": "an id, a prefix of one, or JOB@latest" if RUN in route.path else ""}
    return [{"name": name, "in": "path", "required": True, "description": notes.get(name, ""), "schema": {"type": "string"}} for name in names]


def query_parameters(route: Route) -> list[dict[str, Any]]:
    found = []
    if route.query is not NoQuery:
        _, components = msgspec.json.schema_components([route.query], ref_template=REF)
        schema = components[route.query.__name__]
        found = [{"name": name, "in": "query", "schema": kind} for name, kind in schema["properties"].items()]
    if route.where is Where.READ:
        found.append({"name": "consistent", "in": "query", "description": "read as of now, at the leader", "schema": {"type": "boolean"}})
    return found


def schema_of(route: Route, content_type: str) -> dict[str, Any]:
    if content_type != "application/json":
        return {"type": "string"}
    if route.answer is list:
        return {"type": "array"}
    return ANY if route.answer is None else {"$ref": REF.format(name=route.answer.__name__)}


def responses(route: Route) -> dict[str, Any]:
    content_types = dict.fromkeys([*([route.stream] if route.stream else []), *route.content_types])
    good = {
        str(status): {"description": "Done", "content": {kind: {"schema": schema_of(route, kind)} for kind in content_types}}
        for status in route.statuses
    }
    problem = {CONTENT_TYPE: {"schema": {"$ref": REF.format(name="Problem")}}}
    return good | {str(status): {"description": words, "content": problem} for status, words in REFUSALS.items()}
