"""Command that compares the models of two reports: `python -m components.model_report.compare --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.evaluator import intervals
from components.model_report import comparison, predictions, report_files
from components.model_report.predictions import Predictions
from datasets import terminal
from settings.places import METADATA_FILE

# Rows of each table on the terminal; `--json` writes all of them.
_ROWS_SHOWN = 20
# Maximum number of runs or classes that an error message lists.
_LISTED_IN_ERRORS = 5
_INTERVAL = f"{intervals.LEVEL:.0%} interval"
_STYLES = {"better": "green", "worse": "red", "no clear difference": "dim"}
_NO_DATA = Text("no data", "dim")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class _Report:
    """The parts of a report that a comparison needs."""

    folder: Path
    name: str
    predictions: Predictions
    class_names: list[str]
    corruptions: dict[str, Any] | None

    def summary(self) -> dict[str, Any]:
        """Returns what `compare_reports` says of each model."""
        right = self.predictions.predicted == self.predictions.labels
        return {
            "report": str(self.folder),
            "name": self.name,
            "examples": len(right),
            "accuracy": float(right.mean()),
            "corrupted": {
                "images": self.corruptions["images"],
                "accuracy": self.corruptions["accuracy"],
                "interval": self.corruptions["intervals"]["accuracy"],
            }
            if self.corruptions
            else None,
        }


@app.command(cls=terminal.Command)
def main(
    run_a: Annotated[
        str, typer.Argument(help="The earlier model: a report's folder or page, or the id of a run.")
    ],
    run_b: Annotated[
        str, typer.Argument(help="The later model: a report's folder or page, or the id of a run.")
    ],
    root: Annotated[Path, typer.Option(help="Folder of the runs that ids refer to.")] = Path("runs"),
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Writes the whole comparison as JSON.")
    ] = None,
) -> None:
    """Compares two models on the images that both were tested on."""
    try:
        result = compare_reports(*(str(find_report(root, run)) for run in (run_a, run_b)))
        if json_file:
            json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        terminal.fail(f"{error.filename}: {error.strerror}" if error.strerror else str(error))
    except ValueError as error:
        terminal.fail(str(error))
    show(Console(width=None if sys.stdout.isatty() else terminal.PLAIN_WIDTH, highlight=False), result)


def compare_reports(a: str, b: str) -> dict[str, Any]:
    """Compares the models of two reports.

    Args:
      a: folder of the earlier model's report.
      b: folder of the later model's report.

    Returns:
      The result of `comparison.compare`, and under `a` and `b` for each model: `report` (the folder), `name`,
      `examples`, `accuracy` and `corrupted` (None, or the number of corrupted `images`, the `accuracy` on
      them and its `interval`).

    Raises:
      ValueError: the predictions cannot be read or compared.
      OSError: a file cannot be read.
    """
    read_a, read_b = _read(Path(a)), _read(Path(b))
    if read_a.class_names != read_b.class_names:
        raise comparison.ComparisonError(_differing_classes(read_a.class_names, read_b.class_names))
    compared = comparison.compare(read_a.predictions, read_b.predictions, read_a.class_names)
    return {"a": read_a.summary(), "b": read_b.summary(), **compared}


def find_report(root: Path, run: str) -> Path:
    """Finds the folder of a report.

    Args:
      root: folder of the runs, as `--root` of the runner; needed only where `run` is an id.
      run: the folder of a report, a file in it (such as its page), or the id of a run.

    Returns:
      The report's folder, which holds a file with predictions.

    Raises:
      ValueError: there is no such report; the message says what was expected.
    """
    folder = Path(run)
    if not folder.exists():
        folder = _report_of_run(root, run)
    elif folder.is_file():
        folder = folder.parent
    if not (folder / report_files.PREDICTIONS).is_file():
        raise ValueError(f"{folder}: expected the folder of a report, found no {report_files.PREDICTIONS}")
    return folder


def _report_of_run(root: Path, run: str) -> Path:
    expected = f"{run}: expected the folder of a report or the id of a run in {root}"
    if not (root / METADATA_FILE).is_file():
        raise ValueError(f"{expected}, which holds no runs; give their folder with --root")
    # Imported only here, because comparing folders works without ML Metadata.
    from components import metadata  # noqa: PLC0415

    store = metadata.open_store(root / METADATA_FILE)
    folder = metadata.report_of_run(store, run)
    if folder is None:
        newest = metadata.run_ids(store)[: -_LISTED_IN_ERRORS - 1 : -1]
        raise ValueError(f"{expected} that wrote a report; the newest runs are {', '.join(newest) or 'none'}")
    return folder


def _read(folder: Path) -> _Report:
    try:
        stored, class_names = predictions.read(folder / report_files.PREDICTIONS)
    except ValueError as error:
        raise ValueError(f"{folder / report_files.PREDICTIONS} cannot be read: {error}") from None
    metrics = json.loads((folder / report_files.METRICS).read_text(encoding="utf-8"))
    # Reports of old versions of this project have no corrupted images.
    return _Report(folder, metrics["name"], stored, class_names, metrics.get("corruptions"))


def _differing_classes(a: Sequence[str], b: Sequence[str]) -> str:
    missing = [(side, sorted(set(names) - set(others))) for side, names, others in (("A", a, b), ("B", b, a))]
    differences = [
        f"only {side} has {', '.join(names[:_LISTED_IN_ERRORS])}"
        + (" and others" if len(names) > _LISTED_IN_ERRORS else "")
        for side, names in missing
        if names
    ]
    found = "; ".join(differences) or "the same classes in a different order"
    return f"expected models of the same classes, found: {found}"


def show(console: Console, result: dict[str, Any]) -> None:
    """Prints a comparison as tables and sentences.

    Args:
      console: console to print to.
      result: the result of `compare_reports`.
    """
    for side in "ab":
        model = result[side]
        accuracy = f"accuracy {model['accuracy']:.4f} on {model['examples']:,} images"
        console.print(Text.assemble((side.upper(), "bold"), f"  {model['name']}, {accuracy}"))
        if corrupted := model["corrupted"]:
            low, high = corrupted["interval"]
            console.print(
                f"   accuracy {corrupted['accuracy']:.4f} ({_INTERVAL} {low:.4f} to {high:.4f}) on "
                f"{_count(corrupted['images'], 'corrupted image')}"
            )
        console.print(Text(f"   {model['report']}", "dim"), soft_wrap=True)
    console.print(Text(f"\nCompared on the {_count(result['examples'], 'image')} that both were tested on."))
    for side in "ab":
        if left_out := result[f"only_{side}"]:
            tested = f"that only {side.upper()} was tested on"
            console.print(Text(f"Left out: {_count(left_out, 'image')} {tested}."))
    console.print()
    console.print(_metrics_table(result["metrics"]))
    console.print(Text(_mcnemar_sentence(result["mcnemar"])))
    console.print()
    _show_classes(console, result["classes"])
    _show_became_wrong(console, result["became_wrong"], len(result["became_right"]))


def _verdict(name: str, interval: Sequence[float]) -> str:
    low, high = interval
    if low <= 0 <= high:
        return "no clear difference"
    return "better" if (low > 0) != (name in comparison.LOWER_IS_BETTER) else "worse"


def _metrics_table(metrics: Sequence[dict[str, Any]]) -> Table:
    table = _table("Metric", "A", "B", "Change", _INTERVAL, "B is")
    for entry in metrics:
        verdict = _verdict(entry["name"], entry["interval"])
        table.add_row(
            comparison.LABELS[entry["name"]],
            f"{entry['a']:.4f}",
            f"{entry['b']:.4f}",
            f"{entry['difference']:+.4f}",
            _interval(entry["interval"]),
            Text(verdict, _STYLES[verdict]),
        )
    return table


def _mcnemar_sentence(test: dict[str, Any]) -> str:
    only_a, only_b = test["only_a_right"], test["only_b_right"]
    if not only_a + only_b:
        return "A and B are right on the same images."
    probability = f"{test['p_value']:.2g}" if test["p_value"] >= 1e-4 else "less than 0.0001"
    return (
        f"Only A is right on {_count(only_a, 'image')}, only B on {only_b:,}. If both were equally accurate, "
        f"the probability of a split at least this uneven would be {probability} (McNemar's exact test)."
    )


def _show_classes(console: Console, classes: Sequence[dict[str, Any]]) -> None:
    def rank(entry: dict[str, Any]) -> float:
        return -abs(entry["recall_difference"]) if entry["support"] else 1.0

    table = _table("Class", "Images", "Recall A", "Recall B", "Change", _INTERVAL)
    for entry in sorted(classes, key=rank)[:_ROWS_SHOWN]:
        if not entry["support"]:
            table.add_row(Text(entry["name"]), "0", _NO_DATA)
            continue
        verdict = _verdict("recall", entry["recall_interval"])
        table.add_row(
            Text(entry["name"]),
            f"{entry['support']:,}",
            f"{entry['recall_a']:.4f}",
            f"{entry['recall_b']:.4f}",
            Text(f"{entry['recall_difference']:+.4f}", _STYLES[verdict]),
            _interval(entry["recall_interval"]),
        )
    console.print(Text("Classes, largest change of recall first", "bold"))
    console.print(table)
    _show_rest(console, len(classes), "class", "classes")


def _show_became_wrong(console: Console, became_wrong: Sequence[dict[str, Any]], became_right: int) -> None:
    if became_wrong:
        table = _table("Image", "Label", "B predicts", "Confidence")
        for entry in became_wrong[:_ROWS_SHOWN]:
            confidence = f"{entry['confidence_b']:.3f}"
            table.add_row(Text(entry["id"]), Text(entry["label"]), Text(entry["b"]), confidence)
        console.print(Text("Right with A and wrong with B, highest confidence of B first", "bold"))
        console.print(table)
        _show_rest(console, len(became_wrong), "image", "images")
    console.print(Text(f"{_count(len(became_wrong), 'image')} became wrong, {became_right:,} became right."))


def _show_rest(console: Console, total: int, singular: str, plural: str) -> None:
    if (rest := total - _ROWS_SHOWN) > 0:
        noun = singular if rest == 1 else plural
        console.print(Text(f"and {rest:,} more {noun}; --json FILE writes them all", "dim"))
    console.print()


def _table(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        numeric = header not in ("Metric", "Class", "Image", "Label", "B predicts", "B is")
        table.add_column(header, justify="right" if numeric else "left", overflow="fold")
    return table


def _interval(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{low:+.4f} to {high:+.4f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


if __name__ == "__main__":
    app()
