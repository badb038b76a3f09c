"""Options that the command lines of both runners share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import earlier_search
from settings import loading
from settings.base import list_keys
from settings.model import ModelConfig
from settings.pipeline import PipelineConfig

INTERRUPTED = 130  # exit status after Ctrl-C (128 + SIGINT)

_BASES = {name: section.preset for name, section in ModelConfig.architectures().items()}

KEYS = "**Keys of --set and of YAML files, with their defaults, which presets override:**\n\n" + "\n".join(
    f"- `{key}` = {json.dumps(default, default=dict)}" + (f": {description}" if description else "")
    for key, default, description in list_keys(PipelineConfig)
)

Model = Annotated[
    str | None, typer.Option(help=f"{', '.join(f'`{name}`' for name in _BASES)}; overrides the preset.")
]
Config = Annotated[
    list[Path] | None,
    typer.Option(
        help="A preset in YAML; may be repeated, and later ones win. Unless it says `base: none`, a preset "
        "extends the preset of its architecture in configs/: "
        f"{', '.join(f'{preset} of `{name}`' for name, preset in _BASES.items())}."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the configuration; may be repeated."),
]
NoTune = Annotated[
    bool,
    typer.Option("--no-tune", help="Leaves out the Tuner; all settings come from the preset."),
]


def load(
    presets: list[Path] | None,
    overrides: list[str] | None,
    model: str | None,
    no_tune: bool,
    hyperparameters: str | None = None,
    **flags: str | None,
) -> PipelineConfig:
    """Builds the configuration from the flags of a command line.

    Args:
      presets: files of `--config`.
      overrides: assignments `KEY=VALUE` of `--set`.
      model: architecture of `--model`.
      no_tune: whether `--no-tune` is given.
      hyperparameters: run or file of `--hyperparameters`, whose values count like those of `--set`, which
        takes precedence.
      **flags: values of other flags, by the key of the setting that each flag sets, with `__` for a dot;
        None leaves the setting alone.

    Returns:
      The checked configuration.

    Raises:
      ConfigError: a setting is invalid; see `settings.loading.load` and `PipelineConfig.check_workers`.
    """
    values: dict[str, Any] = {key.replace("__", "."): value for key, value in flags.items()}
    values |= {"model.architecture": model, "tuner.enabled": not no_tune and None}
    values = {key: value for key, value in values.items() if value is not None}
    config = loading.load(presets or (), overrides or (), values, on_base=True)
    if hyperparameters is not None:
        found = earlier_search.read(hyperparameters, Path(config.root))
        set_there = config.keys_of_command_line()
        values |= {key: value for key, value in found.items() if key not in set_there}
        config = loading.load(presets or (), overrides or (), values, on_base=True)
    config.check_workers()
    return config
