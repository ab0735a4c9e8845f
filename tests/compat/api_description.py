"""The published descriptions of the Engine API, and the judging of answers by them.

A description is OpenAPI 2.0. It becomes JSON Schema with what it leaves unsaid about Go's encoder: a nil slice, map or
pointer is `null`, so an array or object may always be; a number or string only where `x-nullable` says so. Nothing
may be in an answer that is not described: a misspelt key would otherwise look like an addition.
"""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

DIRECTORY = Path(os.environ.get("NARU_API_DESCRIPTIONS") or Path(__file__).parents[3] / "shared/spec")
FILES = {"1.25": "engine-api-v1.25.yaml", "1.41": "engine-api-v1.41.yaml", "1.55": "engine-api.yaml"}
NEWEST = "1.55"

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")

# Where Docker's answers are not what its descriptions say, by the place in the description.
_NULLABLE = {"x-nullable": True}
_PORT_BINDING = {"type": "object", "properties": {"HostIp": {"type": "string"}, "HostPort": {"type": "string"}}}
_CORRECTIONS: dict[str, dict[str, Any]] = {
    # Pointers without "omitempty".
    "Resources.MemorySwappiness": _NULLABLE,
    "Resources.OomKillDisable": _NULLABLE,
    "GET /exec/{id}/json 200.ExitCode": _NULLABLE,
    "Resources.PidsLimit": _NULLABLE,
    # Mistakes of 1.25's description, put right in later ones.
    "IPAM.Options": {"type": "object", "additionalProperties": {"type": "string"}},
    "Config.Volumes": {"additionalProperties": {"type": "object"}},
    "GET /containers/{id}/json 200.ExecIDs": {"type": "array", "items": {"type": "string"}},
    "HostConfig.PortBindings.*": {"type": "array", "items": _PORT_BINDING},
    "NetworkConfig.Ports": {"type": "object", "additionalProperties": {"type": "array", "items": _PORT_BINDING}},
    "RestartPolicy.Name": {"enum": ["", "no", "always", "unless-stopped", "on-failure"]},
    "GET /system/df 200.Containers": {"items": {"type": "object"}},
    # The last line of a failed build or load still has it, for clients that do not know errorDetail.
    "BuildInfo": {"properties": {"error": {"type": "string"}}},
    # Kept for docker-compose 1.29.
    "ImageInspect": {"properties": {"ContainerConfig": {"type": "object"}}},
    "PushImageInfo": {"properties": {"error": {"type": "string"}}},
    "CreateImageInfo": {"properties": {"error": {"type": "string"}, "stream": {"type": "string"}}},
}

# In events from before there were descriptions, until 1.52.
_UNDESCRIBED_KEYS = {"status", "id", "from"}

ASKING_A_REGISTRY = (
    "POST /images/create",
    "POST /images/{name}/push",
    "POST /auth",
    "GET /images/search",
    "GET /distribution/{name}/json",
)

# Statuses that Docker answers with and its descriptions do not list.
UNDESCRIBED_STATUSES = {
    ("DELETE /containers/{id}", 409): "it runs",
    ("DELETE /networks/{id}", 403): "containers are on it",
    ("GET /images/get", 404): "no such image",
    ("GET /images/{name}/get", 404): "no such image",
    ("POST /containers/{id}/kill", 409): "it does not run",
    ("POST /containers/{id}/pause", 409): "it is paused",
    ("POST /containers/{id}/unpause", 409): "it is not paused",
    ("POST /networks/create", 409): "the name is taken",
    **{(name, 503): "the registry cannot be reached; Docker says 500" for name in ASKING_A_REGISTRY},
}


@dataclass(frozen=True)
class Operation:
    """One method of one path, `template`."""

    method: str
    template: str
    parameters: list[dict[str, Any]]
    responses: dict[int, dict[str, Any]]
    produces: list[str]

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"


class Description:
    """One version's description."""

    def __init__(self, version: str) -> None:
        path = DIRECTORY / FILES[version]
        if not path.exists():
            pytest.skip(f"needs the description of the API, {path} (NARU_API_DESCRIPTIONS names the directory)")
        self.version = version
        self._raw = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        self.operations = {operation.name: operation for operation in self._operations()}
        self._routes = [(_pattern(operation.template), operation) for operation in self._by_precision()]

    def _operations(self) -> list[Operation]:
        found = []
        for template, methods in self._raw["paths"].items():
            shared = methods.get("parameters", [])
            for method, raw in methods.items():
                if method != "parameters":
                    responses = {int(status): answer for status, answer in raw["responses"].items()}
                    produces = raw.get("produces") or self._raw["produces"]
                    parameters = [*shared, *raw.get("parameters", [])]
                    found.append(Operation(method.upper(), template, parameters, responses, produces))
        return found

    def _by_precision(self) -> list[Operation]:
        return sorted(self.operations.values(), key=lambda operation: operation.template.count("{"))

    def find(self, method: str, path: str) -> Operation:
        """Return the operation that a request is for."""
        for pattern, operation in self._routes:
            if operation.method == method and pattern.fullmatch(path):
                return operation
        raise KeyError(f"{method} {path} is not described in {self.version}")

    def body_schema(self, operation: Operation) -> dict[str, Any] | None:
        """Return the schema of an operation's request body, as JSON Schema."""
        for parameter in operation.parameters:
            if parameter["in"] == "body":
                return self._compile(parameter.get("schema", {}), operation.name)
        return None

    def answer_schema(self, operation: Operation, status: int) -> dict[str, Any] | None:
        """Return the schema of an answer; None where it has none."""
        raw = operation.responses[status].get("schema")
        return None if raw is None else self._compile(raw, f"{operation.name} {status}")

    @functools.cache  # noqa: B019 - descriptions live as long as the tests
    def definition(self, name: str) -> dict[str, Any]:
        """Return a named type as JSON Schema."""
        return self._compile(self._raw["definitions"][name], name)

    def has_definition(self, name: str) -> bool:
        return name in self._raw["definitions"]

    def _compile(self, raw: dict[str, Any], where: str) -> dict[str, Any]:
        """Return an OpenAPI schema as JSON Schema without references; `where` names it for the corrections."""
        if "$ref" in raw:
            return self.definition(raw["$ref"].removeprefix("#/definitions/"))
        correction = _CORRECTIONS.get(where, {})
        if "properties" in correction:
            correction = {"properties": raw["properties"] | correction["properties"]}
        elif "additionalProperties" in correction:
            raw = {key: value for key, value in raw.items() if key != "properties"}
        raw = raw | correction
        if "allOf" in raw:
            return self._merged(raw, where)
        kind = raw.get("type") or ("object" if "properties" in raw or "additionalProperties" in raw else None)
        schema: dict[str, Any] = {"x-where": where}
        nullable = raw.get("x-nullable", False)
        kinds = kind if isinstance(kind, list) else [kind]
        if kind is not None:
            nullable = nullable or "object" in kinds or "array" in kinds
            schema["type"] = [*kinds, *(["null"] if nullable else [])]
        if "enum" in raw:
            schema["enum"] = [*raw["enum"], *([None] if nullable else [])]
        if raw.get("format") in ("dateTime", "date-time"):
            schema["format"] = "moment"
        if str(raw.get("format")).startswith("uint"):
            schema["minimum"] = 0
        for key in ("minimum", "maximum", "minItems", "maxItems", "required"):
            if isinstance(raw.get(key), int | list):
                schema[key] = raw[key]
        if "items" in raw:
            schema["items"] = self._compile(raw["items"], f"{where}[]")
        if kind == "object":
            self._compile_object(raw, schema, where)
        return schema

    def _compile_object(self, raw: dict[str, Any], schema: dict[str, Any], where: str) -> None:
        properties = raw.get("properties", {})
        schema["properties"] = {key: self._compile(value, f"{where}.{key}") for key, value in properties.items()}
        more = raw.get("additionalProperties")
        if isinstance(more, dict):
            schema["additionalProperties"] = self._compile(more, f"{where}.*")
        else:
            schema["additionalProperties"] = bool(more) or not properties

    def _merged(self, raw: dict[str, Any], where: str) -> dict[str, Any]:
        """Return one object of all the parts of an `allOf`."""
        own = {key: value for key, value in raw.items() if key != "allOf"}
        parts = [self._compile(part, where) for part in [*raw["allOf"], *([own] if "properties" in own else [])]]
        merged: dict[str, Any] = {**parts[0], "x-where": where}
        for part in parts[1:]:
            if "type" in part and "type" not in merged:
                merged["type"] = part["type"]
            merged["properties"] = merged.get("properties", {}) | part.get("properties", {})
            merged["required"] = [*merged.get("required", []), *part.get("required", [])]
        if raw.get("x-nullable") and isinstance(merged.get("type"), str):
            merged["type"] = [merged["type"], "null"]
        if not merged.get("required"):
            merged.pop("required", None)
        if "properties" in merged:
            merged["additionalProperties"] = False
        return merged

    def problems(self, schema: dict[str, Any], value: object) -> list[str]:
        """Return what is wrong with `value`, a line each."""
        validator = jsonschema.Draft4Validator(schema, format_checker=_FORMATS)
        errors = (error for error in validator.iter_errors(value) if not self._is_of_later(error))
        return [_told(error) for error in errors]

    def _is_of_later(self, error: jsonschema.ValidationError) -> bool:
        """A field that came with a later version; Docker shows those to old clients too."""
        if self.version == NEWEST or error.validator != "additionalProperties":
            return False
        more = error.instance.keys() - error.schema.get("properties", {}).keys()
        return more <= description(NEWEST).all_keys | description("1.41").all_keys | _UNDESCRIBED_KEYS

    @functools.cached_property
    def all_keys(self) -> set[str]:
        """Return every property name of the description."""
        found: set[str] = set()
        _collect_keys(self._raw, found)
        return found


@functools.cache
def description(version: str) -> Description:
    """Return the description of `version`; skip the test if it is not on this machine."""
    return Description(version)


_FORMATS = jsonschema.FormatChecker(formats=())


@_FORMATS.checks("moment")
def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or value == "" or _MOMENT.fullmatch(value) is not None


def _told(error: jsonschema.ValidationError) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    where = error.schema.get("x-where", "") if isinstance(error.schema, dict) else ""
    return f"{place or '.'} ({where}): {error.message[:200]}"


def _pattern(template: str) -> re.Pattern[str]:
    """Return what matches a path; the names of images have slashes in them."""
    parts = re.split(r"(\{\w+\})", template)
    return re.compile(
        "".join(".+" if part == "{name}" else "[^/]+" if "{" in part else re.escape(part) for part in parts)
    )


def _collect_keys(raw: object, found: set[str]) -> None:
    if isinstance(raw, dict):
        properties = raw.get("properties")
        if isinstance(properties, dict):
            found.update(properties)
        for value in raw.values():
            _collect_keys(value, found)
    elif isinstance(raw, list):
        for value in raw:
            _collect_keys(value, found)


def loads(text: bytes) -> Any:
    """Return JSON; ValueError, with its beginning, if it is none."""
    try:
        return json.loads(text)
    except ValueError as err:
        raise ValueError(f"no JSON: {text[:80]!r}") from err
