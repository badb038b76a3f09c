"""Pages about a root and about the lineage of one artifact: single files that load nothing."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from lineage import drawing, facts, graph, model, output, questions
from lineage.model import Artifact, Execution, Run, Store

_TEMPLATE = "page.html.j2"


def write_runs(store: Store, file: Path) -> None:
    """Writes the page about all runs of a store: a table, charts, and a card for each run.

    Raises:
      OSError: the file cannot be written.
    """
    rows = facts.of_runs(store.runs)
    folder = file.absolute().parent
    settings = {name for run in store.runs for name in run.settings} - set(facts.COLUMNS)
    varying = [key for key in facts.differing(rows) if key in settings]
    _write(
        file,
        title=f"Runs of {store.place}",
        place=store.place,
        columns=[*facts.COLUMNS, *varying],
        short=facts.short_ids(store),
        rows=rows[::-1],
        accuracies=drawing.accuracies(rows, [run.created for run in store.runs]),
        parallel=drawing.parallel(rows, settings),
        cards=[_card(run, row, folder) for run, row in zip(store.runs[::-1], rows[::-1], strict=True)],
    )


def write_tree(artifact: Artifact, file: Path) -> None:
    """Writes the page about the lineage of an artifact: the graph, and the facts of all that is in it.

    Raises:
      OSError: the file cannot be written.
    """
    artifacts, executions = graph.related(artifact)
    _write(
        file,
        title=f"Lineage of {artifact.label}",
        place=artifact.uri,
        graph=drawing.graph(artifacts, executions, artifact.id),
        details=[*(_artifact(each) for each in artifacts), *(_execution(each) for each in executions)],
    )


def _write(file: Path, **values: Any) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["word"] = output.word
    content = environment.get_template(_TEMPLATE).render(values)
    partial = file.with_name(f".{file.name}.partial")  # An earlier page stays if the disk is full.
    try:
        partial.write_text(content, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from None


def _card(run: Run, row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Describes a run for its card on a page in a folder."""
    chosen = run.output(model.MODEL)
    report = questions.report_page(run)
    local = report is not None and "://" not in report and Path(report).is_file()
    made = {artifact.id: artifact for each in run.executions for _, artifact in [*each.inputs, *each.outputs]}
    used = {a.made_by.id: a.made_by for a in made.values() if a.made_by}
    return {
        "run": run.id,
        "facts": {key: row[key] for key in (*facts.COLUMNS, *facts.ENVIRONMENT) if row.get(key) is not None},
        "settings": graph.changed_settings(run),
        # A link that holds where the folder of the runs is served or mounted elsewhere.
        "report": urllib.parse.quote(os.path.relpath(report, folder)) if local and report else None,
        "graph": drawing.graph(list(made.values()), list(used.values()), chosen.id if chosen else ""),
    }


def _artifact(artifact: Artifact) -> dict[str, Any]:
    return {
        "anchor": f"artifact-{artifact.id}",
        "title": artifact.label,
        "facts": {
            "uri": artifact.uri,
            "state": artifact.state,
            "created": facts.moment(artifact.created),
            **artifact.facts,
        },
    }


def _execution(execution: Execution) -> dict[str, Any]:
    run = execution.run
    trained = run is not None and execution.component in ("Trainer", "Tuner")
    settings: Mapping[str, Any] = graph.changed_settings(run) if run is not None and trained else {}
    return {
        "anchor": f"execution-{execution.id}",
        "title": f"{execution.component}, {execution.state}",
        "facts": {
            "run": run.id if run else None,
            "began": facts.moment(execution.created),
            "seconds": execution.seconds,
            "code": execution.code,
            **{key: f"{output.word(row['value'])} ({row['origin']})" for key, row in settings.items()},
        },
    }
