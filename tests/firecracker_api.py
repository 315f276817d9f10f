"""What Firecracker's API takes, by its own description of it (firecracker-api-1.12.1.yaml, which is Firecracker's and
under its licence, Apache-2.0)."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_DESCRIPTION = Path(__file__).with_name("firecracker-api-1.12.1.yaml")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "string": str,
}


@cache
def description() -> dict[str, Any]:
    """All of it."""
    read: dict[str, Any] = yaml.safe_load(_DESCRIPTION.read_text())
    return read


def problems(method: str, path: str, body: object = None) -> list[str]:
    """What is wrong with a request. Firecracker itself takes no field that it does not know, so none is right here."""
    for template, methods in description()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[A-Za-z0-9_]+", template), path) and method.lower() in methods:
            parameters = methods[method.lower()].get("parameters", [])
            schemas = [each["schema"] for each in parameters if each["in"] == "body"]
            if not schemas:
                return [] if body is None else [f"{path}: it takes no body"]
            return list(_unlike(schemas[0], body, path))
    return [f"there is no {method} {path}"]


def _unlike(schema: dict[str, Any], value: object, where: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = description()["definitions"][schema["$ref"].rpartition("/")[2]]
    kind = schema.get("type", "object")
    if not isinstance(value, _TYPES[kind]) or (kind != "boolean" and isinstance(value, bool)):
        yield f"{where}: {value!r} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if isinstance(value, int):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{where}: {value} is too little or too much"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unlike(schema["items"], item, f"{where}[{number}]")
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        yield from (f"{where}: {name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, item in value.items():
            if name in properties:
                yield from _unlike(properties[name], item, f"{where}.{name}")
            else:
                yield f"{where}: {name} is not known"
