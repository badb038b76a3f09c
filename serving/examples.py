"""Images that a pushed model brings along, for people who want to try it: `assets.extra/examples/`."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import Annotated

import fastapi
from fastapi import FastAPI, Response

from serving import descriptions
from serving.endpoints import Name, json_response
from serving.engine import Engine
from serving.errors import RequestError
from serving.saved_model import Model

# Path within the SavedModel. The name of a file is the name of its class, in which `urllib.parse.quote` has
# replaced the characters that file names cannot have.
FOLDER = "assets.extra/examples"
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_MOST = 24

_File = Annotated[str, fastapi.Path(description="Name of a file of the list.")]


def add(app: FastAPI, engine: Engine) -> None:
    """Adds the paths of the examples of the version that answers."""
    path = "/v1/models/{name}/examples"

    # These are no coroutines, so that other requests are answered while files are read.
    @app.get(path, summary="Images to try the model with", responses=descriptions.NOT_FOUND)
    def examples(name: Name) -> Response:
        model = engine.repository.find(name, label="stable")
        found = [{"file": file.name, "class_name": _class_of(file)} for file in _files(model)]
        return json_response({"version": str(model.version), "examples": found})

    @app.get(
        f"{path}/{{file}}",
        summary="One of these images",
        response_class=Response,
        responses=descriptions.NOT_FOUND | descriptions.IMAGE,
    )
    def example(name: Name, file: _File) -> Response:
        model = engine.repository.find(name, label="stable")
        # The name is looked up in the list: a path that leads elsewhere is not in it.
        for found in _files(model):
            if found.name == file:
                # The next version may have another image of the same name.
                return Response(found.read_bytes(), 200, {"Cache-Control": "no-cache"}, _TYPES[found.suffix])
        raise RequestError(404, f"version {model.version} of model {name} has no example {file!r}")


def _files(model: Model) -> list[Path]:
    folder = model.path / FOLDER
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _TYPES)[:_MOST]


def _class_of(file: Path) -> str:
    return urllib.parse.unquote(file.stem)
