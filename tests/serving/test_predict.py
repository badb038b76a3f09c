"""Tests of `python -m serving.predict` with models that answer `dark` or `bright`."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from itertools import count, islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from serving import routing
from serving.errors import RequestError
from serving.predict import __main__ as command
from serving.predict import answers, page
from serving.predict.answers import Answerer
from serving.predict.images import Image, Unread
from serving.saved_model import Model
from tests import browser
from tests.serving import samples

DARK, BRIGHT = samples.picture(10), samples.picture(240)


@pytest.fixture(scope="module")
def root(saved, tmp_path_factory):
    """A folder with two versions of model m, of which the newest one calls bright images bright."""
    folder = tmp_path_factory.mktemp("serving")
    samples.push(saved[3], folder / "m", 9)
    samples.push(saved[1], folder / "m", 10)
    return folder


@pytest.fixture(scope="module")
def answerer(root):
    return Answerer(Model(root / "m/10"), 5)


@pytest.fixture(autouse=True)
def one_load(answerer, monkeypatch):
    """The model is loaded once for all tests that do not say otherwise."""
    monkeypatch.setattr(command, "_load", lambda version, top: Answerer(answerer._model, top))


def run(*arguments, stdin=b""):
    return CliRunner().invoke(command.app, [str(argument) for argument in arguments], input=stdin)


def write_records(path, contents, compression=""):
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type=compression)) as writer:
        for content in contents:
            writer.write(content)


def rows(path):
    return pq.read_table(path).to_pylist()


@pytest.fixture
def folder(tmp_path):
    """A folder with images in files, in folders and in TFRecords, and with other files."""
    inside = tmp_path / "photos"
    (inside / "deep/er").mkdir(parents=True)
    (inside / ".hidden").mkdir()
    (inside / "b.PNG").write_bytes(BRIGHT)
    (inside / "a.jpg").write_bytes(samples.picture(10, kind="JPEG"))
    (inside / "deep/er/c.bmp").write_bytes(samples.picture(240, kind="BMP"))
    (inside / "notes.txt").touch()
    (inside / ".hidden/d.png").write_bytes(DARK)
    (inside / ".e.png").write_bytes(DARK)
    (inside / "deep/loop").symlink_to(inside)
    named = tf.train.Example.FromString(samples.example(DARK))
    named.features.feature["id"].bytes_list.value.append(b"one")
    write_records(inside / "f.tfrecord-00000-of-00001", [samples.example(BRIGHT), named.SerializeToString()])
    write_records(inside / "g_tfrecord.gz", [samples.example(DARK)], "GZIP")
    return inside


@pytest.mark.parametrize("named", ["folder", "folder/", "**", "files"])
def test_files_folders_patterns_and_tfrecords_are_answered(root, folder, tmp_path, named):
    expected = [
        (f"{folder}/a.jpg", None, None, "dark"),
        (f"{folder}/b.PNG", None, None, "bright"),
        (f"{folder}/f.tfrecord-00000-of-00001", 0, None, "bright"),
        (f"{folder}/f.tfrecord-00000-of-00001", 1, "one", "dark"),
        (f"{folder}/g_tfrecord.gz", 0, None, "dark"),
        (f"{folder}/deep/er/c.bmp", None, None, "bright"),
    ]
    sources = {"folder": [folder], "folder/": [f"{folder}/"], "**": [f"{folder}/**"]}
    sources["files"] = list(dict.fromkeys(path for path, *_ in expected))
    if named == "**":
        (folder / "deep/loop").unlink()  # Python follows it again and again
        # A pattern names files whatever their suffix.
        expected = sorted([*expected, (f"{folder}/notes.txt", None, None, None)], key=lambda row: row[0])
    result = run(*sources[named], "--model", root, "--out", tmp_path / "out.parquet")
    assert result.exit_code == (3 if named == "**" else 0), result.output
    found = [
        (row["path"], row["record"], row["id"], row["class_name"]) for row in rows(tmp_path / "out.parquet")
    ]
    assert found == expected
    assert ("neither images nor TFRecords: .txt: 1" in result.stderr) == named.startswith("folder")


def test_standard_input_is_one_image(root):
    result = run("-", "--model", root, stdin=BRIGHT)
    assert result.exit_code == 0
    assert "bright 94.1 %   dark 5.9 %" in result.stdout
    assert f"1 image answered by {root}/m/10" in result.stderr
    assert run("-", "--model", root, "--top", 1, stdin=BRIGHT).stdout.count("dark") == 0


def test_the_three_kinds_of_files_say_the_same(root, folder, tmp_path):
    (folder / "broken.gif").write_bytes(b"GIF89a")
    outs = [tmp_path / f"out{suffix}" for suffix in (".parquet", ".csv", ".jsonl")]
    for out in outs:
        out.write_text("old")
        assert run(folder, "--model", root / "m", "--out", out).exit_code == 3
    expected = rows(outs[0])
    assert [json.loads(line) for line in outs[2].read_text().splitlines()] == expected
    with outs[1].open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [list(row) for row in read] == [list(row) for row in expected]
    for row, from_csv in zip(expected, read, strict=True):
        for name, value in row.items():
            is_json = isinstance(value, (list, bool))
            parsed = (
                json.loads(from_csv[name])
                if is_json
                else type("" if value is None else value)(from_csv[name])
            )
            assert parsed == ("" if value is None else value)
    assert json.loads(pq.read_schema(outs[0]).metadata[b"class_names"]) == ["dark", "bright"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.csv",
        "out.jsonl",
        "out.parquet",
        "photos",
    ]


def test_answers_are_those_of_the_signature(answerer, saved):
    pictures = [samples.picture(value) for value in range(0, 256, 2)]
    batch = answerer.answer([Image(str(number), each) for number, each in enumerate(pictures)])
    signature = tf.saved_model.load(str(saved[1])).signatures["serve_image_bytes"]
    expected = signature(image_bytes=tf.constant(pictures))["probabilities"].numpy()
    columns = batch.to_pydict()
    np.testing.assert_array_equal(np.float32(columns["probabilities"]), expected)
    assert columns["class_id"] == expected.argmax(1).tolist()
    assert columns["confidence"] == expected.max(1).tolist()
    assert columns["top_k_probabilities"] == (-np.sort(-expected)).tolist()
    assert columns["top_k_names"] == [
        ["dark", "bright"] if dark >= bright else ["bright", "dark"] for dark, bright in expected
    ]
    assert Answerer(answerer._model, 1).answer([Image("a", DARK)]).to_pydict()["top_k_names"] == [["dark"]]


def test_a_model_that_is_unsure_names_no_class(answerer, root, monkeypatch, tmp_path):
    ask = answerer._model.run

    def run_and_abstain(signature, inputs):
        outputs = ask(signature, inputs)
        probabilities = outputs["probabilities"]
        extra = {"abstained": probabilities.max(axis=1) < 0.6, "prediction_set": probabilities >= 0.4}
        return {**outputs, **extra}

    plain = answerer.answer([Image("a", BRIGHT)]).to_pydict()
    assert (plain["abstained"], plain["prediction_set"]) == ([False], [None])
    monkeypatch.setattr(answerer._model, "run", run_and_abstain)
    grey = samples.picture(140)
    images = [Image("a", BRIGHT), Image("b", grey), Image("c", b"broken")]
    columns = answerer.answer(images).to_pydict()
    assert columns["abstained"] == [False, True, None]
    assert columns["class_name"] == ["bright", "", None]
    assert columns["class_id"] == [1, 1, None]
    assert columns["prediction_set"] == [["bright"], ["dark", "bright"], None]
    for name, content in (("bright", BRIGHT), ("grey", grey)):
        (tmp_path / f"{name}.png").write_bytes(content)
    result = run(tmp_path, "--model", root, "--html", tmp_path / "page.html")
    assert "unsure   bright 54.9 %" in result.stdout
    assert "2 images answered by" in result.stderr
    assert "1 image has no class, because the model is unsure" in result.stderr
    assert (tmp_path / "page.html").read_text().count("<strong>Unsure</strong>") == 1


def test_broken_images_are_rows_with_their_reasons(root, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(70):
        (folder / f"{number:02d}.png").write_bytes(BRIGHT)
    header = bytearray(DARK)
    header[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    expected = {
        "00.png": (b"", "the file is empty"),
        "13.png": (b"text", "Unknown image file format"),
        "14.png": (samples.picture(9, 64)[:-60], "PNG"),
        "63.png": (bytes(header), "expected at most 100,000,000 pixels"),
        "69.tiff": (b"II*\x00\x08\x00\x00\x00", "Unknown image file format"),
    }
    for name, (content, _) in expected.items():
        (folder / name).write_bytes(content)
    (folder / "71.png").symlink_to("nothing")
    expected["71.png"] = (b"", "cannot be read: No such file or directory")
    write_records(
        folder / "tfrecord", [b"\xff", samples.example(b""), samples.example(b"text"), samples.example(DARK)]
    )
    result = run(folder, "--model", root, "--out", tmp_path / "out.parquet")
    assert result.exit_code == 3
    assert "9 of 76 images have no answer" in result.stderr
    found = {Path(row["path"]).name: row for row in rows(tmp_path / "out.parquet") if row["record"] is None}
    for name, row in found.items():
        if name in expected:
            assert expected[name][1] in row["error"]
            assert {row[column] for column in ("class_name", "class_id", "probabilities")} == {None}
        else:
            assert (row["class_name"], row["error"]) == ("bright", None)
    records = [row for row in rows(tmp_path / "out.parquet") if row["record"] is not None]
    assert [row["class_name"] for row in records] == [None, None, None, "dark"]
    assert records[0]["error"] == "the record is no tf.train.Example"
    assert "feature image; features of the record: image" in records[1]["error"]
    # Those beyond the rows that the table shows are in it as well.
    assert "no answer: expected at most 100,000,000 pixels" in result.stdout
    assert "/41.png" not in result.stdout


def test_the_records_before_a_damaged_one_are_answered(root, tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [samples.example(BRIGHT)] * 5)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    result = run(path, "--model", root, "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 3
    read = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["class_name"] for row in read] == ["bright"] * 4 + [None]
    assert read[4]["record"] == 4
    assert read[4]["error"].startswith("cannot be read, nor can the rest of the file: corrupted record at")


def test_a_bad_image_costs_few_requests(answerer, monkeypatch):
    sizes = []
    real = Model.run

    def counted(self, signature, inputs):
        sizes.append(len(inputs["image_bytes"]))
        return real(self, signature, inputs)

    monkeypatch.setattr(Model, "run", counted)
    batch = answerer.answer([Image("", b"text" if i == 20 else DARK) for i in range(64)])
    assert batch.column("error").null_count == 63
    assert sorted(sizes, reverse=True) == [64, 32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_the_position_in_a_request_of_one_image_is_left_out(answerer, monkeypatch):
    def refuse(*_):
        raise RequestError(400, "image 1 of 1 cannot be decoded")

    monkeypatch.setattr(Model, "run", refuse)
    assert answerer.answer([Image("a", b"a")]).column("error").to_pylist() == ["cannot be decoded"]


def test_few_images_are_in_memory(answerer):
    taken = []

    def endless():
        for number in count():
            taken.append(number)
            yield Unread("a", 1, number, samples.example(DARK))

    for done, images, batch in islice(answers.answer_all(answerer, endless()), 20):
        assert (done, len(images), batch.num_rows) == (64, 64, 64)
    assert len(taken) <= (20 + 5) * 64
    large = [Unread("a", 2**24, number, samples.example(DARK)) for number in range(5)]
    assert [len(images) for _, images, _ in answers.answer_all(answerer, large)] == [2, 2, 1]


def test_images_with_many_pixels_are_decoded_apart(answerer, monkeypatch):
    monkeypatch.setattr(answers, "_BATCH_PIXELS", 100)
    images = [Image(str(i), samples.picture(10, side)) for i, side in enumerate((6, 6, 6, 20, 6))]
    assert list(answers._split(images, [""] * 5)) == [[0, 1], [2], [3], [4]]
    assert answerer.answer(images).column("class_name").to_pylist() == ["dark"] * 5


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["a.png", "--out", "a.txt"], 2, "expected .parquet or .csv or .jsonl at the end, found a.txt"),
        (["a.png", "--html", "a.csv"], 2, "expected .html or .htm at the end"),
        (["a.png", "--top", "0"], 2, "Invalid value for '--top'"),
        ([], 2, "Missing argument"),
        (["a.png", "--out", "no/a.csv"], 1, "expected a file in an existing folder, found no folder no"),
        (["a.png", "--out", "folder.csv"], 1, "found a folder with this name"),
        (["b.png"], 1, "b.png: expected an image, a folder, a TFRecord file"),
        (["*.jpg"], 1, "*.jpg: expected a file that the pattern matches"),
        (["folder.csv"], 1, "folder.csv: expected images or TFRecords"),
        (["a.png"], 1, "--model runs/serving: expected a pushed model"),
        (
            ["a.png", "--model", "two"],
            1,
            "expected one model, found several; give one of two/m, two/n to --model",
        ),
    ],
)
def test_wrong_command_lines(tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "a.png").write_bytes(DARK)
    (tmp_path / "folder.csv").mkdir()
    for version in ("two/m/1", "two/n/1"):
        (tmp_path / version / "variables").mkdir(parents=True)
        for name in (
            "saved_model.pb",
            "variables/variables.index",
            "variables/variables.data-00000-of-00001",
        ):
            (tmp_path / version / name).touch()
    result = run(*arguments)
    assert (result.exit_code, message in result.stderr) == (status, True), result.stderr


def test_the_version_that_answers_is_taken(root, tmp_path):
    model = shutil.copytree(root / "m", tmp_path / "m")
    (model / "11").mkdir()
    (model / "11/saved_model.pb").write_bytes(b"the first bytes of a version that is being copied")
    out = tmp_path / "out.jsonl"

    def answered_by():
        result = run("-", "--model", tmp_path, "--out", out, stdin=DARK)
        return re.findall(r"answered by \S+/m/(\d+)", result.stderr) or result.stderr

    assert answered_by() == ["10"]
    routing.write(model, routing.Routes(stable=9))
    assert answered_by() == ["9"]
    routing.write(model, routing.Routes(stable=routing.NO_VERSION))
    assert "no version answers" in answered_by() and "name one of 9, 10" in answered_by()
    (model / routing.FILE).write_text("{")
    assert "expected routes as JSON" in answered_by()


def test_other_models_are_refused(root, tmp_path, monkeypatch):
    monkeypatch.undo()
    other = shutil.copytree(root / "m/10", tmp_path / "other/1")
    (other / "assets.extra/labels.txt").unlink()
    result = run("-", "--model", other, stdin=DARK)
    assert result.exit_code == 1
    assert "expected a model that this pipeline pushed" in result.stderr
    shutil.rmtree(other / "variables")
    assert run("-", "--model", tmp_path / "other", stdin=DARK).exit_code == 1


def test_the_page_shows_the_images_and_escapes_names(root, tmp_path, chromium):
    folder = tmp_path / "photos"
    folder.mkdir()
    hostile = "<img src=x onerror=alert(1)>"
    (folder / f"{hostile}.png").write_bytes(samples.picture(240, 300))
    (folder / "zz.png").write_bytes(b"text")
    write_records(folder / "tfrecord", [samples.example(DARK)] * 220)
    result = run(folder, "--model", root, "--html", tmp_path / "a.html")
    assert result.exit_code == 3, result.output
    for size in browser.SIZES:
        with browser.visit(chromium, tmp_path / "a.html", size) as opened:
            opened.evaluate("document.querySelectorAll('img').forEach(each => { each.loading = 'eager' })")
            opened.wait_for_function("[...document.images].every(image => image.complete)")
            browser.check_layout(opened)
            items = opened.locator("li")
            assert items.count() == 201
            assert hostile in items.first.inner_text()
            assert "bright\n94.1 %" in items.first.inner_text()
            assert items.first.locator("img").evaluate("image => image.naturalWidth") == 192
            assert "record 198" in items.nth(199).inner_text()
            assert "No answer: Unknown image file format" in items.last.inner_text()
            assert (
                "222 images, 1 without an answer. The page shows 201" in opened.locator("header").inner_text()
            )
    assert page.percent(0.99996) == "> 99.9 %"


def test_a_stopped_run_leaves_no_file(root, tmp_path):
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / "page.html").write_text("old")
    (tmp_path / "a.png").write_bytes(DARK)
    os.mkfifo(tmp_path / "waits.png")  # reading it takes for ever
    sources = [*[tmp_path / "a.png"] * 500, tmp_path / "waits.png"]
    flags = ["--model", root, "--out", outputs / "out.csv", "--html", outputs / "page.html"]
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.predict", *sources, *flags], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (parts := list(outputs.glob(".out.csv.*"))) or not parts[0].stat().st_size:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    # A process that is killed now leaves hidden files only.
    assert {path.name for path in outputs.iterdir() if not path.name.startswith(".")} == {"page.html"}
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1].splitlines()
    # While it is imported, TensorFlow 2.21 names the libraries that it uses, at any level of messages.
    of_tensorflow = ("WARNING: All log messages before", "I0000 ")
    assert [line for line in said if not line.startswith(of_tensorflow)] == []
    assert process.returncode == 128 + signal.SIGTERM
    assert [path.name for path in outputs.iterdir()] == ["page.html"]
    assert (outputs / "page.html").read_text() == "old"
