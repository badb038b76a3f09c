"""Lists many things in a message: the first ones, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence


def join(names: Sequence[object], limit: int) -> str:
    """Returns the first names in a row: `a, b and 3 more`."""
    more = len(names) - limit
    return ", ".join(map(str, names[:limit])) + (f" and {more} more" if more > 0 else "")


def lines(texts: Sequence[str], limit: int) -> str:
    """Returns the first texts, each in a line of its own, and a line with the number of the others."""
    more = len(texts) - limit
    listed = "\n".join(f"  {text}" for text in texts[:limit])
    return listed + (f"\n  and {more:,} more" if more > 0 else "")
