"""Prints answers: tables on a terminal, elsewhere one fact a line, and JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Facts that name an element of a list, for the paths of the lines.
_NAMES = ("execution", "id", "component", "key", "trial", "version", "run", "when")
# Columns whose long texts a narrow table breaks into lines -> their width below which it does not.
_FOLDED = {
    **dict.fromkeys(("uri", "place", "where", "value", "folder", "note", "reason"), 24),
    **dict.fromkeys(("a", "b"), 16),  # beside each other, and beside the name of a setting
}
# Columns that a table has only if there is something in them.
_OFTEN_EMPTY = ("note", "reason", "refused_by", "replaced_by", "replaced_at")
_GAP = 2  # characters between columns
_DIGEST, _DIGITS = re.compile(r"(?=.*[a-f])[0-9a-f]{16,128}"), 12
_STYLES = {
    "complete": "green",
    "cached": "blue",
    "running": "bold cyan",
    "failed": "red",
    "abandoned": "red",
    "interrupted": "yellow",
    "yes": "green",
}
_KILO = 1000
_NONE = "none"


def answer(
    value: Any,
    as_json: bool,
    view: Callable[[Console, Any], None],
    short: Mapping[str, str] | None = None,
    empty: Mapping[str, str] | None = None,
) -> None:
    """Prints an answer.

    Args:
      value: the answer, which JSON can hold.
      as_json: whether it is printed as JSON.
      view: prints it on a terminal.
      short: text -> a shorter one that a terminal shows instead, for ids of runs. Digests are shortened, too.
      empty: path -> what its line says if it is empty, instead of `none`.
    """
    if as_json:
        print(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    elif sys.stdout.isatty():
        view(Console(highlight=False), shortened(value, short or {}))
    else:
        for path, fact in _lines("", value):
            print(f"{path}\t{(empty or {}).get(path, _NONE) if fact is None else fact}")


def note(message: str) -> None:
    """Says on stderr what an answer does not show."""
    print(message, file=sys.stderr)


def fail(message: str) -> NoReturn:
    """Ends the program with an error message and exit code 1."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _lines(path: str, value: Any) -> Iterator[tuple[str, str | None]]:
    """Yields each fact with its path, in which a list's element has its name, or else its number from 0.

    A further element of the same name has its number among these behind the name. A name that is in the path
    is no fact of its own, and numbers in a list, such as a setting's, are one fact. What is empty is None.
    """
    if isinstance(value, Mapping | list | tuple) and not value:
        if path:
            yield path, None
    elif _is_of_numbers(value):
        yield path, word(value)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _lines(_path(path, key), each)
    elif isinstance(value, list | tuple):
        counts: Counter[str] = Counter()
        for index, each in enumerate(value):
            name = _name(each)
            counts[name] += 1
            named = name if counts[name] == 1 else f"{name}.{counts[name]}"
            rest = {key: fact for key, fact in each.items() if key != _naming(each)} if name else each
            yield from _lines(_path(path, named if name else str(index)), rest)
    else:
        yield path, word(value)


def _path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_of_numbers(value: Any) -> bool:
    """Returns whether a value is a list of numbers and truth values, or of lists of these."""
    return isinstance(value, list | tuple) and all(
        isinstance(each, bool | int | float) or _is_of_numbers(each) for each in value
    )


def _name(value: Any) -> str:
    """Returns the name of a list's element; an empty text if it has none."""
    key = _naming(value)
    return str(value[key]) if key else ""


def _naming(value: Any) -> str | None:
    """Returns which fact names a list's element; None if none does."""
    if not isinstance(value, Mapping):
        return None
    return next((key for key in _NAMES if key in value), None)


def shortened(value: Any, short: Mapping[str, str]) -> Any:
    """Returns an answer with the first 12 characters of its digests, and with short texts for long ones."""
    if isinstance(value, Mapping):
        return {key: shortened(each, short) for key, each in value.items()}
    if isinstance(value, list):
        return [shortened(each, short) for each in value]
    if not isinstance(value, str):
        return value
    return value[:_DIGITS] if _DIGEST.fullmatch(value) else short.get(value, value)


def word(value: Any) -> str:
    """Returns a value as people read it, on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return " ".join(str(value).split())


def text(value: Any) -> Text:
    """Returns a value for a table."""
    shown = word(value)
    return Text(shown, _STYLES.get(shown, "dim" if value is None else ""))


def size(count: int | None) -> str:
    """Returns a number of bytes with a unit of powers of 1,000."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < _KILO:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= _KILO
    return f"{amount:.1f} GB"


def place(uri: str) -> str:
    """Returns a place as it is written from the working directory, if it is below it."""
    return os.path.relpath(uri) if Path(uri).is_relative_to(Path.cwd()) else uri


def show_table(
    console: Console,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    title: str = "",
    optional: Sequence[str] = (),
) -> None:
    """Prints rows as a table, or one below the other if the terminal is too narrow for that.

    Args:
      console: where to print.
      rows: facts by name, at least one row.
      columns: names of the facts that are shown; None shows those of the first row.
      title: above the table; empty for none.
      optional: columns that a narrow terminal does without, the least important first.
    """
    shown = [
        name
        for name in columns or rows[0]
        if name not in _OFTEN_EMPTY or any(row.get(name) is not None for row in rows)
    ]
    left_out: list[str] = []
    droppable = [name for name in optional if name in shown]
    while not _fits(console, rows, shown) and droppable:
        left_out.append(droppable.pop(0))
        shown.remove(left_out[-1])
    if title:
        console.print(Text(f"\n{title}", "italic"))
    if not _fits(console, rows, shown):
        for number, row in enumerate(rows):
            if number:
                console.print()
            console.print(pairs({name: row.get(name) for name in columns or row}))
        return
    console.print(_table(rows, shown))
    if left_out:
        console.print(Text(f"no room for {', '.join(left_out)}, which --json has", "dim"))


def _fits(console: Console, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bool:
    width = 0
    for name in names:
        longest = max(cell_len(each) for each in (name, *(word(row.get(name)) for row in rows)))
        width += min(longest, _FOLDED.get(name, longest)) + _GAP
    return width - _GAP <= console.width


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    made = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    for name in names:
        numeric = all(row.get(name) is None or type(row[name]) in (int, float) for row in rows)
        made.add_column(
            name, justify="right" if numeric else "left", overflow="fold", no_wrap=name not in _FOLDED
        )
    for row in rows:
        made.add_row(*(text(row.get(name)) for name in names))
    return made


def pairs(values: Mapping[str, Any]) -> Table:
    """Returns facts one below the other, without those that are missing."""
    made = Table(show_header=False, box=None, padding=(0, _GAP, 0, 0))
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for key, value in values.items():
        if value is not None:
            made.add_row(key, text(value))
    return made
