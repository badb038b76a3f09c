"""The commands whose durable writes are disturbed, on small inputs, and the states in which they must end.

A command runs in a child of a process that has imported TensorFlow and TFX, without having used them, so that
each run costs its own work only. The commands are those of the command line, from their arguments on.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets import shapes
from tests.faults.injection import PROBE, normalize

# Arguments of local_runner.py for a network that is trained, tuned, blessed and pushed in seconds.
SETTINGS = (
    *("model.cnn.filters=[8, 8]", "model.cnn.convolutions_per_block=1", "trainer.epochs=1"),
    *("tuner.trials=1", "tuner.epochs=1", "trainer.batch_size=32", "trainer.deterministic=true"),
    *("evaluation.min_accuracy=0", "evaluation.min_confidence_above_guessing=null"),
    *("evaluation.max_classes_never_predicted=null", "evaluation.slices=[]"),
    *("data_gate.max_leaked_fraction=1", "name=tiny"),
)
# Of the summary, what does not depend on the time.
_SUMMARY = ("data", "model", "test", "hyperparameters", "blessed", "not_pushed_because", "error")
# Outputs that have times, durations, paths or ids in them. What a graph computes is in its variables.
_VARIES = re.compile(
    r"(saved_model|fingerprint)\.pb$|/\.system/|events\.out|\.svg$|/(eval_config|metrics|serving_check|environment"
    r"|history)\.json$|/index\.html$|/trials\.parquet$"
)
_LAST = "Pusher"  # the component after which a run is a whole one
_NEW, _RUNNING, _PENDING = 1, 2, 1  # states of executions and artifacts in ML Metadata
_ENDED = 3  # the execution is complete; higher numbers are failed, cached and canceled


@dataclass(frozen=True)
class Place:
    """The folders of a case.

    Attributes:
      inputs: what the command reads; it stays the same in all cases.
      case: what the command writes; removed after each case.
    """

    inputs: Path
    case: Path

    @property
    def temporary(self) -> Path:
        """TMPDIR of the command."""
        return self.case / "tmp"

    @property
    def output(self) -> Path:
        """File for what the command prints."""
        return self.case / "output.txt"


@dataclass(frozen=True)
class Command:
    """A command to disturb.

    Attributes:
      name: name in tables.
      prepare: writes the inputs, in a child of its own.
      run: runs the command, in the child; with stages up to the given one, all of them if it is empty.
      state: describes what must be equal at the end, as a JSON-serialisable value.
      stages: whether the command names its components, so that each is disturbed on its own.
    """

    name: str
    prepare: Callable[[Place], None]
    run: Callable[[Place, str], None]
    state: Callable[[Place], Any]
    stages: bool = False

    def call(self, place: Place, until: str = "") -> None:
        """Runs the command in the environment of a case, up to a stage; all of it if that is empty."""
        os.environ["TMPDIR"] = str(place.temporary)
        tempfile.tempdir = None
        os.chdir(place.case)
        self.run(place, until)


def _pipeline(place: Place, until: str) -> None:
    """Runs the pipeline up to a component, with all that a run does before its first and after its last."""
    import local_runner  # noqa: PLC0415 - a script

    _save_time(place)
    if until:
        _leave_out_what_follows(until)
    flags = [flag for setting in SETTINGS for flag in ("--set", setting)]
    summary = ["--summary", str(place.case / "summary.json")]
    arguments = ["--data", str(place.inputs / "data"), "--root", str(place.case / "runs"), *summary, *flags]
    local_runner.app(arguments)


def _save_time(place: Place) -> None:
    """Shortens two long computations of this process that write the same files in any case.

    ModelReport saves empty figures, and ServingCheck's process, which writes no results, runs in the first
    run only; the later ones get its answer.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - not for the importers

    from components.serving_check import check  # noqa: PLC0415

    save, run_client = Figure.savefig, check._run_client
    answer = place.inputs / "serving_check_answer.txt"

    def save_empty(self: Any, *arguments: Any, **options: Any) -> None:
        del self
        save(Figure(figsize=(1, 1)), *arguments, **options)

    def run_client_once(*arguments: Any) -> subprocess.CompletedProcess[str]:
        if not answer.exists():
            process = run_client(*arguments)
            assert process.returncode == 0, process.stderr
            answer.write_text(process.stdout)
        return subprocess.CompletedProcess([], 0, answer.read_text(), "")

    Figure.savefig, check._run_client = save_empty, run_client_once


def _leave_out_what_follows(until: str) -> None:
    """Lets runs of this process, which ends with the run, end after a component."""
    from pipeline.local import runner, summary  # noqa: PLC0415 - not for the importers

    run_with_ir, show = runner.ObservedRunner.run_with_ir, summary.show

    def run_part(self: Any, pipeline: Any, run_options: Any = None) -> None:
        names = [node.pipeline_node.node_info.id for node in pipeline.nodes]
        del pipeline.nodes[names.index(until) + 1 :]
        run_with_ir(self, pipeline, run_options)

    def show_what_is_there(console: Any, described: Any, *arguments: Any, **options: Any) -> None:
        if described["error"] or described["test"]:  # without both, the table would be about no model
            show(console, described, *arguments, **options)

    runner.ObservedRunner.run_with_ir, summary.show = run_part, show_what_is_there


def _pipeline_state(place: Place) -> dict[str, Any]:
    """Describes the results, and what is left of a run besides them."""
    root = place.case / "runs"
    summary = json.loads((place.case / "summary.json").read_text())
    versions = sorted((root / "serving" / "tiny").iterdir()) if (root / "serving").exists() else []
    return {
        "summary": {key: summary[key] for key in _SUMMARY},
        "pushed": summary["pushed"] is not None and Path(summary["pushed"]) in versions,
        "versions": [[normalize(version.name), _digest(version, "variables/*")] for version in versions],
        "outputs": _outputs(root / "pipelines" / "tiny"),
        "unfinished": _unfinished(root / "metadata.sqlite"),
        "files": _files(root, "logs/"),
        "temporary": _files(place.temporary, rf"{PROBE}$"),
    }


def part(state: dict[str, Any], stages: Collection[str]) -> dict[str, Any]:
    """Returns what of a state of the pipeline is there if a run ends after some of its components.

    Args:
      state: the state after a whole run, or after a run of these components.
      stages: the components, and the empty name of what comes before them.
    """
    if _LAST in stages:
        return state
    files = {
        name: count
        for name, count in state["files"].items()
        if not name.startswith("serving/")
        and (not name.startswith("pipelines/tiny/") or name.split("/")[2] in stages)
    }
    outputs = {name: found for name, found in state["outputs"].items() if name.split("/")[0] in stages}
    ended = {key: state[key] for key in ("unfinished", "temporary")}
    return {"error": state["summary"]["error"], "files": files, "outputs": outputs, **ended}


def _outputs(pipeline: Path) -> dict[str, list[str]]:
    """Returns the digests of the components' outputs, by their names without numbers."""
    found: dict[str, list[str]] = {}
    for path in pipeline.glob("*/*/[0-9]*/**/*"):
        name = normalize(path.relative_to(pipeline).as_posix())
        if path.is_file() and not name.startswith(".") and not _VARIES.search(name):
            found.setdefault(name, []).append(hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    return {name: sorted(digests) for name, digests in sorted(found.items())}


def _unfinished(database: Path) -> list[str]:
    """Lists executions that are said to run, and artifacts that are said to be written."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        executions = connection.execute(
            "SELECT Type.name FROM Execution JOIN Type ON Type.id = type_id WHERE last_known_state IN (?, ?)",
            (_NEW, _RUNNING),
        ).fetchall()
        # An output that has no execution that ended is one that nobody will complete.
        artifacts = connection.execute(
            "SELECT uri FROM Artifact WHERE state = ? AND id NOT IN (SELECT artifact_id FROM Event JOIN "
            "Execution ON Execution.id = execution_id WHERE last_known_state > ?)",
            (_PENDING, _ENDED),
        ).fetchall()
    return sorted(normalize(str(name)) for (name,) in [*executions, *artifacts])


def _files(folder: Path, ignored: str) -> dict[str, int]:
    """Counts the files and empty folders below a folder by their names without numbers.

    Args:
      folder: where to look.
      ignored: pattern of the beginnings of paths below the folder that do not count.
    """
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not re.match(ignored, name) and (not path.is_dir() or not any(path.iterdir())):
            found[normalize(name)] += 1
    return dict(sorted(found.items()))


def _digest(folder: Path, pattern: str = "**/*") -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.glob(pattern) if path.is_file()):
        # The index of a checkpoint has no content of its own; the order in it is that of the file.
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _dataset_state(place: Place) -> dict[str, Any]:
    """Describes the written dataset directory, and what is left besides it."""
    return {"content": _digest(place.case / "out"), "files": _files(place.case, r"output\.txt")}


def _shapes(place: Place) -> None:
    shapes.convert(place.inputs / "data", train=160, val=40, test=40)


def _photos(place: Place) -> None:
    """Writes folders of images of three classes, one of which is a JPEG of 16 bits per pixel and channel."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog", "fish"):
        folder = place.inputs / "photos" / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 256, (12, 10, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.{'bmp' if number % 5 == 4 else 'png'}")


def _table(place: Place) -> None:
    _photos(place)
    lines = [
        f"{path.relative_to(place.inputs)},{path.parent.name}"
        for path in sorted((place.inputs / "photos").glob("*/*"))
    ]
    (place.inputs / "table.csv").write_text("\n".join(["file,label", *lines]) + "\n")


def _archive(place: Place) -> None:
    """Writes an archive with the layout of CIFAR-10's, of 20 images in each batch."""
    generator = np.random.default_rng(0)
    files = {"batches.meta.txt": "\n".join(f"class {number}" for number in range(10)).encode()}
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        records = generator.integers(0, 256, (20, 3073), np.uint8)
        records[:, 0] = np.arange(20) % 10
        files[name] = records.tobytes()
    place.inputs.mkdir(parents=True, exist_ok=True)
    with (
        gzip.GzipFile(place.inputs / "cifar.tar.gz", "wb", mtime=0) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _records(place: Place) -> None:
    """Writes gzipped TFRecords of 40 images."""
    import tensorflow as tf  # noqa: PLC0415 - its runtime is started in the child only

    place.inputs.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    with tf.io.TFRecordWriter(str(place.inputs / "all.tfrecord.gz"), "GZIP") as writer:
        for number, image in enumerate(pixels):
            example = tf.train.Example()
            values = example.features.feature
            values["image"].bytes_list.value.append(tf.io.encode_png(image).numpy())
            values["label"].int64_list.value.append(number % 2)
            writer.write(example.SerializeToString())


def _importer(module: str, arguments: Callable[[Place], list[str]]) -> Callable[[Place, str], None]:
    """Returns a function that does what `python -m MODULE ARGUMENTS` does."""

    def run(place: Place, until: str) -> None:
        del until
        import importlib  # noqa: PLC0415 - only the child loads the importers

        from datasets import terminal  # noqa: PLC0415

        sys.argv = [module, *arguments(place)]
        terminal.run(importlib.import_module(module).prepare)

    return run


def _importers() -> list[Command]:
    sources: Mapping[str, tuple[str, Callable[[Place], None], Callable[[Place], list[str]]]] = {
        "image_folder": (
            "datasets.image_folder",
            _photos,
            lambda place: [str(place.inputs / "photos"), "out"],
        ),
        "manifest": (
            "datasets.manifest",
            _table,
            lambda place: [str(place.inputs / "table.csv"), "out"],
        ),
        "tfrecords": (
            "datasets.tfrecords",
            _records,
            lambda place: [str(place.inputs / "all.tfrecord.gz"), "out"],
        ),
        "cifar10": (
            "datasets.cifar10",
            _archive,
            lambda place: ["out", "--archive", str(place.inputs / "cifar.tar.gz"), "--md5", _md5(place)],
        ),
        "shapes": (
            "datasets.shapes",
            lambda place: None,
            lambda place: ["out", "--train", "40", "--val", "20", "--test", "20"],
        ),
    }
    return [
        Command(name, prepare, _importer(module, arguments), _dataset_state)
        for name, (module, prepare, arguments) in sources.items()
    ]


def _md5(place: Place) -> str:
    content = (place.inputs / "cifar.tar.gz").read_bytes()
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


COMMANDS = {
    command.name: command
    for command in (
        *_importers(),
        Command("pipeline", _shapes, _pipeline, _pipeline_state, stages=True),
    )
}


def stage(output: Path) -> str:
    """Returns the component that a run of the pipeline has named last in its output."""
    found = re.findall(r"^(\w+) +running", output.read_text(errors="replace"), flags=re.MULTILINE)
    return found[-1] if found else ""


def clear(place: Place) -> None:
    """Empties the folder of a case."""
    shutil.rmtree(place.case, ignore_errors=True)
    place.temporary.mkdir(parents=True)
