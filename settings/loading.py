"""Reads presets and overrides into a checked configuration."""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from settings.base import ConfigError, list_keys
from settings.model import ModelConfig
from settings.pipeline import FLAG, SET, PipelineConfig

PRESETS = Path(__file__).resolve().parent.parent / "configs"

# The key of a preset that says what it is set on top of. The only value is `none`: on top of nothing.
_BASE = "base"


def load(
    paths: Sequence[Path] = (),
    overrides: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
    *,
    on_base: bool = False,
) -> PipelineConfig:
    """Reads presets and applies overrides.

    Args:
      paths: YAML files, of which later ones win; what none of them sets has its default.
      overrides: `section.key=value` strings, the value in YAML notation; they win over the files.
      values: dotted key -> value; they win over both.
      on_base: start from the preset of the architecture, unless one of the files says `base: none`.

    Returns:
      The checked configuration.

    Raises:
      ConfigError: an unreadable file, an unknown key, a wrong type or an impossible value; all of
        them are listed, each with what is allowed.
    """
    presets = [(path, _read_yaml(path)) for path in paths]
    is_whole = [_is_whole(path, preset) for path, preset in presets]  # checks all of them
    parsed = [_parse_override(override) for override in overrides]
    given = [
        *((key, value, SET) for key, value in parsed),
        *((k, v, FLAG) for k, v in (values or {}).items()),
    ]
    if on_base and not any(is_whole):
        base = _base([preset for _, preset in presets], {key: value for key, value, _ in given})
        presets.insert(0, (base, _read_yaml(base)))
        presets[0][1].pop(_BASE, None)
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for path, preset in presets:
        _merge(tree, preset)
        origins |= dict.fromkeys(_leaves(preset), path.name)
    for key, value, origin in given:
        _set(tree, key, value)
        _note_origin(origins, tree, key, origin)
    try:
        config = PipelineConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        files = " and ".join(str(path) for path, _ in presets)
        source = f", of {files} and what was set on top of it," if files else ""
        problems = "\n".join(f"  {line}" for line in dict.fromkeys(_explain(e) for e in error.errors()))
        raise ConfigError(f"the configuration{source} cannot be used:\n{problems}") from None
    config._origins.update(origins)
    return config


def _is_whole(path: Path, preset: dict[str, Any]) -> bool:
    """Takes `base` out of a preset; returns whether the preset stands alone."""
    if _BASE not in preset:
        return False
    value = preset.pop(_BASE)
    if value != "none":
        raise ConfigError(
            f"{path}: {_BASE}: expected `none`, for a preset that stands alone, found {value!r}. A preset "
            f"without {_BASE} is set on top of its architecture's preset in configs/"
        )
    return True


def _base(presets: Sequence[dict[str, Any]], given: Mapping[str, Any]) -> Path:
    """Returns the preset of the architecture that files and overrides ask for."""
    architectures = ModelConfig.architectures()
    asked: Any = None
    for source in (*presets, given):
        section = source.get("model")
        if isinstance(section, Mapping):
            asked = section.get("architecture", asked)
        asked = source.get("model.architecture", asked)
    # The check of all settings refuses an unknown architecture.
    name = asked if asked in architectures else ModelConfig().architecture
    return PRESETS / architectures[name].preset


def _parse_override(override: str) -> tuple[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"expected key=value, found {override!r}; for example --set trainer.epochs=5")
    return key.strip(), _parse_yaml(text, f"the value of {key}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"cannot read the configuration file {path}: {reason}") from None
    tree = _parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(tree).__name__}")
    return tree


def _parse_yaml(text: str, what: str) -> Any:
    try:
        # YAML 1.2, in which 1e-3 is a number (in YAML 1.1 it is a string).
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigError(f"{what} is not valid YAML: {error}") from None


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, leaf = dotted.split(".")
    for section in sections:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{dotted}: `{section}` is a value, not a section")
        tree = below
    tree[leaf] = value


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Sets in a tree what another one has; sections are merged, too."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of all values."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _note_origin(origins: dict[str, str], tree: Mapping[str, Any], key: str, origin: str) -> None:
    """Notes where a value that was just set comes from; a section takes the place of all that it had."""
    for known in [k for k in origins if k.startswith(f"{key}.")]:
        del origins[known]
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    leaves = _leaves(value, f"{key}.") if isinstance(value, Mapping) else [key]
    origins.update(dict.fromkeys(leaves, origin))


def _explain(error: Any) -> str:
    """One line for one of pydantic's errors, with what is allowed there."""
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
        return f"{key}: is a section; set {below}"
    if error["type"] == "tuple_type":
        defaults = {key: default for key, default, _ in list_keys(PipelineConfig)}
        example = json.dumps(defaults.get(key) or ["..."])
        return f"{key}: expected a list, such as {example}; found {error['input']!r}"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return message  # It names the settings that do not go together.
    # The message about a section names the settings in it that are wrong.
    found = "" if isinstance(error["input"], Mapping) else f"; found {error['input']!r}"
    return f"{key}: {message[0].lower()}{message[1:]}{found}"


def _section_at(location: list[Any]) -> type[pydantic.BaseModel]:
    section: type[pydantic.BaseModel] = PipelineConfig
    for part in location:
        if part not in section.model_fields:
            continue  # A name that is given to a section, such as that of a step.
        annotation = section.model_fields[part].annotation
        # Of a union its members, of a mapping what it holds.
        candidates = typing.get_args(annotation) or (annotation,)
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, pydantic.BaseModel))
    return section
