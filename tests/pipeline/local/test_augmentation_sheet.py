import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import directory, tfrecord
from datasets.directory import DatasetError
from pipeline.local import augmentation_sheet, command
from settings import loading
from settings.base import ConfigError

REPOSITORY = Path(__file__).resolve().parents[3]
SHORT = ["model.cnn.filters=[16, 32]", "trainer.epochs=8"]


@pytest.fixture(scope="module")
def many_sizes(tmp_path_factory):
    """A dataset directory of six upright and lying images of two classes, five of them in one class."""
    path = tmp_path_factory.mktemp("sizes") / "dataset"
    folder = tmp_path_factory.mktemp("images")
    with directory.create(path, ["dark", "light"], dict.fromkeys(directory.SPLITS, 0), seed=0) as writer:
        for split in directory.SPLITS:
            for number in range(6):
                size = (40, 10) if number % 2 else (10, 40)
                file = folder / f"{split}{number}.png"
                Image.new("RGB", size, (200,) * 3 if number == 3 else (20 * number,) * 3).save(file)
                writer.add(split, image=file.read_bytes(), label=int(number == 3), id=f"{number}".encode())
    return directory.read(path)


def test_the_command_writes_a_picture_and_runs_no_pipeline(tiny_dataset, tmp_path):
    arguments = ["local_runner.py", "--data", str(tiny_dataset.path), "--root", str(tmp_path / "runs")]
    arguments += ["--show-augmentation", str(tmp_path / "sheet.png"), "--set", "trainer.epochs=8"]
    code = (
        f"import sys; sys.argv = {arguments!r}; import local_runner\n"
        "local_runner.app(standalone_mode=False)\n"
        "assert 'tensorflow' in sys.modules and 'tfx' not in sys.modules"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == f"wrote {tmp_path / 'sheet.png'}\n"
    with Image.open(tmp_path / "sheet.png") as sheet:
        # Twelve rows and five columns of about square cells.
        assert sheet.format == "PNG"
        assert 1.8 < sheet.height / sheet.width < 2.6
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"logs"}


def test_the_images_are_of_as_many_classes_as_possible(tiny_dataset, many_sizes):
    chosen = augmentation_sheet._choose(tiny_dataset, 12)
    labels = [example.label for example in chosen]
    assert labels == sorted(labels)
    assert len(labels) == 12
    assert len(set(labels)) >= 6
    assert len({example.id for example in chosen}) == 12
    # Of a rare class there are too few, so that other classes have more.
    assert [example.label for example in augmentation_sheet._choose(many_sizes, 6)] == [0] * 5 + [1]


def test_images_are_prepared_with_the_settings_of_the_run(many_sizes, tmp_path, monkeypatch):
    drawn = []
    draw = augmentation_sheet.draw
    monkeypatch.setattr(augmentation_sheet, "draw", lambda *args: drawn.append(args) or draw(*args))
    still = ["augmentation.rotation_degrees=0", "augmentation.shift_fraction=0", "augmentation.flip=false"]
    config = loading.load(
        overrides=[*SHORT, *still, "model.image_size=20", "model.resize=pad", "model.background=[255, 0, 0]"]
    )
    augmentation_sheet.write(config, many_sizes, tmp_path / "sheet.png")
    ((originals, epochs, titles, size),) = drawn
    assert {original.shape for original in originals} == {(10, 40, 3), (40, 10, 3)}
    assert [pixels.shape for pixels in epochs] == [(6, 20, 20, 3)] * 4
    # The margins have the colour of the settings; the middle is the image's.
    np.testing.assert_allclose(epochs[0][:, 0, 0], [[1, 0, 0]] * 6, atol=1e-6)
    np.testing.assert_allclose(
        epochs[0][:, 10, 10, 0] * 255, [each[5, 5, 0] for each in originals], atol=1e-3
    )
    assert titles == ["dark"] * 5 + ["light"]
    assert size == (20, 20)


def test_smaller_crops_are_drawn_smaller():
    epochs = [np.ones((1, 8, 8, 3), np.float32), np.ones((1, 16, 16, 3), np.float32)]
    figure = augmentation_sheet.draw([np.ones((16, 16, 3), np.uint8)], epochs, ["cat"], (16, 16))
    original, cropped, whole = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["original", "epoch 1\n8x8", "epoch 2\n16x16"]
    assert original.get_ylabel() == "cat"
    assert np.ptp(cropped.get_xlim()) == np.ptp(whole.get_xlim()) == 16
    assert sum(cropped.get_xlim()) / 2 == 3.5  # the middle of 8 pixels


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"no example", "record 0: expected a tf.train.Example with one image and one label"),
        (tfrecord.encode_example({"image": b"x"}), "record 0: expected a tf.train.Example with one"),
        (
            tfrecord.encode_example({"image": b"x", "label": 0, "id": b"a/b"}),
            "image 'a/b' of the train split",
        ),
    ],
    ids=["damaged", "no label", "no image"],
)
def test_a_bad_record_is_named_and_nothing_is_written(many_sizes, tmp_path, record, message):
    (tmp_path / "train").mkdir()
    with (tmp_path / "train" / "a.tfrecord").open("wb") as file:
        tfrecord.write(file, record)
    dataset = directory.Dataset(tmp_path, many_sizes.class_names, (16, 16), ())
    with pytest.raises(DatasetError, match=message):
        augmentation_sheet.write(loading.load(overrides=SHORT), dataset, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("file", "rerun_from", "message"),
    [
        ("missing/sheet.png", None, "its folder does not exist"),
        ("sheet.jpg", None, "expected a name that ends with .png"),
        ("sheet.png", "Trainer", "leave --from and --summary out"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, file, rerun_from, message):
    with pytest.raises(ConfigError, match=message):
        command.check(loading.load(), rerun_from, None, tmp_path / file)
