"""The space of a hyperparameter search: the settings that the Tuner tries, and the values of each.

A space maps dotted keys of settings to a range of numbers or a list of values. It is checked by the types of
the settings themselves, without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import Field

from settings.base import Flag, PositiveFloat, Section

# Sections whose settings can be searched. Of `model`, only the section of the configured architecture can:
# the image size and the way of resizing belong to Transform, whose output all trials share.
_SECTIONS = ("trainer", "augmentation", "model")
# Settings of those sections that a trial replaces, or that do not change what is learned -> the reason.
_NOT_SEARCHED = {
    "trainer.epochs": "a trial has tuner.epochs",
    "trainer.early_stopping_patience": "a trial has tuner.epochs",
    "trainer.cache_mebibytes": "it does not change the result",
    "trainer.deterministic": "it does not change the result",
}
# Hyperband: the share of the trials that goes on is one in so many, and they train so many times as long.
HYPERBAND_FACTOR = 3
# Names that KerasTuner's Hyperband adds to the values of a trial begin with this.
_INTERNAL = "tuner/"
_MOST_POINTS = 512  # points that are tried before a space counts as refused by the settings
_MOST_STEPS = 10_000  # values of a range with a step
# Fractional parts of the multiples of these irrational numbers fill a cube evenly (Kronecker's sequence).
_IRRATIONALS = tuple(math.sqrt(prime) % 1 for prime in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43))

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Settings = TypeVar("_Settings", bound=pydantic.BaseModel)


class Range(Section):
    """A range of numbers that the Tuner searches.

    Attributes:
      min: lowest value.
      max: highest value, at least `min`.
      log: whether equal factors, instead of equal distances, have the same probability.
      step: distance between two values that are tried or, with `log`, their factor; None tries any value.
    """

    min: _Number
    max: _Number
    log: Flag = False
    step: PositiveFloat | None = None

    @pydantic.model_validator(mode="after")
    def _is_usable(self) -> Range:
        if self.min > self.max:
            raise ValueError(f"min ({self.min:g}) must not be larger than max ({self.max:g})")
        if self.log and self.min <= 0:
            raise ValueError(f"log needs a min above 0, found {self.min:g}")
        if self.log and self.step is not None and self.step <= 1:
            raise ValueError(f"with log, step is a factor above 1, found {self.step:g}")
        if self._steps() > _MOST_STEPS:
            raise ValueError(f"step ({self.step:g}) makes more than {_MOST_STEPS:,} values")
        return self

    def _steps(self) -> float:
        """Returns how often `step` fits between `min` and `max`; 0 without a step."""
        if self.step is None:
            return 0
        return math.log(self.max / self.min, self.step) if self.log else (self.max - self.min) / self.step

    def values(self) -> list[float]:
        """Lists the values of a range with a step, `max` included where the steps reach it."""
        assert self.step is not None
        # The tolerance keeps a last value that rounding errors put beyond `max`: 5 x 0.1 reach 0.5.
        indices = range(math.floor(self._steps() + 1e-9) + 1)
        if self.log:
            return [min(self.min * self.step**index, self.max) for index in indices]
        digits = 12 - math.floor(math.log10(max(abs(self.min), abs(self.max), self.step)))
        return [round(self.min + index * self.step, digits) for index in indices]


Choices = tuple[Any, ...]
Space = Mapping[str, Range | Choices | None]


def parse(value: Any) -> dict[str, Range | Choices | None]:
    """Reads a space, as a pydantic validator.

    Args:
      value: mapping of dotted keys, or nested mappings with the parts of the keys; each key has a list of
        values, a range {min, max, log, step}, or None, which leaves it out.

    Returns:
      Dotted key -> range, values or None, in the given order.

    Raises:
      ValueError: an entry is neither; the message names all that are wrong.
    """
    if not isinstance(value, Mapping):
        raise ValueError("expected a mapping such as {trainer.learning_rate: {min: 1e-3, max: 1e-1}}")
    space: dict[str, Range | Choices | None] = {}
    problems = []
    for key, entry in _flatten(value):
        try:
            space[key] = _parse_entry(entry)
        except pydantic.ValidationError as error:
            problems += [f"{key}: {_describe(each)}" for each in error.errors()]
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return space


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and not value.keys() & Range.model_fields.keys():
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parse_entry(entry: Any) -> Range | Choices | None:
    if entry is None or isinstance(entry, Range):
        return entry
    if isinstance(entry, Mapping):
        return Range.model_validate(entry)
    if not isinstance(entry, list | tuple):
        raise ValueError(
            f"expected a range such as {{min: 0, max: 0.5}} or a list of values, found {entry!r}"
        )
    if not entry:
        raise ValueError("expected at least one value")
    if len({json.dumps(value) for value in entry}) < len(entry):
        raise ValueError("expected each value once")
    return tuple(entry)


def _describe(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return f"{error['loc'][-1]}: a range has {', '.join(Range.model_fields)}"
    name = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message[0].lower()}{message[1:]}" if name else message


DEFAULT: dict[str, Range | Choices | None] = {
    "trainer.learning_rate": Range(min=1e-3, max=1e-2, log=True),
    "trainer.batch_size": (64, 128),
}


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One searched setting, with values of the setting's type.

    Attributes:
      key: dotted key of the setting.
      values: the values to choose from; None for a range.
      low, high: ends of a range.
      log: whether the range is logarithmic.
      integer: whether the setting takes whole numbers only.
    """

    key: str
    values: Choices | None = None
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether there is only one value."""
        return len(self.values) == 1 if self.values is not None else self.low == self.high

    @property
    def count(self) -> float:
        """Number of values; infinite for a range of numbers that need not be whole."""
        if self.values is not None:
            return len(self.values)
        return 1 if self.is_fixed else self.high - self.low + 1 if self.integer else math.inf

    def list_values(self) -> list[Any]:
        """Lists the values, of which there has to be a finite number."""
        if self.values is not None:
            return list(self.values)
        return list(range(int(self.low), int(self.high) + 1)) if self.integer else [self.low]

    def at(self, fraction: float) -> Any:
        """Returns the value at a fraction, 0 to 1, of the range or of the list."""
        if self.values is not None:
            return self.values[min(int(fraction * len(self.values)), len(self.values) - 1)]
        high = self.high + self.integer  # so that all whole numbers have an equal share
        value = (
            self.low * (high / self.low) ** fraction if self.log else self.low + fraction * (high - self.low)
        )
        return min(int(value), int(self.high)) if self.integer else min(max(value, self.low), self.high)

    def describe(self) -> str:
        """Describes the values in a few words, such as `from 0.1 to 0.2`."""
        if self.values is None:
            return f"from {self.low:g} to {self.high:g}"
        shown = [format_value(value) for value in self.values]
        return f"(only {shown[0]})" if len(shown) == 1 else f"among {', '.join(shown)}"


def format_value(value: Any) -> str:
    """Formats a value of a setting for people: numbers with at most four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def count(number: int, noun: str) -> str:
    """Returns a number of things, such as `1 trial` or `2 trials`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def resolve(space: Space, settings: Any) -> list[Dimension]:
    """Checks a space against the types of the settings.

    Args:
      space: the space.
      settings: an object with the sections `trainer`, `augmentation` and `model`.

    Returns:
      The dimensions, in the order of the space, without the settings that it leaves out.

    Raises:
      ValueError: a key is no setting that can be searched, or the setting refuses a value; the message lists
        all problems.
    """
    dimensions, problems = [], []
    for key, entry in space.items():
        try:
            section, name = _find(key, settings)
            if entry is not None:
                dimensions.append(_dimension(key, entry, section, name))
        except ValueError as error:
            problems.append(f"tuner.space: {key}: {error}")
    if problems:
        raise ValueError("\n  ".join(problems))
    return dimensions


def _find(key: str, settings: Any) -> tuple[pydantic.BaseModel, str]:
    """Returns the section that has the setting, and the setting's name in it."""
    architecture = settings.model.architecture
    sections = {
        "trainer": settings.trainer,
        "augmentation": settings.augmentation,
        f"model.{architecture}": settings.model.network,
    }
    prefix, _, name = key.rpartition(".")
    if prefix in sections and name in type(sections[prefix]).model_fields:
        if key in _NOT_SEARCHED:
            raise ValueError(f"cannot be searched: {_NOT_SEARCHED[key]}")
        return sections[prefix], name
    top, *below = key.split(".")
    if top == "model" and len(below) == 2 and below[0] in {*settings.model.architectures()} - {architecture}:
        raise ValueError(f"is not used, because model.architecture={architecture}")
    known = [
        f"{prefix}.{name}" for prefix, section in sections.items() for name in type(section).model_fields
    ]
    similar = difflib.get_close_matches(key, known, n=1) or [k for k in known if k.endswith(f".{name}")]
    hint = f"; did you mean {' or '.join(similar)}?" if similar else "."
    raise ValueError(f"no setting that can be searched{hint} Allowed are those of {', '.join(sections)}")


def _dimension(key: str, entry: Range | Choices, section: pydantic.BaseModel, name: str) -> Dimension:
    def typed(values: Sequence[Any]) -> Choices:
        return tuple(_typed(value, section, name) for value in values)

    kinds = _kinds(type(section).model_fields[name].annotation)
    if not isinstance(entry, Range):
        return Dimension(key, values=typed(entry))
    if not kinds & {int, float}:
        raise ValueError("takes no range; give a list of values")
    integer = float not in kinds
    if integer:
        for value in (entry.min, entry.max, *([entry.step] if entry.step and not entry.log else [])):
            if not value.is_integer():
                raise ValueError(f"takes whole numbers, found {value:g}")
    if entry.step is not None:
        values = [round(value) if integer else value for value in entry.values()]
        return Dimension(key, values=typed(list(dict.fromkeys(values))))
    low, high = typed([int(entry.min), int(entry.max)] if integer else [entry.min, entry.max])
    return Dimension(key, low=low, high=high, log=entry.log, integer=integer)


def _kinds(annotation: Any) -> set[Any]:
    """Returns the types that an annotation allows, without what `Annotated` adds to them."""
    if typing.get_origin(annotation) is Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return {kind for each in typing.get_args(annotation) for kind in _kinds(each)}
    return {annotation}


def _typed(value: Any, section: pydantic.BaseModel, name: str) -> Any:
    """Returns a value as the setting's type; raises a ValueError if the setting refuses it."""
    try:
        checked = type(section).model_validate({**section.model_dump(), name: value})
    except pydantic.ValidationError as error:
        # Errors without a location are about combinations of settings, which each trial may change.
        own = [each for each in error.errors() if each["loc"][:1] == (name,)]
        if own and own[0]["type"] == "tuple_type":
            example = json.dumps([getattr(section, name)])
            raise ValueError(f"each value is a list, such as {example}; found {value!r}") from None
        if own:
            message = own[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"{message[0].lower()}{message[1:]}; found {value!r}") from None
        return tuple(value) if isinstance(value, list) else value
    return getattr(checked, name)


def list_points(dimensions: Sequence[Dimension], most: int) -> list[dict[str, Any]] | None:
    """Lists all points of a space, dotted key -> value, or returns None if there are more than `most`."""
    count = math.prod(dimension.count for dimension in dimensions)
    if count > most:
        return None
    keys = [dimension.key for dimension in dimensions]
    each = [dimension.list_values() for dimension in dimensions]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*each)]


def apply(settings: _Settings, values: Mapping[str, Any]) -> _Settings:
    """Returns settings with other values.

    Args:
      settings: the settings.
      values: dotted key -> value.

    Raises:
      pydantic.ValidationError: the settings refuse the values.
    """
    tree = settings.model_dump()
    for key, value in values.items():
        *sections, name = key.split(".")
        section = tree
        for part in sections:
            section = section[part]
        section[name] = value
    return type(settings).model_validate(tree)


def get(settings: Any, key: str) -> Any:
    """Returns the value of a setting by its dotted key, as in JSON: a tuple is a list."""
    for part in key.split("."):
        settings = getattr(settings, part)
    return list(settings) if isinstance(settings, tuple) else settings


def encode(values: Sequence[Any]) -> list[Any]:
    """Returns values that KerasTuner can hold: texts or numbers of one type; all others become JSON."""
    if all(isinstance(value, str | int | float) for value in values) and len(set(map(type, values))) == 1:
        return list(values)
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def decode(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of settings, by their dotted keys, that the values of KerasTuner stand for."""
    return {key: _decode(value) for key, value in values.items() if not key.startswith(_INTERNAL)}


def _decode(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value  # a text, such as the name of an optimizer


def find_accepted(
    dimensions: Sequence[Dimension], accept: Callable[[Mapping[str, Any]], Any]
) -> dict[str, Any]:
    """Finds a point of the space that the settings accept.

    Args:
      dimensions: the space.
      accept: raises a ValueError for a point, dotted key -> value, that the settings refuse.

    Returns:
      The first accepted point of a sequence that fills the space evenly.

    Raises:
      ValueError: no point of the sequence was accepted; the message has the reason of the first one.
    """
    reason: str | None = None
    irrationals = list(itertools.islice(itertools.cycle(_IRRATIONALS), len(dimensions)))
    for index in range(_MOST_POINTS):
        point = {
            dimension.key: dimension.at((0.5 + index * irrational) % 1)
            for dimension, irrational in zip(dimensions, irrationals, strict=True)
        }
        try:
            accept(point)
        except ValueError as error:
            reason = reason or _reason(error)
        else:
            return point
    raise ValueError(f"tuner.space: the settings refuse all combinations that were tried: {reason}")


def _reason(error: ValueError) -> str:
    if isinstance(error, pydantic.ValidationError):
        return "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
    return str(error)
