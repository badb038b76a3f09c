"""Opens the store that the options of a command name."""

from __future__ import annotations

from pathlib import Path

from lineage import lock, mlmd
from lineage.model import LineageError, Store
from settings.places import METADATA_FILE


def read(root: Path, store: str | None = None, kfp_host: str | None = None) -> Store:
    """Reads the store of a root, or another one.

    Args:
      root: folder of the runs, as `--root` of local_runner.py.
      store: URL of a server's store; None reads the file below the root.
      kfp_host: address of the API of Kubeflow Pipelines, which is asked instead of a store.

    Raises:
      LineageError: there is no store that can be read, or it is empty; or both are given.
    """
    if store and kfp_host:
        raise LineageError("--store and --kfp exclude each other")
    if kfp_host:
        from lineage import kfp  # noqa: PLC0415 - a client that only this needs.

        found = kfp.read(kfp_host)
    elif store:
        found = mlmd.read_server(store)
    else:
        found = mlmd.read_file(root / METADATA_FILE, lock.is_held(root))
    if not found.runs:
        raise LineageError(f"{found.place} holds no runs yet")
    return found
