"""How answers look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from lineage import output

_DIGITS = 12  # of a digest
_DIGESTS = ("digest", "sha256", "input_fingerprint")


def show(console: Console, answer: Mapping[str, Any]) -> None:
    """Prints one run."""
    plain = {key: value for key, value in answer.items() if not isinstance(value, list | dict)}
    console.print(_pairs(plain))
    for note in answer["notes"]:
        console.print(Text(f"note: {note}", "yellow"))
    rows = [
        {**row, "seconds": _rounded(row["seconds"]), "code": _short(row["code"])}
        for row in answer["components"]
    ]
    console.print(output.table(rows, title="Components"))
    changed = [row for row in answer["settings"] if row["origin"] != "default"]
    rest = len(answer["settings"]) - len(changed)
    if answer["settings"]:
        console.print(output.table(changed, ("key", "value", "origin"), "Settings"))
        console.print(Text(f"and {rest} with their defaults, which --json lists", "dim"))
    for name in ("hyperparameters", "environment"):
        if answer[name]:
            console.print(Text(f"\n{name.capitalize()}", "italic"))
            console.print(_pairs(answer[name]))
    if answer["trials"]:
        console.print(output.table(answer["trials"], title="Trials"))
    rows = [
        {**row, "bytes": output.size(row["bytes"]), "uri": output.place(row["uri"])}
        for row in answer["artifacts"]
    ]
    console.print(output.table(rows, ("id", "type", "made_by", "state", "bytes", "uri"), "Artifacts"))


def tree(console: Console, answer: Mapping[str, Any]) -> None:
    """Prints the lineage of an artifact as two trees."""
    root = Tree(_artifact(answer))
    up = root.add(Text("made of", "bold"))
    if answer["made_by"]:
        _add_maker(up, answer["made_by"])
    else:
        up.add(Text("nothing that the store knows of", "dim"))
    down = root.add(Text("used by", "bold"))
    for each in answer["used_by"]:
        _add_user(down, each)
    if not answer["used_by"]:
        down.add(Text("nothing", "dim"))
    console.print(root)


def diff(console: Console, answer: Mapping[str, Any]) -> None:
    """Prints what differs between two runs."""
    console.print(Text(f"a  {answer['a']}\nb  {answer['b']}\n"))
    for part in ("data", "schema", "settings", "hyperparameters", "code", "environment", "outcome"):
        if answer[part]:
            rows = [{"what": key, **values} for key, values in answer[part].items()]
            rows = (
                [{name: _short(value) for name, value in row.items()} for row in rows]
                if part == "code"
                else rows
            )
            console.print(output.table(rows, title=part.capitalize()))
        else:
            console.print(Text(f"{part.capitalize()}: the same", "dim"))
    if answer["modules"]:
        console.print(Text(f"Changed modules: {', '.join(answer['modules'])}"))
    if answer["metrics"]:
        console.print(
            output.table([{"metric": key, **row} for key, row in answer["metrics"].items()], title="Metrics")
        )
    if answer["comparison"]:
        from components.model_report import compare  # noqa: PLC0415 - loads SciPy.

        compare.show(console, answer["comparison"])
    else:
        console.print(Text(f"The reports are not compared: {answer['not_compared']}", "dim"))


def serving(console: Console, answer: Mapping[str, Any]) -> None:
    """Prints the pushed versions and the changes of what answers."""
    columns = (
        "version",
        "model",
        "served",
        "pushed_at",
        "run",
        "data",
        "accuracy",
        "replaced_by",
        "replaced_at",
    )
    console.print(output.table(answer["versions"], columns))
    if answer["changes"]:
        change_columns = ("when", "model", "action", "version", "stable", "canary", "shadow", "user")
        console.print(output.table(answer["changes"], change_columns, "Changes of the version that answers"))


def tables(console: Console, answer: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Prints one table for each key that has rows."""
    for title, rows in answer.items():
        if rows:
            console.print(output.table(rows, title=title.replace("_", " ").capitalize()))
        else:
            console.print(Text(f"{title.replace('_', ' ').capitalize()}: none", "dim"))


def clean(console: Console, answer: Mapping[str, Any]) -> None:
    """Prints what is or would be taken away."""
    tables(console, {"artifacts": answer["artifacts"], "orphans": answer["orphans"]})
    before, after = output.size(answer["bytes_before"]), output.size(answer["bytes_after"])
    console.print(
        Text(f"{before} before, {after} after" + ("" if answer["done"] else "; --yes takes the files away"))
    )


def _pairs(values: Mapping[str, Any]) -> Table:
    made = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for key, value in values.items():
        if value is not None:
            made.add_row(key, output.text(value))
    return made


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _short(digest: Any) -> Any:
    return digest[:_DIGITS] if isinstance(digest, str) else digest


def _artifact(each: Mapping[str, Any]) -> Text:
    name = each["type"].rpartition(".")[2]
    label = Text.assemble((f"{name} #{each['id']}", "bold cyan"), f"  {output.place(each['uri'])}")
    if each.get("repeated"):
        return Text.assemble((f"{name} #{each['id']}", "cyan"), ("  see above", "dim"))
    for key, value in each["facts"].items():
        shown = _short(value) if key in _DIGESTS else output.word(value)
        label.append(f"\n{key} {shown}", "dim")
    return label


def _execution(each: Mapping[str, Any]) -> Text:
    seconds = f", {each['seconds']:.1f} s" if each["seconds"] is not None else ""
    run = f" in run {each['run']}" if each["run"] else ""
    label = Text.assemble((each["component"], "bold"), f"{run}, {each['when']}, {each['state']}{seconds}")
    if each["code"]:
        label.append(f"\ncode {_short(each['code'])}", "dim")
    for key, row in each["settings"].items():
        label.append(f"\n{key}={output.word(row['value'])} ({row['origin']})", "dim")
    return label


def _add_maker(branch: Tree, execution: Mapping[str, Any]) -> None:
    node = branch.add(_execution(execution))
    for artifact in execution["inputs"]:
        child = node.add(_artifact(artifact))
        if artifact.get("made_by"):
            _add_maker(child, artifact["made_by"])


def _add_user(branch: Tree, execution: Mapping[str, Any]) -> None:
    node = branch.add(_execution(execution))
    for artifact in execution["outputs"]:
        child = node.add(_artifact(artifact))
        for user in artifact.get("used_by", ()):
            _add_user(child, user)
