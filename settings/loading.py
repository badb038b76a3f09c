"""Builds the validated configuration from YAML presets and command-line overrides."""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from settings.base import ConfigError, leaves, list_keys
from settings.model import ModelConfig
from settings.pipeline import FLAG, SET, PipelineConfig
from settings.search import Range
from settings.training import TrainerConfig

PRESETS = Path(__file__).resolve().parent.parent / "configs"

# `base: none` in a preset says that it does not build on its architecture's preset; no other value is valid.
_BASE = "base"
# Limits of what a preset or a value of --set may be; the largest preset here has 3 levels and some 50 values.
_MAX_DEPTH, _MAX_VALUES = 30, 10_000


def load(
    paths: Sequence[Path] = (),
    overrides: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
    *,
    on_base: bool = False,
) -> PipelineConfig:
    """Reads presets and applies overrides.

    Args:
      paths: YAML files; later files take precedence. Settings in none of them have their defaults.
      overrides: `section.key=value` strings with the value in YAML notation; they take precedence over the
        files.
      values: dotted key -> value; they take precedence over the files and `overrides`.
      on_base: start from the preset of the architecture, unless one of the files has `base: none`.

    Returns:
      The validated configuration.

    Raises:
      ConfigError: a file cannot be read, a key is unknown, or a value has a wrong type or is out of range.
        The message lists all unknown keys and invalid values, each with what is allowed.
    """
    presets = [(path, _read_yaml(path)) for path in paths]
    # A list, not a generator, so that `base` is checked in every preset.
    stands_alone = [_pop_base(path, preset) for path, preset in presets]
    parsed = [_parse_override(override) for override in overrides]
    assignments = [
        *((key, value, SET) for key, value in parsed),
        *((k, v, FLAG) for k, v in (values or {}).items()),
    ]
    if on_base and not any(stands_alone):
        base = _base_preset([preset for _, preset in presets], {key: value for key, value, _ in assignments})
        presets.insert(0, (base, _read_yaml(base)))
        presets[0][1].pop(_BASE, None)
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    optimizers: dict[str, Any] = {}  # of each preset, together with those before it
    for path, preset in presets:
        _merge(tree, preset)
        _nest_space(tree)
        origins |= {key: path.name for key, _ in leaves(preset)}
        optimizers[path.name] = tree.get("trainer", {}).get("optimizer", TrainerConfig().optimizer)
    for key, value, origin in assignments:
        _set(tree, key, value)
        _nest_space(tree)
        _record_origin(origins, tree, key, origin)
    try:
        config = PipelineConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        files = " and ".join(str(path) for path, _ in presets)
        source = f" from {files} plus overrides" if files else ""
        problems = "\n".join(f"  {line}" for line in dict.fromkeys(_explain(e) for e in error.errors()))
        raise ConfigError(f"the configuration{source} cannot be used:\n{problems}") from None
    config._origins.update(origins)
    _check_learning_rate(config, origins, optimizers)
    return config


def _check_learning_rate(
    config: PipelineConfig, origins: Mapping[str, str], optimizers: Mapping[str, Any]
) -> None:
    """Raises a ConfigError if a preset's learning rate is for another optimizer than the one that is set.

    The useful rates of two optimizers differ by a factor of up to a hundred.

    Args:
      config: the configuration.
      origins: origin of each key.
      optimizers: the optimizer that each preset has set, by the file's name.
    """
    key, example = "trainer.learning_rate", "trainer.learning_rate=..."
    if config.has_tuner and (searched := config.searched().get(key)):
        if "trainer.optimizer" in config.searched():
            return  # The range has to suit all of them.
        key, example = f"tuner.space.{key}", f"tuner.space.{key}={{min: ..., max: ..., log: true}}"
        key = f"{key}.max" if isinstance(searched, Range) else key
    origin = origins.get(key, "")
    if origin in optimizers and optimizers[origin] != config.trainer.optimizer:
        raise ConfigError(
            f"trainer.optimizer={config.trainer.optimizer}: {key} of {origin} is for {optimizers[origin]}, "
            f"and would train badly. Add --set '{example}'; docs/training.md has the usual rates"
        )


def _pop_base(path: Path, preset: dict[str, Any]) -> bool:
    """Removes the key `base` from a preset and returns whether the preset stands alone (`base: none`)."""
    if _BASE not in preset:
        return False
    value = preset.pop(_BASE)
    if value != "none":
        raise ConfigError(
            f"{path}: {_BASE}: expected `none`, for a preset that does not build on another preset, found "
            f"{value!r}. A preset without {_BASE} builds on its architecture's preset in configs/"
        )
    return True


def _base_preset(presets: Sequence[dict[str, Any]], assignments: Mapping[str, Any]) -> Path:
    """Returns the preset file of the architecture that presets and assignments select."""
    architectures = ModelConfig.architectures()
    selected: Any = None
    for source in (*presets, assignments):
        section = source.get("model")
        if isinstance(section, Mapping):
            selected = section.get("architecture", selected)
        selected = source.get("model.architecture", selected)
    # An unknown architecture is reported later, when all settings are validated.
    name = selected if selected in architectures else ModelConfig().architecture
    return PRESETS / architectures[name].preset


def _parse_override(override: str) -> tuple[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"expected key=value, found {override!r}; for example --set trainer.epochs=5")
    # To YAML, `#` at the beginning is a comment; here it can only be a colour such as #ffffff.
    return key.strip(), text if text.startswith("#") else _parse_yaml(text, f"the value of {key}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the configuration file {path}: {reason}") from None
    tree = _parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(tree).__name__}")
    return tree


def _parse_yaml(text: str, what: str) -> Any:
    try:
        # This parser follows YAML 1.2, in which 1e-3 is a number; in YAML 1.1 it is a string.
        value = YAML(typ="safe", pure=True).load(text)
    except RecursionError:
        raise ConfigError(f"{what}: expected at most {_MAX_DEPTH} levels of nesting") from None
    except (YAMLError, ValueError) as error:  # ValueError: a number that Python cannot read
        raise ConfigError(f"{what} is not valid YAML: {error}") from None
    _check_size(value, what)
    return value


def _check_size(value: Any, what: str) -> None:
    """Raises a ConfigError if a value is nested too deeply or too large, as aliases of YAML can make it."""
    waiting, count = [(value, 0)], 0
    while waiting:
        part, depth = waiting.pop()
        count += 1
        if depth > _MAX_DEPTH or count > _MAX_VALUES:
            raise ConfigError(
                f"{what}: expected at most {_MAX_DEPTH} levels of nesting and {_MAX_VALUES:,} values"
            )
        below = part.values() if isinstance(part, Mapping) else part if isinstance(part, list | set) else ()
        waiting.extend((each, depth + 1) for each in below)


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, leaf = dotted.split(".")
    for section in sections:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{dotted}: `{section}` is a value, not a section")
        tree = below
    tree[leaf] = value


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Copies the values of `other` into `tree`; sections that both have are merged."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _nest_space(tree: dict[str, Any]) -> None:
    """Splits the dotted keys of `tuner.space` into sections, so that presets and `--set` can be merged."""
    tuner = tree.get("tuner")
    space = tuner.get("space") if isinstance(tuner, dict) else None
    if not isinstance(space, dict):
        return
    for key in [key for key in space if isinstance(key, str) and "." in key]:
        nested: dict[str, Any] = {}
        _set(nested, key, space.pop(key))
        _merge(space, nested)


def _record_origin(origins: dict[str, str], tree: Mapping[str, Any], key: str, origin: str) -> None:
    """Records the origin of a key that was just set; for a section, replaces the origins of all its keys."""
    for known in [k for k in origins if k.startswith(f"{key}.")]:
        del origins[known]
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    origins.update((leaf, origin) for leaf, _ in leaves({key: value}))


def _explain(error: Any) -> str:
    """Describes one of pydantic's errors in a line, with what is allowed."""
    location = [part for part in error["loc"] if not isinstance(part, int)]
    key = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        section = _section_at(location[:-1])
        allowed = list(section.model_fields)
        name = str(location[-1])
        elsewhere = [key for key, _, _ in list_keys(PipelineConfig) if key.endswith(f".{name}")]
        close = difflib.get_close_matches(name, allowed, n=1) or elsewhere[:3]
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        return f"{key}: unknown key{hint} Allowed: {', '.join(allowed)}"
    if error["type"] in ("model_type", "model_attributes_type"):
        below = ", ".join(f"{key}.{name}" for name in _section_at(location).model_fields)
        return f"{key}: is a section, not a value; set {below}"
    known = {each: (default, description) for each, default, description in list_keys(PipelineConfig)}
    default, description = known.get(key, (None, ""))
    if error["type"] == "tuple_type":
        return f"{key}: expected a list, such as {json.dumps(default or ['...'])}; found {error['input']!r}"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return message  # A check across sections: its message names the settings.
    # The input of a section is left out, because the message names the invalid settings in the section.
    found = "" if isinstance(error["input"], Mapping) else f"; found {_as_in_yaml(error['input'])}"
    # A range alone does not say what the value means, and whether a smaller or a larger one is wanted.
    meaning = f". What it sets: {description}" if description else ""
    return f"{key}: {message[0].lower()}{message[1:]}{found}{meaning}"


def _as_in_yaml(value: Any) -> str:
    """Returns a value as it is written in presets and with `--set`."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _section_at(location: list[Any]) -> type[pydantic.BaseModel]:
    """Returns the class of the section at a location of pydantic's errors."""
    section: type[pydantic.BaseModel] = PipelineConfig
    for part in location:
        if part not in section.model_fields:
            continue  # a key of a mapping of sections, such as the name of a step
        annotation = section.model_fields[part].annotation
        # The members of a union, or the key and value types of a mapping.
        candidates = typing.get_args(annotation) or (annotation,)
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, pydantic.BaseModel))
    return section
