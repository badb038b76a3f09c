"""Formats shares as percentages, for all parts of a report."""

from __future__ import annotations

from collections.abc import Sequence

from components.evaluator import intervals

NO_BREAK_SPACE = "\u00a0"
# Confidence level of the report's intervals.
LEVEL = f"{100 * intervals.LEVEL:.0f}{NO_BREAK_SPACE}%"


def percent(share: float | None) -> str:
    """Formats a share in [0, 1] as a percentage."""
    return "no data" if share is None else f"{100 * share:.1f}{NO_BREAK_SPACE}%"


def percent_interval(interval: Sequence[float] | None) -> str:
    """Formats an interval of shares in [0, 1] as percentages."""
    if interval is None:
        return ""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}{NO_BREAK_SPACE}%"
