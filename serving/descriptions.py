"""What the OpenAPI description says of the requests and answers of the interfaces."""

from __future__ import annotations

from typing import Any

JSON, BINARY = "application/json", "application/octet-stream"

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What was expected, and what was found."}},
}


def _answers(**descriptions: str) -> dict[int | str, dict[str, Any]]:
    return {
        code.lstrip("_"): {"description": text, "content": {JSON: {"schema": _ERROR}}}
        for code, text in descriptions.items()
    }


NOT_READY = _answers(_503="No model is loaded yet.")
# Answers to questions about a model.
NOT_FOUND = _answers(_404="There is no such model, version or label.") | NOT_READY
# Answers that are an image.
IMAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The image.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/png", "image/jpeg")
        },
    }
}
# Answers to requests with images.
ERRORS = NOT_FOUND | _answers(
    _400="The request is not valid.",
    _408="The request did not arrive in time.",
    _413="The request is too large.",
    _500="The model failed; the server's log has the reason.",
    _429="The server is busy; `Retry-After` says in how many seconds to try again.",
)


def _body(schema: dict[str, Any], **types: Any) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}, **types}}}


PREDICT = _body(
    {
        "type": "object",
        "properties": {
            "signature_name": {"type": "string", "example": "serve_image_bytes"},
            "instances": {"type": "array", "minItems": 1, "items": {}, "example": [{"b64": "..."}]},
            "inputs": {},
        },
    }
)
CLASSIFY = _body(
    {
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string"},
            "context": {"type": "object"},
            "examples": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        },
    }
)
INFER = _body(
    {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["name", "shape", "datatype"],
                    "properties": {
                        "name": {"type": "string"},
                        "shape": {"type": "array", "items": {"type": "integer"}},
                        "datatype": {"type": "string"},
                        "parameters": {"type": "object"},
                        "data": {"type": "array", "items": {}},
                    },
                },
            },
            "outputs": {"type": "array", "items": {"type": "object"}},
        },
    },
    **{BINARY: {"schema": {"type": "string", "format": "binary"}}},
)
