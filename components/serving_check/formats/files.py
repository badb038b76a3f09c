"""Says where the files of the formats are, and reads their description."""

from __future__ import annotations

import json
import posixpath
from typing import Any

from tfx.dsl.io import fileio
from tfx.utils import path_utils

# Folder of the formats beside `saved_model.pb`. Servers of SavedModels ignore it.
FOLDER = "formats"
LABELS = f"{FOLDER}/labels.txt"
DESCRIPTION = f"{FOLDER}/formats.json"


def read(blessing: str) -> dict[str, Any] | None:
    """Reads the description of the formats of the model that a blessing of ServingCheck holds.

    Args:
      blessing: URI of the artifact.

    Returns:
      What `writing.write` returned; None if the blessing holds no model, or the model has no other formats.
    """
    place = posixpath.join(path_utils.stamped_model_path(blessing), DESCRIPTION)
    if not fileio.exists(place):
        return None
    with fileio.open(place) as file:
        return json.load(file)
