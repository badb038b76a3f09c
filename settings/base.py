"""What all sections of the settings share: types of numbers, the base class and the error."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import Field

# Strict, because a YAML `true` would pass for the integer 1 otherwise.
PositiveInt = Annotated[int, Field(strict=True, ge=1)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # the range of NumPy's seeds
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]
Proportion = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]


class ConfigError(ValueError):
    """Settings that cannot be used; the message says what was found and what is allowed."""


class Section(pydantic.BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def all_different(values: tuple[str, ...]) -> tuple[str, ...]:
    """Raises a ValueError if a value is repeated; for use as a validator."""
    if len(set(values)) < len(values):
        raise ValueError("expected each value once")
    return values


def list_keys(section: type[pydantic.BaseModel], prefix: str = "") -> list[tuple[str, Any, str]]:
    """Lists every key of a section and of the sections within it.

    Args:
      section: the class of the section.
      prefix: put before each key, such as `trainer.`.

    Returns:
      (dotted key, default, description) for each value that can be set.
    """
    rows: list[tuple[str, Any, str]] = []
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, pydantic.BaseModel):
            rows += list_keys(type(default), f"{prefix}{name}.")
        else:
            rows.append((prefix + name, default, field.description or ""))
    return rows
