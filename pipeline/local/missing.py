"""Finds results of earlier runs whose files are gone, so that the cache does not promise them.

TFX's cache looks whether the folder of a result is there. It does not see that files in it are gone, or that
a pushed model is.
"""

from __future__ import annotations

import posixpath

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.io import fileio

from components import metadata
from components.artifacts import DatasetDirectory
from components.pusher import destinations
from datasets import listing

# Custom property of an artifact, see `records`: number of its files when its component had ended.
_FILES = "files"
# Custom property of a PushedModel: the place that a server watches.
_PUSHED_DESTINATION = "pushed_destination"
_LISTED_PLACES = 4


def forget(store: mlmd.MetadataStore, pipeline: str) -> str | None:
    """Marks artifacts whose files are gone as deleted: the cache and the Baseline then ignore them.

    Args:
      store: metadata store.
      pipeline: name of the pipeline.

    Returns:
      A sentence that names the places whose files are gone and have not been named before; None if all
      are there.
    """
    gone = {a.id: (a, place) for a in metadata.artifacts(store, pipeline) if (place := _missing_place(a))}
    if not gone:
        return None
    for artifact, _ in gone.values():
        artifact.state = metadata_store_pb2.Artifact.DELETED
    store.put_artifacts([artifact for artifact, _ in gone.values()])
    places = [place for _, place in sorted(gone.values(), key=lambda each: -each[0].id)]
    return (
        f"Files of earlier results are gone: {listing.join(places, _LISTED_PLACES)}. What this run needs of "
        "them is made again"
    )


def _missing_place(artifact: metadata_store_pb2.Artifact) -> str | None:
    """Returns the place at which files of an artifact are gone; None if they are there."""
    if artifact.state != metadata_store_pb2.Artifact.LIVE or artifact.type == DatasetDirectory.TYPE_NAME:
        return None
    properties = artifact.custom_properties
    expected = properties[_FILES].int_value if _FILES in properties else 0
    if _PUSHED_DESTINATION in properties:
        # The artifact itself holds a copy of what was pushed.
        pushed = properties[_PUSHED_DESTINATION].string_value
        graph = posixpath.join(pushed, destinations.SAVED_MODEL)
        if not fileio.exists(graph) or _count_files(pushed) < expected:
            return pushed
    if not fileio.exists(artifact.uri) or _count_files(artifact.uri) < expected:
        return artifact.uri
    return None


def _count_files(uri: str) -> int:
    return sum(len(files) for _, _, files in fileio.walk(uri))
