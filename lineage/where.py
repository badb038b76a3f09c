"""Conditions on facts, such as `accuracy>0.9 and data=cifar10`."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Mapping
from typing import Any

from lineage.model import LineageError

_CONDITION = re.compile(r"\s*([\w./-]+?)\s*(<=|>=|!=|==|=|<|>)\s*(\"[^\"]*\"|'[^']*'|[^\s\"']+)\s*")
# Without quotation marks; `-` is how answers show that a fact is missing.
_WORDS = {"yes": True, "true": True, "no": False, "false": False, "none": None, "null": None, "-": None}
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
Condition = tuple[str, str, Any]


def parse(text: str) -> list[list[Condition]]:
    """Parses conditions that are joined by `and` and `or`; `and` binds tighter.

    Returns:
      Alternatives, each a list of (key, operator, value) that must all hold.

    Raises:
      LineageError: the text is not of this form.
    """
    return [
        [_parse_one(part, text) for part in re.split(r"\s+and\s+", alternative, flags=re.IGNORECASE)]
        for alternative in re.split(r"\s+or\s+", text, flags=re.IGNORECASE)
    ]


def _parse_one(part: str, text: str) -> Condition:
    if not (found := _CONDITION.fullmatch(part)):
        found_text = repr(part.strip()) if part.strip() else "nothing"
        raise LineageError(
            f"{text or repr(text)}: expected conditions such as 'accuracy>0.9 and data=cifar10', with =, !=, "
            f"<, <=, > or >=, and - for a missing value; found {found_text}"
        )
    key, sign, value = found.groups()
    return key, "=" if sign == "==" else sign, _read_value(value)


def _read_value(text: str) -> Any:
    """Returns the number, truth value or text that a word stands for."""
    if text[:1] in "\"'" and text[:1] == text[-1:]:
        return text[1:-1]
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return float(text)
    except ValueError:
        return text


def holds(alternatives: list[list[Condition]], facts: Mapping[str, Any]) -> bool:
    """Returns whether facts fulfil all conditions of an alternative."""
    return any(
        all(_matches(facts.get(key), sign, value) for key, sign, value in each) for each in alternatives
    )


def _matches(fact: Any, sign: str, value: Any) -> bool:
    """Compares a fact with a value; texts may have the wildcards `*` and `?`.

    A fact that is missing is neither larger nor smaller than anything.

    Raises:
      LineageError: a number is to be larger or smaller than a text.
    """
    if sign in ("=", "!="):
        return _equal(fact, value) is (sign == "=")
    if fact is None or value is None:
        return False
    if isinstance(value, str) and not isinstance(fact, str):
        raise LineageError(f"{value}: expected a number, since it is compared with {fact}")
    if isinstance(fact, str):
        value = _as_text(value)  # versions and times may look like numbers
    return bool(_ORDER[sign](fact, value))


def _as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _equal(fact: Any, value: Any) -> bool:
    if fact is not None and (isinstance(value, str) or isinstance(fact, str)):
        return fnmatch.fnmatchcase(str(fact), _as_text(value))
    return bool(fact == value)
