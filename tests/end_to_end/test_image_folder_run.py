"""Runs the pipeline on a user's own images, from folders of files to predictions of the pushed model."""

import colorsys
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = {"blue things": 0.6, "grün": 0.35, "rot": 0.0}  # name -> hue

# Runs in a process without this project's code, as a server does.
CLIENT = """
import pathlib, sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
names = [str(p) for p in sorted(pathlib.Path(sys.argv[2]).glob("*/*"))]
images = tf.constant([pathlib.Path(n).read_bytes() for n in names])
found = model.signatures["serve_image_bytes"](image_bytes=images)
for name, label in zip(names, found["class_name"].numpy()):
    print(pathlib.Path(name).parent.name, label.decode(), sep="\\t")
"""


def _draw(path: Path, hue: float, rng: random.Random) -> None:
    width, height = rng.randint(40, 70), rng.randint(40, 70)
    image = Image.new("RGB", (width, height), tuple(rng.randint(60, 120) for _ in range(3)))
    colour = colorsys.hsv_to_rgb(hue + rng.uniform(-0.04, 0.04), 0.9, 0.9)
    box = (5, 5, width - rng.randint(5, 15), height - rng.randint(5, 15))
    ImageDraw.Draw(image).ellipse(box, fill=tuple(int(255 * c) for c in colour))
    image.save(path)


def test_images_of_different_sizes_in_three_classes(local_runner, environment, tmp_path):
    rng = random.Random(0)
    for name, hue in CLASSES.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(60):
            extension = ("png", "jpg", "JPEG")[index % 3]
            _draw(tmp_path / "photos" / name / f"{index}.{extension}", hue, rng)
    root = tmp_path / "runs"
    refused = local_runner("--data", str(tmp_path / "photos"), "--root", str(root))
    assert refused.returncode == 1
    assert "python -m datasets.image_folder" in refused.output

    command = [sys.executable, "-m", "datasets.image_folder", tmp_path / "photos", tmp_path / "dataset"]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
    arguments = [
        *("--data", str(tmp_path / "dataset"), "--root", str(root), "--no-tune"),
        *("--set", "name=colours", "--set", "model.cnn.filters=[16, 32, 64]"),
        *("--set", "trainer.epochs=8", "--set", "trainer.batch_size=16"),
    ]
    stopped = local_runner(*arguments)
    assert stopped.returncode == 1
    assert stopped.summary["error"]["component"] == "DataGate"
    assert "--set model.image_size=SIDE" in stopped.summary["error"]["message"]

    result = local_runner(*arguments, "--set", "model.image_size=24")
    assert result.returncode == 0, result.output
    assert result.states["ImportExampleGen"] == "cached"
    assert result.summary["data"] == "dataset"
    pushed = Path(result.summary["pushed"])
    assert pushed.parent == root / "serving" / "colours"

    process = subprocess.run(
        [sys.executable, "-I", "-c", CLIENT, str(pushed), str(tmp_path / "photos")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [line.split("\t") for line in process.stdout.splitlines()]
    assert len(answers) == 180
    assert {predicted for _, predicted in answers} <= set(CLASSES)
    assert sum(actual == predicted for actual, predicted in answers) / len(answers) > 0.8
