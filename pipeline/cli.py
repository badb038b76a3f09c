"""What the command lines of both runners have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from settings import loading
from settings.base import list_keys
from settings.model import ModelConfig
from settings.pipeline import PipelineConfig

INTERRUPTED = 130  # exit status after Ctrl-C (128 + SIGINT)

_BASES = {name: section.preset for name, section in ModelConfig.architectures().items()}

KEYS = "**Keys of --set and of YAML files, with their defaults, which a preset replaces:**\n\n" + "\n".join(
    f"- `{key}` = {json.dumps(default)}" + (f": {description}" if description else "")
    for key, default, description in list_keys(PipelineConfig)
)

Model = Annotated[
    str | None, typer.Option(help=f"{', '.join(f'`{name}`' for name in _BASES)}; overrides the preset.")
]
Config = Annotated[
    list[Path] | None,
    typer.Option(
        help="A preset in YAML; may be repeated, and later ones win. A preset without `base: none` is set on "
        "top of the preset of its architecture in configs/: "
        f"{', '.join(f'{preset} of `{name}`' for name, preset in _BASES.items())}."
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
) -> PipelineConfig:
    """Reads the configuration that a command line asks for.

    Args:
      presets: of `--config`.
      overrides: of `--set`.
      model: of `--model`.
      no_tune: of `--no-tune`.
      **flags: values of other flags, by the key that each one sets; `__` stands for a dot.

    Raises:
      ConfigError: see `settings.loading.load` and `PipelineConfig.check_workers`.
    """
    values: dict[str, Any] = {key.replace("__", "."): value for key, value in flags.items()}
    values |= {"model.architecture": model, "tuner.enabled": not no_tune and None}
    config = loading.load(
        presets or (),
        overrides or (),
        {key: value for key, value in values.items() if value is not None},
        on_base=True,
    )
    config.check_workers()
    return config
