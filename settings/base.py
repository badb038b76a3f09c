"""Base class, number types, validators and error shared by all sections of the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field

# Strict, because pydantic would otherwise accept a YAML `true` as the integer 1.
PositiveInt = Annotated[int, Field(strict=True, ge=1)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # the range of NumPy's seeds
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]
OpenProportion = Annotated[float, Field(strict=True, gt=0, lt=1)]
Proportion = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]


class ConfigError(ValueError):
    """Invalid settings; the message says what was found and what is allowed."""


class Section(pydantic.BaseModel):
    """A frozen group of settings that rejects unknown keys."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def all_different(values: tuple[str, ...]) -> tuple[str, ...]:
    """Checks that no value is repeated, as a pydantic validator.

    Returns:
      The values, unchanged.

    Raises:
      ValueError: a value is repeated.
    """
    if len(set(values)) < len(values):
        raise ValueError("expected each value once")
    return values


def matching(pattern: str, expected: str) -> pydantic.AfterValidator:
    """Returns a pydantic validator of texts, whose error says what is allowed instead of showing the pattern.

    Args:
      pattern: regular expression of the whole text.
      expected: what is allowed, with an example, such as "a time, such as `12:30`".
    """

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"expected {expected}")
        return value

    return pydantic.AfterValidator(check)


def list_keys(section: type[pydantic.BaseModel], prefix: str = "") -> list[tuple[str, Any, str]]:
    """Lists all keys of a section and of its nested sections.

    Args:
      section: class of the section.
      prefix: prepended to each key, such as `trainer.`.

    Returns:
      (dotted key, default, description) of each value that can be set; the description is empty if the
      field has none.
    """
    rows: list[tuple[str, Any, str]] = []
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, pydantic.BaseModel):
            rows += list_keys(type(default), f"{prefix}{name}.")
        else:
            rows.append((prefix + name, default, field.description or ""))
    return rows


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of all values of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
