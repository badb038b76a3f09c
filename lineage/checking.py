"""Checks whether artifacts are still what they were when they were made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import checksums
from lineage import model
from lineage.model import Artifact, LineageError, Run, Store

# Parts of the path of an output below its root, see `orphans`.
_DEPTH = 5


def check(store: Store, root: Path | None, run: Run | None) -> list[dict[str, Any]]:
    """Lists what is not as it was.

    Args:
      store: what was read.
      root: folder of the runs, in which folders are looked for that no artifact has; None looks for none.
      run: the run whose artifacts are checked; None checks all.

    Returns:
      For each finding `problem` (`missing`, `changed`, `orphaned` or `never ended`), `what` and `where`.
      Artifacts on other machines, and those whose files a run or `clean` knows to be gone, are left out.

    Raises:
      LineageError: the root was copied or moved.
    """
    chosen = store.artifacts
    executions = store.executions
    if run:
        chosen = list({a.id: a for each in run.executions for _, a in each.outputs}.values())
        executions = run.executions
    findings = [finding for artifact in chosen for finding in _check_artifact(artifact)]
    if root and not run:
        findings += [
            {"problem": "orphaned", "what": "a folder that no artifact has", "where": str(folder)}
            for folder in orphans(store, root)
        ]
    findings += [
        {
            "problem": "never ended",
            "what": f"{each.component}, execution {each.id}",
            "where": f"run {each.run.id}" if each.run else "no run",
        }
        for each in executions
        if each.state in (model.ABANDONED, model.UNCONFIRMED)
    ]
    return findings


def orphans(store: Store, root: Path) -> list[Path]:
    """Lists the folders of outputs below a root that belong to no artifact whose files should be there.

    The folder of an output is `pipelines/<pipeline>/<component>/<output>/<execution>`.

    Raises:
      LineageError: the root was copied or moved, so that the store's places of its folders are elsewhere.
    """
    _check_not_moved(store, root.absolute())
    live = {artifact.uri for artifact in store.artifacts if artifact.state == model.LIVE}
    running = {each.id for each in store.executions if each.state == model.RUNNING}
    return sorted(
        folder
        for folder in root.absolute().glob("pipelines/*/*/*/*")
        if folder.is_dir()
        and folder.name.isdecimal()
        and str(folder) not in live
        and folder.name not in running
    )


def _check_not_moved(store: Store, root: Path) -> None:
    for artifact in store.artifacts:
        place = Path(artifact.uri)
        folder = Path(*place.parts[-_DEPTH:])
        if (
            artifact.state == model.LIVE
            and not place.is_relative_to(root)
            and folder.parts[:1] == ("pipelines",)
            and (root / folder).exists()
        ):
            recorded = Path(*place.parts[:-_DEPTH])
            raise LineageError(
                f"{root} was copied or moved: its store has the folders of {recorded}, so that the files "
                "here cannot be told from those that belong to nothing. Use that root, or move this one back"
            )


def _check_artifact(artifact: Artifact) -> Iterator[dict[str, Any]]:
    if artifact.state != model.LIVE or artifact.folder is None:
        return
    if problem := _compare(artifact, artifact.folder):
        yield {"problem": problem, "what": artifact.label, "where": artifact.uri}
    place = str(artifact.properties.get("pushed_destination", ""))
    # A pushed version has the files of its artifact.
    if place and "://" not in place and (problem := _compare(artifact, Path(place))):
        yield {"problem": problem, "what": f"pushed version of {artifact.label}", "where": place}


def _compare(artifact: Artifact, place: Path) -> str | None:
    if not place.exists():
        return "missing"
    files, checksum = artifact.properties.get("files"), artifact.properties.get("sha256")
    if files is not None and len(checksums.list_files(place)) < files:
        return "missing"
    return "changed" if checksum and checksums.of_folder(place).sha256 != checksum else None
