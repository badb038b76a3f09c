"""Finds the pretrained weights of a network in a file, in Keras' cache, or on Keras' server."""

from __future__ import annotations

import os
from pathlib import Path

import h5py

from settings.base import ConfigError
from settings.model import IMAGENET_WEIGHTS, NetworkConfig, PretrainedConfig

_TIMEOUT_S = 10


def locate(config: NetworkConfig, image_size: tuple[int, int]) -> Path | None:
    """Finds the weights that the configuration names, and checks that they fit the network.

    Args:
      config: settings of the network.
      image_size: (height, width) of the network's input, in pixels.

    Returns:
      An existing file, or None for random initialisation.

    Raises:
      ConfigError: the file cannot be found or downloaded, or does not fit the network; see `find` and
        `check`.
    """
    if not isinstance(config, PretrainedConfig):
        return None
    path = find(config, image_size)
    if path is not None:
        check(path, config)
    return path


def find(config: PretrainedConfig, image_size: tuple[int, int]) -> Path | None:
    """Finds the weights that the configuration names.

    ImageNet weights that Keras' cache lacks are downloaded.

    Args:
      config: settings of the network; `weights` is `random`, `imagenet`, or the path of an .h5 file with
        weights without top.
      image_size: (height, width) of the network's input, in pixels.

    Returns:
      An existing file, or None for random initialisation.

    Raises:
      ConfigError: the file does not exist, or cannot be downloaded.
    """
    if not config.is_pretrained:
        return None
    if config.weights != IMAGENET_WEIGHTS:
        path = Path(config.weights).expanduser()
        if not path.is_file():
            found = "a directory" if path.is_dir() else "nothing there"
            raise ConfigError(
                f"{_key(config)}: expected imagenet, random, or the path of an .h5 file with "
                f"{config.backbone.title} weights without top; {path}: found {found}"
            )
        return path
    best = config.backbone.weights_files(config.width, image_size)[0]
    return cached(config, image_size) or _download(config, best, cache_folder())


def cached(config: PretrainedConfig, image_size: tuple[int, int]) -> Path | None:
    """Finds ImageNet weights in Keras' cache, without a download.

    Args:
      config: settings of the network.
      image_size: (height, width) of the network's input, in pixels.

    Returns:
      The best existing file for images of this size; None if there is none.
    """
    files = (cache_folder() / name for name in config.backbone.weights_files(config.width, image_size))
    return next((file for file in files if file.is_file()), None)


def check(path: Path, config: PretrainedConfig) -> None:
    """Checks that a file has as many weights as the network without top.

    Args:
      path: path of an existing file.
      config: settings of the network.

    Raises:
      ConfigError: the file is truncated, is not HDF5, or has the weights of a different network.
    """
    title = config.backbone.title
    try:
        with h5py.File(path, "r") as file:
            found = _count_values(file)
    except OSError as error:
        raise ConfigError(
            f"the {title} weights {path} ({path.stat().st_size:,} bytes) are truncated or not an "
            f"HDF5 file: {error}. Download them again, or delete the file"
        ) from error
    expected = config.backbone.parameters[config.width]
    if found != expected:
        raise ConfigError(
            f"the weights {path} do not fit {title} of width {config.width:g}: expected {expected:,} "
            f"parameters (without top), found {found:,}"
        )


def _key(config: PretrainedConfig) -> str:
    return f"model.{config.architecture}.weights"


def _count_values(group: h5py.Group) -> int:
    """Counts the numbers in all datasets below an HDF5 group."""
    sizes: list[int] = []
    group.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)


def cache_folder() -> Path:
    """Returns the folder in which Keras caches downloaded weights."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def _download(config: PretrainedConfig, name: str, folder: Path) -> Path:
    import pooch  # noqa: PLC0415 - most runs do not download weights

    address = config.backbone.weights_address + name
    try:
        # Where no checksum is published, `check` still counts the weights.
        path = pooch.retrieve(
            url=address,
            known_hash=config.backbone.weights_hashes.get(name),
            fname=name,
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_S),
        )
    except (OSError, ValueError) as error:  # the exceptions of requests are OSErrors
        # pooch raises a ValueError if the checksum is another one, and removes the file.
        reason = "the file has another checksum" if type(error) is ValueError else type(error).__name__
        raise ConfigError(
            f"the ImageNet weights {name} are not in {folder} and cannot be downloaded from {address} "
            f"({reason}). Either put the file at {folder / name}, or name a different file "
            f"with --set {_key(config)}=PATH, or start from random weights with "
            f"--set {_key(config)}=random"
        ) from error
    return Path(path)
