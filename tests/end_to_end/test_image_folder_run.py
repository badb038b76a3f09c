"""Runs the pipeline on a user's own images, from folders of files to predictions of the pushed model.

The order of the tests matters: the second one corrects labels in the report of the first one's run.
"""

import colorsys
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2
from PIL import Image, ImageDraw

from components import metadata
from datasets import digest
from settings.places import METADATA_FILE
from tests.browser import visit

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = {"blue things": 0.6, "grün": 0.35, "rot": 0.0}  # name -> hue


def _draw(path: Path, hue: float, rng: random.Random) -> None:
    width, height = rng.randint(40, 70), rng.randint(40, 70)
    image = Image.new("RGB", (width, height), tuple(rng.randint(60, 120) for _ in range(3)))
    colour = colorsys.hsv_to_rgb(hue + rng.uniform(-0.04, 0.04), 0.9, 0.9)
    box = (5, 5, width - rng.randint(5, 15), height - rng.randint(5, 15))
    ImageDraw.Draw(image).ellipse(box, fill=tuple(int(255 * c) for c in colour))
    image.save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the photos, the datasets and the runs."""
    return tmp_path_factory.mktemp("own")


def _train(local_runner, folder, dataset, *more):
    return local_runner(
        *("--data", str(folder / dataset), "--root", str(folder / "runs"), "--no-tune"),
        *("--set", "name=colours", "--set", "model.cnn.filters=[16, 32, 64]"),
        *("--set", "trainer.epochs=8", "--set", "trainer.batch_size=16"),
        *("--set", "evaluation.corruptions=0", *more),
    )


def test_images_of_different_sizes_in_three_classes(local_runner, environment, folder):
    rng = random.Random(0)
    for name, hue in CLASSES.items():
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(60):
            extension = ("png", "jpg", "JPEG")[index % 3]
            _draw(folder / "photos" / name / f"{index}.{extension}", hue, rng)
    root = folder / "runs"
    refused = local_runner("--data", str(folder / "photos"), "--root", str(root))
    assert refused.returncode == 1
    assert "python -m datasets.image_folder" in refused.output

    command = [sys.executable, "-m", "datasets.image_folder", folder / "photos", folder / "dataset"]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
    stopped = _train(local_runner, folder, "dataset")
    assert stopped.returncode == 1
    assert stopped.summary["error"]["component"] == "DataGate"
    assert "--set model.image_size=SIDE" in stopped.summary["error"]["message"]

    formats = "export.formats=[tflite]"
    result = _train(local_runner, folder, "dataset", "--set", "model.image_size=24", "--set", formats)
    assert result.returncode == 0, result.output
    assert result.states["ImportExampleGen"] == "cached"
    assert result.summary["data"] == "dataset"
    pushed = Path(result.summary["pushed"])
    assert pushed.parent == root / "serving" / "colours"
    assert {file.name for file in (pushed / "formats").iterdir()} == {
        *("model.tflite", "labels.txt", "formats.json")
    }
    report = Path(result.summary["report"]).parent
    described = json.loads((report / "metrics.json").read_text())["formats"]
    assert described == json.loads((pushed / "formats/formats.json").read_text())
    assert [(model["name"], model["agreement"]) for model in described["models"]] == [
        *(("saved_model", 1.0), ("tflite", 1.0))
    ]

    process = subprocess.run(
        # A process without this project's code, as a server is.
        [sys.executable, "-I", REPOSITORY / "scripts/classify_files.py", pushed, folder / "photos"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    right = re.match(r"right: (\d+) of 180 files", process.stdout)
    assert right is not None
    assert int(right[1]) > 0.8 * 180
    called = re.findall(r"^  \d+ of (.+) called (.+)$", process.stdout, re.MULTILINE)
    assert {name for pair in called for name in pair} <= set(CLASSES)


def test_a_label_that_is_corrected_on_the_page_trains_another_model(
    chromium, local_runner, environment, folder
):
    (page,) = (folder / "runs").glob("pipelines/colours/ModelReport/report/*/index.html")
    with visit(chromium, page, "desktop") as shown:
        shown.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        # So simple drawings are nearly the same in pairs, which the report shows.
        shown.locator(".review[data-split='val']").first.get_by_label("leave out").check()
        wrong = shown.locator(".review[data-split='train'][data-label='rot']").first
        wrong.get_by_label("wrong").check()
        wrong.get_by_label("The right class").select_option("grün")
        with shown.expect_download() as download:
            shown.get_by_role("button", name="Download corrections.json").click()
        download.value.save_as(folder / "corrections.json")

    command = [sys.executable, "-m", "datasets.corrections"]
    arguments = [folder / "dataset", folder / "corrections.json", folder / "corrected"]
    corrected = subprocess.run(
        [*command, *arguments], cwd=REPOSITORY, env=environment, check=True, capture_output=True, text=True
    )
    assert "1 relabelled, 1 removed" in corrected.stderr
    result = _train(local_runner, folder, "corrected", "--set", "model.image_size=24")
    assert result.returncode == 0, result.output
    assert {"ImportExampleGen", "Trainer"} <= result.rerun

    store = metadata.open_store(folder / "runs" / METADATA_FILE)
    trained_on = [_digest_of_examples(store, model) for model in store.get_artifacts_by_type("Model")]
    assert trained_on == [digest.of_directory(folder / name) for name in ("dataset", "corrected")]
    assert trained_on[0] != trained_on[1]


def _digest_of_examples(store, model):
    """Returns the digest of the dataset directory that a model was trained on, from the lineage."""
    events = store.get_events_by_artifact_ids([model.id])
    (trainer,) = (event.execution_id for event in events if event.type == metadata_store_pb2.Event.OUTPUT)
    inputs = [event.artifact_id for event in store.get_events_by_execution_ids([trainer])]
    (examples,) = (a for a in store.get_artifacts_by_id(inputs) if a.type == "Examples")
    return examples.custom_properties["input_fingerprint"].string_value
