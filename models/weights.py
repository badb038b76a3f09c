"""Where the pretrained weights of MobileNetV2 are found."""

from __future__ import annotations

import os
from pathlib import Path

import h5py

from pipeline.config import ConfigError, MobileNetV2Config

RANDOM = "random"
IMAGENET = "imagenet"

_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
# The input sizes that Keras publishes weights for, of networks wider than 1.0 for the last one only. The 224
# ones are trained best for any other.
_TRAINED_SIZES = (96, 128, 160, 192, 224)
_DEFAULT_SIZE = 224
_TIMEOUT_S = 10


def locate(config: MobileNetV2Config, image_size: tuple[int, int]) -> Path | None:
    """Does what `find` does, and then `check`."""
    path = find(config, image_size)
    if path is not None:
        check(path, config)
    return path


def find(config: MobileNetV2Config, image_size: tuple[int, int]) -> Path | None:
    """Finds the weights that the configuration names; `imagenet` is downloaded if it has to be.

    Args:
      config: `weights` is `random`, `imagenet` or the path of an .h5 file without top.
      image_size: (height, width) of the network's input.

    Returns:
      An existing file, or None for random initialisation.

    Raises:
      ConfigError: the file does not exist, or cannot be downloaded.
    """
    if config.weights == RANDOM:
        return None
    if config.weights != IMAGENET:
        path = Path(config.weights).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"model.mobilenetv2.weights: there is no file {path}. Allowed: imagenet, random, or the path "
                "of an .h5 file with MobileNetV2 weights without top"
            )
        return path
    names = _file_names(config.alpha, image_size)
    folder = _cache_folder()
    for name in names:
        if (folder / name).is_file():
            return folder / name
    return _download(names[0], folder)


def check(path: Path, config: MobileNetV2Config) -> None:
    """Checks that a file has as many weights as MobileNetV2 without top.

    Args:
      path: of an existing file.
      config: the network.

    Raises:
      ConfigError: it is truncated, no HDF5 file, or of another network.
    """
    try:
        with h5py.File(path, "r") as file:
            found = _count_values(file)
    except OSError as error:
        raise ConfigError(
            f"the MobileNetV2 weights {path} ({path.stat().st_size:,} bytes) are truncated or not an "
            f"HDF5 file: {error}. Download them again, or delete the file"
        ) from error
    expected = config.published_parameters
    if found != expected:
        raise ConfigError(
            f"the MobileNetV2 weights {path} do not fit model.mobilenetv2.alpha={config.alpha}: expected "
            f"{expected:,} parameters (without top), found {found:,}"
        )


def _count_values(group: h5py.Group) -> int:
    """Counts the numbers in all datasets below an HDF5 group."""
    sizes: list[int] = []
    group.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)


def _file_names(alpha: float, image_size: tuple[int, int]) -> list[str]:
    """Returns the names of usable files, the best first."""
    height, width = image_size
    sizes = [_DEFAULT_SIZE]
    if alpha <= 1.0 and height == width and height in _TRAINED_SIZES[:-1]:
        sizes.insert(0, height)
    return [f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}_no_top.h5" for size in sizes]


def _cache_folder() -> Path:
    """Returns the folder in which Keras itself keeps downloaded weights."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def _download(name: str, folder: Path) -> Path:
    # Only here, because most runs need no download.
    import pooch  # noqa: PLC0415

    try:
        # Google publishes no checksum beside the file; `check` counts the weights.
        path = pooch.retrieve(
            url=_ADDRESS + name,
            known_hash=None,
            fname=name,
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_S),
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise ConfigError(
            f"the ImageNet weights {name} are not in {folder} and cannot be downloaded from {_ADDRESS}{name} "
            f"({type(error).__name__}). Either put the file at {folder / name}, or name another one with "
            "--set model.mobilenetv2.weights=PATH, or start from random weights with "
            "--set model.mobilenetv2.weights=random"
        ) from error
    return Path(path)
