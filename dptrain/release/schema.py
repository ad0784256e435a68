"""What the server says of itself in OpenAPI: exactly what it accepts of the model that it serves now.

The bounds, the shape and the most examples that stand in the description are the numbers by which requests are refused
(:mod:`dptrain.release.reading`), so that a client, or a test, can be made from it.
"""

from typing import Any

from dptrain.release.loading import Served
from dptrain.release.reading import JSON, NPY, SLACK, Form

ERROR = {
    "type": "object",
    "required": ["error", "accepted"],
    "additionalProperties": False,
    "properties": {
        "error": {"type": "string", "description": "What is wrong."},
        "accepted": {"type": "string", "description": "What is accepted, or what to do."},
    },
}
TEXT: dict[str, Any] = {"type": "string"}
FLAG: dict[str, Any] = {"type": "boolean"}
REASONS = {
    400: "The request is malformed.",
    401: "There is no key, or it is not in force.",
    403: "The key does not open this, or the client's queries look like probing.",
    404: "There is no such page.",
    405: "The page does not know this method.",
    408: "The body did not arrive in time.",
    409: "The new release cannot be served; the one before stays.",
    413: "The body is too large.",
    415: "The content type is not known.",
    422: "The inputs are not what the model reads.",
    429: "The client asks for too much. Retry-After says for how long, where waiting helps.",
    503: "The server is busy, or took too long.",
}
_DESCRIBED = {
    "/v1/predict": (200, 400, 401, 403, 408, 413, 415, 422, 429, 503),
    "/v1/reload": (200, 401, 403, 409),
    "/v1/statistics": (200, 401, 403),
    "/metrics": (200, 401, 403),
}


def describe(document: dict[str, Any], served: Served, form: Form, needs_key: bool) -> dict[str, Any]:
    """The document that FastAPI makes of the routes, with this model's requests and answers in it."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key, dpt_..."}}
    components["schemas"] = {"Error": ERROR, "Request": _request(form), "Predictions": _predictions(served)}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            kept = operation["responses"]["200"] | {"description": "What was asked for."}
            operation["responses"] = {"200": kept} | {
                str(status): _response(status) for status in _DESCRIBED.get(path, (200,)) if status != 200
            }
            if (path != "/v1/predict" and path in _DESCRIBED) or (needs_key and path == "/v1/predict"):
                operation["security"] = [{"key": []}]
            else:
                operation["responses"].pop("401", None)
    predict = document["paths"]["/v1/predict"]["post"]
    predict["requestBody"] = {
        "required": True,
        "description": f"Accepted: {form.said}.",
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/Request"}},
            NPY: {"schema": {"type": "string", "format": "binary"}},
        },
    }
    predict["responses"]["200"]["content"] = {JSON: {"schema": {"$ref": "#/components/schemas/Predictions"}}}
    return document


def _response(status: int) -> dict[str, Any]:
    return {"description": REASONS[status], "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _request(form: Form) -> dict[str, Any]:
    low, high = form.bounds
    number: dict[str, Any] = {"type": "number", "minimum": low - SLACK, "maximum": high + SLACK}
    if form.whole:
        number = {"type": "integer", "minimum": int(low), "maximum": int(high)}
    if form.kind == "language":
        tokens = _list(_list(number, 1, form.shape[0]), 1, form.most)
        text = {"type": "string", "maxLength": form.longest}
        one_of = [_object(tokens=tokens), _object(texts=_list(text, 1, form.most))]
        return {"oneOf": one_of}
    schema = number
    for length in reversed(form.shape):
        schema = _list(schema, length, length)
    return _object(inputs=_list(schema, 1, form.most))


def _predictions(served: Served) -> dict[str, Any]:
    answer = _object(value={"type": ["number", "null"]}, refused=FLAG)
    if served.value is None:
        shown = _object(label=TEXT) | {"properties": {"label": TEXT, "score": {"type": "number", "minimum": 0, "maximum": 1}}}
        answer = _object(label={"type": ["string", "null"]}, top={"type": "array", "items": shown}, refused=FLAG)
    optional = {"unit": TEXT} if served.value is not None else {}
    return _object(answers={"type": "array", "items": answer}, guard={"type": ["string", "null"]}, **optional)


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


def _list(items: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}
