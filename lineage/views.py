"""How answers look on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from lineage import model, output


def runs(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints runs."""
    if not rows:
        return
    # The ids of local runs are the times at which they began.
    is_in_id = all("when" in row and row["run"][:10] == row["when"][:10] for row in rows)
    optional = [*(["when"] if is_in_id else []), "name", "f1_macro", "seconds", "model", "pushed"]
    output.show_table(console, rows, optional=optional)


_OPTIONAL = ("when", "name", "f1_macro", "seconds", "model", "component", "state")


def show(console: Console, answer: Mapping[str, Any]) -> None:
    """Prints one run."""
    plain = {key: value for key, value in answer.items() if not isinstance(value, list | dict)}
    console.print(output.pairs(plain))
    for note in answer["notes"]:
        console.print(Text(f"note: {note}", "yellow"))
    rows = [{**row, "seconds": _rounded(row["seconds"])} for row in answer["components"]]
    if rows:
        output.show_table(console, rows, title="Components", optional=("code",))
    changed = [row for row in answer["settings"] if row["origin"] != "default"]
    rest = len(answer["settings"]) - len(changed)
    if changed:
        output.show_table(console, changed, ("key", "value", "origin"), "Settings", optional=("origin",))
    if answer["settings"]:
        console.print(Text(f"and {rest} with their defaults, which --json lists", "dim"))
    for name in ("hyperparameters", "environment"):
        if answer[name]:
            console.print(Text(f"\n{name.capitalize()}", "italic"))
            console.print(output.pairs(answer[name]))
    if answer["trials"]:
        output.show_table(console, answer["trials"], title="Trials", optional=("seconds", "epochs"))
    rows = [_listed({**row, "bytes": output.size(row["bytes"])}) for row in answer["artifacts"]]
    if rows:
        columns = ("id", "type", "made_by", "state", "note", "bytes", "uri")
        output.show_table(console, rows, columns, "Artifacts", optional=("made_by", "bytes"))


def tree(console: Console, answer: Mapping[str, Any]) -> None:
    """Prints the lineage of an artifact as two trees."""
    root = Tree(_artifact(answer))
    described: set[str] = set()
    up = root.add(Text("made of", "bold"))
    if answer["made_by"]:
        _add_maker(up, answer["made_by"], described)
    else:
        up.add(Text("nothing that the store knows of", "dim"))
    down = root.add(Text("used by", "bold"))
    for each in answer["used_by"]:
        _add_user(down, each, described)
    if not answer["used_by"]:
        down.add(Text("nothing", "dim"))
    console.print(root)


# Parts of a comparison of two runs that may be the same.
PARTS = ("data", "schema", "settings", "hyperparameters", "code", "environment", "outcome")


def diff(console: Console, answer: Mapping[str, Any]) -> None:
    """Prints what differs between two runs."""
    console.print(Text(f"a  {answer['a']}\nb  {answer['b']}\n"))
    for part in PARTS:
        if answer[part]:
            rows = [{"what": key, **values} for key, values in answer[part].items()]
            output.show_table(console, rows, title=part.capitalize())
        else:
            console.print(Text(f"{part.capitalize()}: the same", "dim"))
    if answer["modules"]:
        console.print(Text(f"Changed modules: {', '.join(answer['modules'])}"))
    if answer["metrics"]:
        rows = [{"metric": key, **row} for key, row in answer["metrics"].items()]
        output.show_table(console, rows, title="Metrics")
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
    if answer["versions"]:
        optional = ("data", "model", "replaced_at", "run")
        output.show_table(console, answer["versions"], columns, optional=optional)
    if answer["changes"]:
        change_columns = ("when", "model", "action", "version", "stable", "canary", "shadow", "user")
        title = "Changes of the version that answers"
        output.show_table(console, answer["changes"], change_columns, title, optional=("user", "model"))


def tables(console: Console, answer: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Prints one table for each key that has rows."""
    for title, rows in answer.items():
        if rows:
            output.show_table(
                console, [_listed(row) for row in rows], title=title.capitalize(), optional=_OPTIONAL
            )
        else:
            console.print(Text(f"{title.capitalize()}: none", "dim"))


def clean(console: Console, answer: Mapping[str, Any]) -> None:
    """Prints what is or would be taken away."""
    tables(console, {"artifacts": answer["artifacts"], "orphans": answer["orphans"]})
    before, after = output.size(answer["bytes_before"]), output.size(answer["bytes_after"])
    console.print(
        Text(f"{before} before, {after} after" + ("" if answer["done"] else "; --yes takes the files away"))
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _listed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an artifact for a table, with the type without its package."""
    shown: dict[str, Callable[[str], str]] = {
        "type": lambda kind: kind.rpartition(".")[2],
        "uri": output.place,
    }
    return {key: shown[key](value) if key in shown else value for key, value in row.items()}


def _artifact(each: Mapping[str, Any], role: str = "") -> Text:
    name = f"{each['type'].rpartition('.')[2]} #{each['id']}"
    label = Text.assemble((f"{role}: " if role else "", "yellow" if role in model.BASELINES else "dim"))
    if each.get("repeated"):
        return label.append(name, "cyan").append("  see above", "dim")
    label.append(name, "bold cyan").append(f"  {output.place(each['uri'])}")
    if each["note"]:
        label.append(f"  {each['note']}", "red")
    if each["state"] != model.LIVE:
        label.append(f"  files {each['state']}", "dim")
    for key, value in each["facts"].items():
        if value is not False or not each["note"]:  # which says it already
            label.append(f"\n{key} {output.word(value)}", "dim")
    return label


def _execution(each: Mapping[str, Any], described: set[str]) -> Text:
    """Returns an execution for a tree; the settings only for the first one of its run.

    Args:
      each: the execution.
      described: ids of the runs whose settings are in the tree already; that of this one is added.
    """
    seconds = f", {each['seconds']:.1f} s" if each["seconds"] is not None else ""
    run = f" in run {each['run']}" if each["run"] else ""
    role = each.get("as", "")
    label = Text.assemble(
        (each["component"], "bold"),
        (f" as {role}" if role else "", "yellow" if role in model.BASELINES else "dim"),
        f"{run}, {each['when']}, {each['state']}{seconds}",
    )
    if each["code"]:
        label.append(f"\ncode {each['code']}", "dim")
    if each["settings"] and each["run"] in described:
        return label.append("\nsettings as above", "dim")
    if each["settings"]:
        described.add(each["run"])
    for key, row in each["settings"].items():
        label.append(f"\n{key}={output.word(row['value'])} ({row['origin']})", "dim")
    return label


def _add_maker(branch: Tree, execution: Mapping[str, Any], described: set[str]) -> None:
    node = branch.add(_execution(execution, described))
    for artifact in execution["inputs"]:
        child = node.add(_artifact(artifact, artifact["input"]))
        if artifact.get("made_by"):
            _add_maker(child, artifact["made_by"], described)


def _add_user(branch: Tree, execution: Mapping[str, Any], described: set[str]) -> None:
    node = branch.add(_execution(execution, described))
    for artifact in execution["outputs"]:
        child = node.add(_artifact(artifact))
        for user in artifact.get("used_by", ()):
            _add_user(child, user, described)
