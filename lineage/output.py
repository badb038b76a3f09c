"""Prints answers: tables on a terminal, elsewhere one fact a line, and JSON."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Facts that name an element of a list, for the paths of the lines.
_NAMES = ("component", "key", "id", "version", "run", "when")
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


def answer(value: Any, as_json: bool, view: Callable[[Console], None]) -> None:
    """Prints an answer.

    Args:
      value: the answer, which JSON can hold.
      as_json: whether it is printed as JSON.
      view: prints it on a terminal.
    """
    if as_json:
        print(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    elif sys.stdout.isatty():
        view(Console(highlight=False))
    else:
        for path, fact in _lines("", value):
            print(f"{path}\t{fact}")


def fail(message: str) -> NoReturn:
    """Ends the program with an error message and exit code 1."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _lines(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields each fact with its path, in which a list's element has its name, or else its number from 0."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _lines(f"{path} {key}".strip(), each)
    elif isinstance(value, list | tuple):
        names = [_name(each) for each in value]
        counts = Counter(names)
        for index, (name, each) in enumerate(zip(names, value, strict=True)):
            # A name that several elements have would not tell their facts apart.
            yield from _lines(f"{path} {name if name and counts[name] == 1 else index}".strip(), each)
    else:
        yield path, word(value)


def _name(value: Any) -> str:
    """Returns the name of a list's element; an empty text if it has none."""
    if not isinstance(value, Mapping):
        return ""
    return next((str(value[key]) for key in _NAMES if key in value), "")


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


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, title: str = "") -> Table:
    """Returns a table of rows.

    Args:
      rows: facts by name.
      columns: names of the facts that are shown; None shows those of the first row.
      title: above the table; empty for none.
    """
    shown = list(columns or (rows[0] if rows else ()))
    made = Table(
        box=None,
        padding=(0, 2, 0, 0),
        header_style="dim",
        title=f"\n{title}" if title else None,
        title_justify="left",
    )
    for name in shown:
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        made.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(text(row.get(name)) for name in shown))
    return made
