"""What the command lines of both runners have in common."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pipeline import config as configuration

_PRESETS = Path(__file__).resolve().parent.parent / "configs"
_DEFAULT_PRESETS = {"cnn": _PRESETS / "quick.yaml", "mobilenetv2": _PRESETS / "mobilenetv2.yaml"}

KEYS = "**Keys of --set and of YAML files, with their defaults, which a preset replaces:**\n\n" + "\n".join(
    f"- `{key}` = {json.dumps(default)}" + (f": {description}" if description else "")
    for key, default, description in configuration.list_keys()
)

Model = Annotated[str | None, typer.Option(help="`cnn` or `mobilenetv2`; overrides the preset.")]
Config = Annotated[
    list[Path] | None,
    typer.Option(
        help="A preset in YAML; may be repeated, and later ones win. By default configs/quick.yaml; with "
        "`--model mobilenetv2`, configs/mobilenetv2.yaml."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the configuration; may be repeated."),
]
NoTune = Annotated[
    bool,
    typer.Option("--no-tune", help="Leaves the Tuner out; learning rate and batch size are the preset's."),
]


def load(
    presets: list[Path] | None,
    overrides: list[str] | None,
    model: str | None,
    no_tune: bool,
    **flags: str | None,
) -> configuration.PipelineConfig:
    """Reads the configuration that a command line asks for.

    Args:
      presets: of `--config`.
      overrides: of `--set`.
      model: of `--model`.
      no_tune: of `--no-tune`.
      **flags: values of other flags, by the key that each one sets; `__` stands for a dot.

    Raises:
      ConfigError: see `pipeline.config.load` and `PipelineConfig.check_workers`.
    """
    values: dict[str, Any] = {key.replace("__", "."): value for key, value in flags.items()}
    values |= {"model.architecture": model, "tuner.enabled": not no_tune and None}
    config = configuration.load(
        presets or [_DEFAULT_PRESETS.get(model or "cnn", _DEFAULT_PRESETS["cnn"])],
        overrides or (),
        {key: value for key, value in values.items() if value is not None},
    )
    config.check_workers()
    return config


def fail(message: str) -> NoReturn:
    """Ends the program with a message."""
    typer.echo(f"error: {message}", err=True)
    sys.exit(1)
