"""The commands: `python -m lineage --help`."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from datasets import terminal
from lineage import (
    checking,
    cleaning,
    differences,
    facts,
    graph,
    opening,
    output,
    questions,
    views,
)
from lineage.model import LineageError, Store
from settings.base import ConfigError

app = typer.Typer(
    cls=terminal.Group, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
)

Root = Annotated[Path, typer.Option(help="Folder of the runs, as of local_runner.py.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Reads mysql://USER@HOST:PORT/DATABASE (the password in `MYSQL_PWD`), or grpc://HOST:PORT of a "
        "server of ML Metadata, such as Kubeflow's, instead of the file in --root.",
    ),
]
KfpHost = Annotated[
    str | None,
    typer.Option(
        "--kfp",
        metavar="HOST",
        help="Asks the API of Kubeflow Pipelines instead, such as http://localhost:8888.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Prints the whole answer as JSON.")]
_RUN = "Id of a run, the beginning of one, or `last`."
RunName = Annotated[str, typer.Argument(metavar="RUN", help=_RUN)]
_ROOT = Path("runs")


@app.callback()
def main() -> None:
    """Answers questions about runs, artifacts and what came of what, from ML Metadata.

    Nothing is changed, except by `clean --yes`. On a terminal the answers are tables, elsewhere one fact a
    line.
    """


@app.command(cls=terminal.Command)
def runs(
    condition: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="CONDITION",
            help="Such as `accuracy>0.9 and data=cifar10`; any fact or setting, =, !=, <, <=, >, >=, `and`, "
            "`or`, and `*` in texts.",
        ),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="FACT", help="Sorts by a fact or setting; `-FACT` descending.")
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the newest N.")] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only the facts and settings that differ between these runs.")
    ] = False,
    root: Root = _ROOT,
    store: StoreUrl = None,
    kfp: KfpHost = None,
    as_json: Json = False,
) -> None:
    """Lists all runs."""
    with _errors():
        read = opening.read(root, store, kfp)
        rows = questions.list_runs(read, condition, sort, last, changed)
        output.answer(rows, as_json, views.runs, facts.short_ids(read))
        if condition and not rows:
            _say_nothing_matches(read, condition)


@app.command(cls=terminal.Command)
def show(
    run: RunName, root: Root = _ROOT, store: StoreUrl = None, kfp: KfpHost = None, as_json: Json = False
) -> None:
    """Describes a run: components, settings, hyperparameters, trials, environment and artifacts."""
    with _errors():
        read = opening.read(root, store, kfp)
        found = questions.show(facts.find_run(read, run))
        short = {name: start for name, start in facts.short_ids(read).items() if name != found["run"]}
        output.answer(found, as_json, views.show, short)


@app.command(cls=terminal.Command)
def tree(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|RUN|PATH",
            help="Number or place of an artifact, a run (its model), or the place of a pushed version or "
            "SavedModel.",
        ),
    ],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Writes a page with the graph instead.")
    ] = None,
    root: Root = _ROOT,
    store: StoreUrl = None,
    kfp: KfpHost = None,
    as_json: Json = False,
) -> None:
    """Shows what an artifact was made of, and what was made of it."""
    with _errors():
        read = opening.read(root, store, kfp)
        artifact = graph.find_artifact(read, what)
        if html:
            from lineage import page  # noqa: PLC0415 - loads Jinja, which takes a tenth of the time.

            page.write_tree(artifact, html)
            _say_written(html, as_json)
            return
        output.answer(graph.of_artifact(artifact), as_json, views.tree, facts.short_ids(read))


@app.command(cls=terminal.Command)
def diff(
    run_a: Annotated[str, typer.Argument(metavar="RUN", help=_RUN)],
    run_b: Annotated[str, typer.Argument(metavar="RUN", help=_RUN)],
    root: Root = _ROOT,
    store: StoreUrl = None,
    kfp: KfpHost = None,
    as_json: Json = False,
) -> None:
    """Says what changed between two runs: data, schema, settings, code, environment and metrics."""
    with _errors():
        read = opening.read(root, store, kfp)
        found = differences.between(facts.find_run(read, run_a), facts.find_run(read, run_b))
        output.answer(found, as_json, views.diff, empty=dict.fromkeys((*views.PARTS, "modules"), "same"))


@app.command(cls=terminal.Command)
def find(
    conditions: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE...", help="All must hold; `*` in texts, also <, > and !=."),
    ],
    root: Root = _ROOT,
    store: StoreUrl = None,
    kfp: KfpHost = None,
    as_json: Json = False,
) -> None:
    """Finds artifacts and runs by their properties, such as `type=Model` or `trainer.epochs=20`."""
    with _errors():
        read = opening.read(root, store, kfp)
        found = questions.find(read, conditions)
        output.answer(found, as_json, views.tables, facts.short_ids(read))
        if not any(found.values()):
            _say_nothing_matches(read, " and ".join(conditions))


@app.command(cls=terminal.Command)
def serving(root: Root = _ROOT, store: StoreUrl = None, kfp: KfpHost = None, as_json: Json = False) -> None:
    """Lists the pushed versions: of which run and data, how good, replaced when, and which one is served."""
    with _errors():
        read = opening.read(root, store, kfp)
        found = {"versions": questions.serving(read), "changes": questions.version_changes(read)}
        output.answer(found, as_json, views.serving, facts.short_ids(read))
        if not found["versions"]:
            output.note(f"{read.place} has no pushed model")


@app.command(cls=terminal.Command)
def check(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help=f"{_RUN} Without it, all runs.")] = None,
    root: Root = _ROOT,
    store: StoreUrl = None,
    kfp: KfpHost = None,
    as_json: Json = False,
) -> None:
    """Checks whether the artifacts are still what they were; ends with exit code 1 if they are not.

    It finds files that are missing or changed, folders that no artifact has, and executions that never ended.
    """
    with _errors():
        read = opening.read(root, store, kfp)
        chosen = facts.find_run(read, run) if run else None
        found = {"findings": checking.check(read, None if store or kfp else root, chosen)}
        output.answer(found, as_json, views.tables)
        if not found["findings"]:
            output.note(f"{f'run {chosen.id}' if chosen else read.place}: everything is as it was")
    if found["findings"]:
        raise typer.Exit(1)


@app.command(cls=terminal.Command)
def clean(
    keep: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Number of runs of each pipeline that keep all their files."),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Takes the files away; without it they are only listed.")
    ] = False,
    root: Root = _ROOT,
    as_json: Json = False,
) -> None:
    """Takes away the files of artifacts that nothing living refers to; the store keeps its records.

    What stays: the newest runs, the last blessed model and all pushed ones, and all that any of these came
    from.
    """
    with _errors():
        planned = cleaning.plan(opening.read(root), root, keep)
        if yes:
            planned = cleaning.carry_out(root, keep)
        found = {
            "done": yes,
            "bytes_before": planned.size + planned.kept_size,
            "bytes_after": planned.kept_size,
            "artifacts": [{"id": each.id, "type": each.type, "uri": each.uri} for each in planned.artifacts],
            "orphans": [{"folder": str(folder)} for folder in planned.orphans],
        }
        output.answer(found, as_json, views.clean)
        if not planned.artifacts and not planned.orphans:
            output.note(f"{root}: there is nothing to take away")


@app.command("page", cls=terminal.Command)
def page_(
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="By default `lineage.html`, in --root if that is read."),
    ] = None,
    root: Root = _ROOT,
    store: StoreUrl = None,
    kfp: KfpHost = None,
    as_json: Json = False,
) -> None:
    """Writes one page about all runs: a table, charts, and each run with its graph and its report."""
    with _errors():
        from lineage import page  # noqa: PLC0415 - see tree.

        file = out or (Path() if store or kfp else root) / "lineage.html"
        page.write_runs(opening.read(root, store, kfp), file)
        _say_written(file, as_json)


def _say_written(file: Path, as_json: bool) -> None:
    print(json.dumps({"page": str(file)}) if as_json else f"wrote {file}")


def _say_nothing_matches(read: Store, condition: str) -> None:
    near = questions.near_values(read, condition)
    advice = f"; did you mean {', '.join(near)}?" if near else ""
    output.note(f"nothing in {read.place} matches {condition}{advice}")


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Ends the program with one sentence if a question cannot be answered."""
    try:
        yield
    except (LineageError, ConfigError) as error:
        output.fail(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        output.fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


if __name__ == "__main__":
    # What a command reads, it needs until its end; to look for garbage would take a tenth of its time.
    gc.disable()
    app()
