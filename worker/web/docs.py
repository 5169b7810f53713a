"""The API's description as a page: from its own schema, without a script and without another site's files."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from worker.web.templating import templates

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def docs(request: Request) -> Response:
    """Every operation with its parameters, examples and answers."""
    schema = request.app.openapi()
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation.get("summary", ""),
            "text": operation.get("description", ""),
            "parameters": [_parameter(one) for one in operation.get("parameters", [])],
            "bodies": _contents(operation.get("requestBody", {}), schema),
            "answers": [
                {
                    "status": status,
                    "text": answer.get("description", ""),
                    "contents": _contents(answer, schema),
                }
                for status, answer in operation.get("responses", {}).items()
            ],
        }
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    context = {"operations": operations, "version": schema["info"]["version"]}
    return templates.TemplateResponse(request, "docs.html", context)


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    schema = parameter.get("schema", {})
    kinds = [one.get("type", "") for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    values: list[Any] = next((one["enum"] for one in schema.get("anyOf", [schema]) if "enum" in one), [])
    return {
        "name": parameter["name"],
        "where": parameter["in"],
        "kind": ", ".join(map(str, values)) or " or ".join(kinds),
        "default": schema.get("default"),
        "text": parameter.get("description", ""),
    }


def _contents(part: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for kind, content in part.get("content", {}).items():
        body = content.get("schema", {})
        if "$ref" in body:
            body = schema["components"]["schemas"][body["$ref"].rpartition("/")[2]]
        example = content.get("example", body.get("example"))
        if example is not None and not isinstance(example, str):
            example = json.dumps(example, indent=2, ensure_ascii=False)
        fields = {name: one.get("description", "") for name, one in body.get("properties", {}).items()}
        found.append({"kind": kind, "example": example, "fields": fields})
    return found
