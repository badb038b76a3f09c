"""Takes away the files of artifacts that nothing living refers to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_metadata
from ml_metadata.proto import metadata_store_pb2 as pb

from datasets import checksums
from lineage import checking, lock, mlmd, model
from lineage.model import Artifact, Store
from settings.places import METADATA_FILE


@dataclass(frozen=True)
class Plan:
    """What can be taken away.

    Attributes:
      artifacts: artifacts whose files nothing living refers to.
      orphans: folders that belong to no artifact.
      size: bytes that become free, which are fewer than those of the files if what stays shares some of them.
      kept_size: bytes of the files of the artifacts that stay.
    """

    artifacts: Sequence[Artifact]
    orphans: Sequence[Path]
    size: int
    kept_size: int


def plan(store: Store, root: Path, keep: int) -> Plan:
    """Finds what can be taken away.

    What stays: the artifacts of the newest runs of each pipeline and of any run that is not over; the last
    blessed model of each pipeline and all pushed ones; all that any of these came from; and the verdicts and
    reports on the models that stay, with what these were made of.

    Args:
      store: what was read.
      root: folder of the runs; files elsewhere are never taken away.
      keep: number of runs of each pipeline that keep all their artifacts.
    """
    below = root.absolute() / "pipelines"
    living = _living(store, keep)
    gone: list[Artifact] = []
    kept: list[Artifact] = []
    for artifact in store.artifacts:
        is_ours = Path(artifact.uri).is_relative_to(below) and Path(artifact.uri).exists()
        if artifact.state == model.LIVE and is_ours:
            (kept if artifact.id in living else gone).append(artifact)
    orphans = checking.orphans(store, root)
    kept_places = [Path(each.uri) for each in kept]
    kept_size = checksums.size_of(*kept_places)
    # Artifacts share files: ServingCheck's blessing has those of the model.
    whole = checksums.size_of(*kept_places, *(Path(each.uri) for each in gone), *orphans)
    return Plan(gone, orphans, whole - kept_size, kept_size)


def carry_out(root: Path, keep: int) -> Plan:
    """Takes away what `plan` finds; the store keeps its records.

    The artifacts are marked as deleted first, so that a run never takes a result from the cache whose files
    are only partly there.

    Args:
      root: folder of the runs, which must have a store.
      keep: number of runs of each pipeline that keep all their artifacts.

    Returns:
      What was taken away.

    Raises:
      ConfigError: a run is using the root.
      LineageError: the store cannot be read.
    """
    with lock.exclusive(root):
        planned = plan(mlmd.read_file(root / METADATA_FILE, in_use=False), root, keep)
        _mark_as_deleted(root, planned.artifacts)
        for place in [*(Path(artifact.uri) for artifact in planned.artifacts), *planned.orphans]:
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()
    return planned


def _mark_as_deleted(root: Path, artifacts: Sequence[Artifact]) -> None:
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(root / METADATA_FILE)
    config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.ConnectionMode.READWRITE
    store = ml_metadata.MetadataStore(config)
    records = store.get_artifacts_by_id([int(artifact.id) for artifact in artifacts])
    for record in records:
        record.state = pb.Artifact.DELETED
    store.put_artifacts(records)


def _living(store: Store, keep: int) -> set[str]:
    """Returns the ids of the artifacts that must stay."""
    pipelines = {run.pipeline for run in store.runs}
    runs = [run for name in pipelines for run in [r for r in store.runs if r.pipeline == name][-keep:]]
    runs += [run for run in store.runs if run.state in (model.RUNNING, model.UNCONFIRMED)]
    roots = [
        artifact for run in runs for each in run.executions for _, artifact in [*each.outputs, *each.inputs]
    ]
    for name in pipelines:
        blessed = [a for a in store.of_type(model.BLESSING) if _pipeline(a) == name and _can_be_baseline(a)]
        roots += blessed[-1:]
    pushed = [each for each in store.of_type(model.PUSHED) if each.properties.get("pushed")]
    roots += [each for each in pushed if each.state == model.LIVE]
    living: dict[str, Artifact] = {}
    waiting = list(roots)
    while waiting:
        artifact = waiting.pop()
        if artifact.id in living:
            continue
        living[artifact.id] = artifact
        if artifact.made_by:
            waiting += [source for _, source in artifact.made_by.inputs]
            # The cache answers a step only if all of its outputs are there.
            waiting += [made for _, made in artifact.made_by.outputs]
    models = [artifact for artifact in living.values() if artifact.type == model.MODEL]
    living |= {each.id: each for artifact in models for each in _found_about(artifact)}
    return set(living)


def _can_be_baseline(blessing: Artifact) -> bool:
    """Returns whether a blessing is positive, and its files and those of its model are there."""
    judged = [used for name, used in blessing.made_by.inputs if name == "model"] if blessing.made_by else []
    is_there = all(each.state == model.LIVE for each in (blessing, *judged))
    return is_there and bool(blessing.properties.get("blessed"))


def _found_about(candidate: Artifact) -> Iterator[Artifact]:
    """Yields verdicts and reports on a model and their inputs, apart from models that it was compared with.

    So a run with the settings of a model that stays takes all from the cache.
    """
    for execution in candidate.used_by:
        if ("model", candidate) in execution.inputs:
            yield from (made for _, made in execution.outputs)
            yield from (used for _, used in execution.inputs if used.type != model.MODEL)


def _pipeline(artifact: Artifact) -> str | None:
    run = artifact.made_by.run if artifact.made_by else None
    return run.pipeline if run else None
