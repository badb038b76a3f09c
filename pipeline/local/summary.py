"""Summarises a run as JSON and as a table: its metrics, its verdicts and the pushed model."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from components import metadata
from components.data_gate import report_files as data_files
from components.model_report import report_files
from components.serving_check import check
from components.serving_check.formats import files as format_files
from models import run_files, trainer
from pipeline import baseline
from pipeline.local import failures
from pipeline.local.runner import Run, State
from settings.search import format_value

# Key in `test` of the summary -> label in the table.
_TEST_METRICS = {
    "accuracy": "Test accuracy",
    "precision_macro": "Test precision, macro",
    "recall_macro": "Test recall, macro",
    "f1_macro": "Test F1, macro",
    "calibration_error": "Test calibration error",
    "corrupted_accuracy": "Test accuracy, corrupted images",
}
# Keys of the report's `search` that the summary has, too.
_SEARCH = ("best_score", "interval", "within", "seconds", "estimated_seconds")
# Lines in the table; with many classes, many gates may fail.
_MAX_REASONS_SHOWN = 4


def build(
    run: Run,
    database: Path,
    pipeline: str,
    data: str,
    architecture: str,
    seconds: float,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Builds the summary of a run from its artifacts.

    Args:
      run: the outcome of the run.
      database: the SQLite database of ML Metadata.
      pipeline: name of the pipeline.
      data: name of the dataset.
      architecture: name of the network's architecture.
      seconds: duration of the run.
      notes: sentences on what the run has found before its first component.

    Returns:
      The summary: `run` (id in ML Metadata), `data`, `model`, `test` (metrics of the test split; None if the
      run ended before; `corrupted_accuracy` in it is None if it was not measured), `hyperparameters` by their
      dotted keys, `tuned` (those that the Tuner chose), `search` (its `best_score` with the `interval`, the
      number of other trials `within` it, `seconds` and `estimated_seconds`; None without Tuner), `blessed`,
      `serving` (see `check.figures`), `pushed` (path or None), `not_pushed_because` (sentences), `notes`
      (sentences on files of earlier runs that are gone, DataGate's warnings, and formats that were left out),
      `report` (path or None), `components`, `seconds`, and `error` (None, or a dict with `component`,
      `message` and `interrupted`, which tells whether a signal such as Ctrl-C ended the run).
    """
    outputs = _Outputs(run, database)
    report = outputs.uri("ModelReport", "report")
    figures = _read_json(report / report_files.METRICS) if report else None
    serving = outputs.uri("ServingCheck", "blessing")
    served = _read_json(serving / check.ANSWER) if serving else {"problems": []}
    model_run = outputs.uri("Trainer", "model_run")
    hyperparameters = _read_json(model_run / run_files.HYPERPARAMETERS) if model_run else {}
    failed = run.failed()
    return {
        "run": run.id,
        "data": data,
        "model": architecture,
        "test": _test_metrics(figures) if figures else None,
        "hyperparameters": {name: entry["value"] for name, entry in hyperparameters.items()},
        "tuned": [name for name, entry in hyperparameters.items() if entry["source"] == trainer.TUNER],
        "search": {key: figures["search"][key] for key in _SEARCH} if figures and figures["search"] else None,
        "blessed": bool(figures and figures["blessed"] and not served["problems"]),
        "pushed": outputs.string_property("Pusher", "pushed_model", "pushed_destination"),
        "not_pushed_because": [
            *(figures["failed_gates"] if figures else []),
            *(f"serving check: {problem}" for problem in served["problems"]),
        ],
        "serving": check.figures(served),
        "notes": [
            *notes,
            *outputs.data_warnings(),
            *outputs.lost_baselines(pipeline),
            *outputs.formats_left_out(),
        ],
        "report": str(report / report_files.PAGE) if report else None,
        "components": [
            {"id": c.id, "state": c.state.value, "seconds": round(c.seconds, 2)} for c in run.components
        ],
        "seconds": round(seconds, 2),
        "error": {
            "component": failed.id if failed else None,
            "message": _describe_end(run, database),
            "interrupted": run.signal is not None,
        }
        if run.error
        else None,
    }


def show(console: Console, summary: dict[str, Any], name: str, log: Path, waits: bool = False) -> None:
    """Prints a summary as a table, or the error of a failed run.

    Args:
      console: where to print.
      summary: the summary from `build`.
      name: name of the served model.
      log: path of the run's log.
      waits: whether a pushed model does not answer until it is promoted.
    """
    error = summary["error"]
    if error:
        where = f"{error['component'] or 'The run'} {'interrupted' if error['interrupted'] else 'failed'}"
        console.print(Panel(Text(f"{error['message']}\n\nLog: {log}"), title=where, border_style="red"))
        return
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    test = summary["test"]
    table.add_row("Data", Text(summary["data"]))
    for key, label in _TEST_METRICS.items():
        if test[key] is not None:
            table.add_row(label, f"{test[key]:.4f}")
    if summary["search"]:
        table.add_row("Chosen by the Tuner", Text(_describe_tuned(summary)))
    verdict = "yes" if summary["blessed"] else "no"
    reasons = summary["not_pushed_because"]
    shown = reasons[:_MAX_REASONS_SHOWN]
    if len(reasons) > len(shown):
        shown = [*shown, f"and {len(reasons) - len(shown)} more, see the report"]
    table.add_row("Blessed", Text("\n".join([verdict, *shown]), "green" if summary["blessed"] else "red"))
    if summary["serving"]:
        table.add_row("Serving", _describe_serving(summary["serving"]))
    not_pushed = "none" if summary["blessed"] else "none: only a blessed model is pushed"
    table.add_row("Pushed model", Text(summary["pushed"] or not_pushed))
    table.add_row("Report", Text(summary["report"]))
    for note in summary["notes"]:
        table.add_row("Note", Text(note, "yellow"))
    table.add_row("Run", Text(summary["run"]))
    table.add_row("Log", Text(str(log)))
    table.add_row("Time", f"{summary['seconds']:.0f} s")
    console.print(table)
    if summary["pushed"] and waits:
        version = Path(summary["pushed"])
        place = ["--models", str(version.parent.parent), "--model", name]
        command = shlex.join(["python", "-m", "serving.versions", "promote", version.name, *place])
        console.print(Text(f"Promote it: {command}"), soft_wrap=True)
    elif summary["pushed"]:
        models = str(Path(summary["pushed"]).parent.parent)
        command = shlex.join(["python", "-m", "serving.server", "--models", models])
        console.print(Text(f"Serve it: {command}"), soft_wrap=True)


def _test_metrics(figures: dict[str, Any]) -> dict[str, float | None]:
    corrupted = figures["corruptions"]
    flat = {**figures, "corrupted_accuracy": corrupted["accuracy"] if corrupted else None}
    return {key: flat[key] for key in _TEST_METRICS}


def _describe_end(run: Run, database: Path) -> str:
    assert run.error is not None
    if run.signal is None:
        return failures.describe(run.error, database)
    by = "" if run.signal is signal.SIGINT else f" by {run.signal.name}"
    return f"interrupted{by}; the same command resumes the run"


def _describe_tuned(summary: dict[str, Any]) -> str:
    values = [f"{key} {format_value(summary['hyperparameters'][key])}" for key in summary["tuned"]]
    search = summary["search"]
    low, high = search["interval"]
    others = f"{search['within']} other trial{'s' * (search['within'] != 1)}"
    return (
        f"{', '.join(values)}; validation accuracy {search['best_score']:.4f} ({low:.4f} to {high:.4f}, "
        f"with {others} in this interval)"
    )


def _describe_serving(figures: dict[str, Any]) -> str:
    text = (
        f"loads in {figures['load_seconds']:.1f} s; one image takes {figures['p50_ms']:.1f} ms (p50), "
        f"{figures['p99_ms']:.1f} ms (p99)"
    )
    return text if figures["memory_mb"] is None else f"{text}; needs {figures['memory_mb']:.0f} MB"


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class _Outputs:
    """Output artifacts of the components that have succeeded, in this run or in an earlier one."""

    def __init__(self, run: Run, database: Path):
        self._store = metadata.open_store(database)
        self._by_component = {
            c.id: metadata.outputs(self._store, c.execution_id)
            for c in run.components
            if c.state in (State.COMPLETE, State.CACHED) and c.execution_id is not None
        }

    def uri(self, component: str, output: str) -> Path | None:
        artifact = self._by_component.get(component, {}).get(output)
        return Path(artifact.uri) if artifact else None

    def lost_baselines(self, pipeline: str) -> list[str]:
        """Describes blessed models that would have been the baseline, if their files were not gone."""
        found = self._by_component.get("Baseline")
        if found is None:
            return []
        selected = found["model"].id if "model" in found else None
        lost = baseline.describe_lost(self._store, pipeline, selected, found["candidate"].id)
        return [lost] if lost else []

    def data_warnings(self) -> list[str]:
        """Lists what DataGate only warned about."""
        report = self.uri("DataGate", "report")
        warnings = _read_json(report / data_files.SUMMARY)["warnings"] if report else []
        return [f"DataGate: {line}" for line in warnings]

    def formats_left_out(self) -> list[str]:
        """Lists the formats in which the model was not written, with the reasons."""
        blessing = self.uri("ServingCheck", "blessing")
        description = format_files.read(str(blessing)) if blessing else None
        return description["left_out"] if description else []

    def string_property(self, component: str, output: str, name: str) -> str | None:
        artifact = self._by_component.get(component, {}).get(output)
        if artifact is None or name not in artifact.custom_properties:
            return None
        return artifact.custom_properties[name].string_value
