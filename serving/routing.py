"""Which version of a model answers: the newest one, unless a file beside the versions says otherwise.

The file is `versions.json` in the folder of a model. `python -m serving.versions` writes it, and the Pusher
with `pusher.promote=manual`; the server notices a change. Servers that do not know the file, such as TF
Serving, serve the newest version.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving import atomic_file

FILE = "versions.json"
NO_VERSION = 0  # as `stable`: no version answers until one is promoted
STABLE, CANARY = "stable", "canary"


class RoutingError(ValueError):
    """A file of routes that cannot be used; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Routes:
    """Routes of the requests that name no version.

    Attributes:
      stable: version that answers; None for the newest one, NO_VERSION if none answers.
      canary: version that answers a part of the requests instead; None if there is none.
      percent: how many of 100 requests the canary answers, from 0 to 100.
      shadow: version that computes the same requests, without answering them, to be compared; None if there
        is none.
      previous: version that was stable before, to which a rollback returns; None if there was none.
    """

    stable: int | None = None
    canary: int | None = None
    percent: int = 0
    shadow: int | None = None
    previous: int | None = None

    def versions(self) -> set[int]:
        """Returns the versions that are named."""
        return {version for version in (self.stable, self.canary, self.shadow) if version}

    def stable_of(self, available: Collection[int]) -> int | None:
        """Returns the version that answers, of those that are available; None if none is."""
        if self.stable is not None:
            return self.stable if self.stable in available else None
        others = [version for version in available if version not in (self.canary, self.shadow)]
        return max(others or available, default=None)


def read(folder: Path) -> Routes:
    """Reads the routes of a model.

    Args:
      folder: folder of the model's versions.

    Returns:
      The routes; the newest version answers if there is no file.

    Raises:
      RoutingError: the file cannot be read or has other content.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Routes()
    except (OSError, ValueError) as error:
        raise RoutingError(f"{path}: expected routes as JSON, found {error}") from None
    return _checked(values, path)


def write(folder: Path, routes: Routes) -> None:
    """Writes the routes of a model; a server sees the old ones or the new ones, never a part."""
    with atomic_file.replacing(folder / FILE) as part:
        part.write_text(json.dumps(asdict(routes), indent=2) + "\n", encoding="utf-8")
        # The server may run as another user.
        part.chmod(0o644)


def _checked(values: Any, path: Path) -> Routes:
    names = Routes.__dataclass_fields__
    if not isinstance(values, dict) or not values.keys() <= names.keys():
        raise RoutingError(f"{path}: expected an object with some of {', '.join(names)}, found {values!r}")
    for name, value in values.items():
        optional = name != "percent"
        if not (type(value) is int and value >= 0) and not (optional and value is None):
            raise RoutingError(f"{path}: {name}: expected the number of a version, found {value!r}")
    routes = Routes(**values)
    if not 0 <= routes.percent <= 100:
        raise RoutingError(f"{path}: percent: expected 0 to 100, found {routes.percent}")
    return routes
