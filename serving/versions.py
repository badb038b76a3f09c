"""Chooses which versions of a pushed model answer: `python -m serving.versions list|promote|rollback|...`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import rich.box
import typer
from rich.console import Console
from rich.table import Table

from serving import folders, recording, routing, terminal
from serving.routing import Routes

app = typer.Typer(
    cls=terminal.Group, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)

Model = Annotated[str | None, typer.Option("--model", help="Name of the model, if there are several.")]
Root = Annotated[Path, typer.Option("--models", help="Folder with one folder of versions for each model.")]
Store = Annotated[
    Path | None,
    typer.Option(
        help="SQLite file of ML Metadata in which the change is recorded; by default `metadata.sqlite` "
        "beside the folder of the models."
    ),
]
_ROOT = Path("runs/serving")


@app.callback()
def main() -> None:
    """Chooses which versions of a pushed model answer.

    `serving.server` follows within a second. TF Serving and other servers know nothing of these choices and
    serve the newest version. Each change is recorded in ML Metadata.
    """


@app.command("list")
def list_(model: Model = None, models: Root = _ROOT) -> None:
    """Lists the versions of a model, the newest first, and what they do."""
    folder = _folder(models, model)
    routes = _read(folder)
    versions = _versions(folder)
    table = Table("version", "role", title=folder.name, box=rich.box.SIMPLE, title_justify="left")
    for version in reversed(versions):
        roles = []
        if version == routes.stable_of(versions):
            roles.append(routing.STABLE if routes.stable is not None else "stable, as the newest")
        if version == routes.canary:
            roles.append(f"canary, {routes.percent} %")
        if version == routes.shadow:
            roles.append("shadow")
        if version == routes.previous:
            roles.append("stable before")
        table.add_row(str(version), ", ".join(roles))
    Console().print(table)
    if routes.stable == routing.NO_VERSION:
        _say("No version answers until one is promoted.")


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Number of a version, or `newest`.")],
    model: Model = None,
    models: Root = _ROOT,
    metadata: Store = None,
) -> None:
    """Makes a version answer. It stays until another one is promoted, whatever is pushed.

    `newest` makes the newest version answer, now and after each push, unless `pusher.promote` is `manual`.
    """
    folder = _folder(models, model)
    routes, versions = _read(folder), _versions(folder)
    before = routes.stable_of(versions)
    if version == "newest":
        newest = max(versions)
        routes = Routes(shadow=_other(routes.shadow, newest), previous=before)
        text = f"the newest version is to answer, now {newest}"
        _change(folder, routes, text, "promote", version, metadata)
        return
    number = _known(version, versions, folder)
    previous = before if before != number else routes.previous
    routes = Routes(stable=number, shadow=_other(routes.shadow, number), previous=previous)
    instead = f" instead of {before}" if before not in (None, number) else ""
    _change(folder, routes, f"version {number} is to answer{instead}", "promote", version, metadata)


@app.command()
def rollback(model: Model = None, models: Root = _ROOT, metadata: Store = None) -> None:
    """Returns to the version that answered before, and ends a canary."""
    folder = _folder(models, model)
    routes, versions = _read(folder), _versions(folder)
    now = routes.stable_of(versions)
    target = _other(routes.previous, now)
    if target not in versions:
        target = max((version for version in versions if now is not None and version < now), default=None)
    if target is None:
        terminal.fail(f"{folder.name}: there is no version to return to from {now or 'none'}")
    routes = Routes(stable=target, shadow=_other(routes.shadow, target), previous=now)
    text = f"version {target} is to answer again instead of {now}"
    _change(folder, routes, text, "rollback", str(target), metadata)


@app.command()
def canary(
    version: Annotated[
        str, typer.Argument(help="Number of a version, `newest`, or `none` to end the canary.")
    ],
    percent: Annotated[int, typer.Option(min=0, max=100, help="How many of 100 requests it answers.")] = 10,
    model: Model = None,
    models: Root = _ROOT,
    metadata: Store = None,
) -> None:
    """Lets a version answer a part of the requests.

    The version that answers the others stays until another one is promoted, whatever is pushed.
    """
    folder = _folder(models, model)
    routes, versions = _read(folder), _versions(folder)
    if version == "none":
        routes = dataclasses.replace(routes, canary=None, percent=0)
        _change(folder, routes, f"no canary; {_answers(routes)}", "canary", version, metadata)
        return
    number = _known(version, versions, folder)
    stable = _stable_beside(number, routes, versions)
    if stable is None:
        terminal.fail(f"{folder.name}: a canary needs another version that answers the other requests")
    routes = dataclasses.replace(routes, stable=stable, canary=number, percent=percent)
    text = f"version {number} is to answer {percent} % of the requests, {stable} the others"
    _change(folder, routes, text, "canary", version, metadata)


@app.command()
def shadow(
    version: Annotated[
        str, typer.Argument(help="Number of a version, `newest`, or `none` to end the comparison.")
    ],
    model: Model = None,
    models: Root = _ROOT,
    metadata: Store = None,
) -> None:
    """Lets a version compute the same requests without answering them, to compare it.

    The server has the comparison at /v1/models/NAME/comparison. The version that answers stays until another
    one is promoted, whatever is pushed.
    """
    folder = _folder(models, model)
    routes, versions = _read(folder), _versions(folder)
    if version == "none":
        routes = dataclasses.replace(routes, shadow=None)
        _change(folder, routes, f"no shadow; {_answers(routes)}", "shadow", version, metadata)
        return
    number = _known(version, versions, folder)
    stable = routes.stable_of(versions)
    if stable in (None, number):
        found = "there is none" if stable is None else f"{number} answers itself"
        terminal.fail(f"{folder.name}: a shadow is compared with another version that answers; {found}")
    routes = dataclasses.replace(routes, stable=stable, shadow=number)
    text = f"version {number} is to compute the requests that {stable} answers"
    _change(folder, routes, text, "shadow", version, metadata)


def _folder(root: Path, name: str | None) -> Path:
    try:
        if problem := folders.check_root(root):
            terminal.fail(f"--models {problem}")
        found = sorted(folders.models(root))
    except OSError as error:
        terminal.fail(f"--models {root}: expected a folder of pushed models: {error.strerror}")
    if name is None and len(found) == 1:
        name = found[0]
    if name is None or name not in found:
        expected = f"expected --model with one of {', '.join(found)}" if found else "expected pushed models"
        terminal.fail(f"{root}: {expected}; found {name or 'none'}")
    return root / name


def _versions(folder: Path) -> list[int]:
    try:
        return sorted(folders.versions(folder))
    except OSError as error:
        terminal.fail(f"{folder}: {error.strerror}")


def _known(version: str, versions: list[int], folder: Path) -> int:
    if version == "newest":
        return max(versions)
    if not version.isdecimal() or int(version) not in versions:
        part = folders.parts(folder).get(int(version)) if version.isdecimal() else None
        if part is not None:
            listed = " and no ".join(folders.missing(part))
            terminal.fail(f"{folder.name}: version {version} is not complete: there is no {listed} in it")
        listed = ", ".join(map(str, reversed(versions)))
        terminal.fail(f"{folder.name} has no version {version}; expected one of {listed}")
    return int(version)


def _other(version: int | None, than: int | None) -> int | None:
    return version if version != than else None


def _stable_beside(number: int, routes: Routes, versions: list[int]) -> int | None:
    """Returns the version that answers while another one is tried; None if there is no other one."""
    if routes.stable is not None:
        return _other(routes.stable or None, number)
    return max((version for version in versions if version != number), default=None)


def _answers(routes: Routes) -> str:
    if routes.stable is None:
        return "the newest version answers"
    if routes.stable == routing.NO_VERSION:
        return "no version answers until one is promoted"
    return f"version {routes.stable} answers until another one, or `newest`, is promoted"


def _read(folder: Path) -> Routes:
    try:
        return routing.read(folder)
    except routing.RoutingError as error:
        terminal.fail(str(error))


def _change(folder: Path, routes: Routes, text: str, action: str, version: str, store: Path | None) -> None:
    """Changes the routes of a model, says so, and records it.

    Args:
      folder: folder of the model's versions.
      routes: the new routes.
      text: what is to change, to be said; whether it does depends on the server.
      action: name of the command.
      version: the version that the command named.
      store: the store of `--metadata`; None for the one beside the folder of the models.
    """
    try:
        routing.write(folder, routes)
    except OSError as error:
        terminal.fail(f"{folder}: {error.strerror}")
    hint = "" if version == "none" else f"; see /v1/models/{folder.name} of the server"
    _say(f"{folder.name}: {text}{hint}")
    store = store or folder.absolute().parent.parent / recording.STORE
    roles = dataclasses.replace(routes, stable=routes.stable_of(_versions(folder)))
    try:
        missing = recording.record(store, folder.name, action, version, roles)
    except recording.RecordingError as error:
        # The change holds nevertheless.
        print(f"It is not recorded in ML Metadata: {error}", file=sys.stderr)
        return
    if missing:
        names = ", ".join(map(str, missing))
        print(f"{store} has no PushedModel of {names}; the record is without it", file=sys.stderr)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    app()
