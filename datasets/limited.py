"""Reads small text files whole, but no more than such a file can have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# In bytes: far more than the schema, the class names or the corrections of any dataset have. A file of many
# gigabytes under the name of one of them would otherwise fill the memory.
MAX_BYTES = 2**26


def read_text(path: Path) -> str:
    """Reads a text file.

    Args:
      path: a UTF-8 text file of at most 64 MiB.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is larger, or not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES / 1e6:.0f} MB, found more")
    return content.decode().replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Args:
      path: a UTF-8 text file of at most 64 MiB.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is larger, or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("too deeply nested") from None
