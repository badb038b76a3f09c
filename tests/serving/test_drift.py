"""Drift tests on made-up logs, whose distributions are known."""

import datetime
import io
import json

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from models import statistics
from models.corruptions import CORRUPTIONS, corrupt
from serving.drift import __main__ as command
from serving.drift import samples, two_sample

DAY = datetime.datetime(2026, 3, 4, tzinfo=datetime.timezone.utc)
NAMES = ("cat", "dog", "<frog>")


def png(value):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(seed, size, *, brightness=0.0, features=0.0, shares=(0.5, 0.3, 0.2), d=4):
    """Draws images whose brightness and features are shifted by so many standard deviations."""
    rng = np.random.default_rng(seed)
    class_id = rng.choice(len(NAMES), size, p=shares).astype(np.int32)
    values = rng.normal(features, 1, (size, d)).astype(np.float32)
    return {
        "brightness": pa.array(rng.normal(0.5 + 0.1 * brightness, 0.1, size).astype(np.float32)),
        "contrast": pa.array(rng.normal(0.2, 0.05, size).astype(np.float32)),
        "sharpness": pa.array(rng.gamma(2, 0.1, size).astype(np.float32)),
        "confidence": pa.array(rng.beta(5, 1, size).astype(np.float32)),
        "class_id": pa.array(class_id),
        "class_name": pa.array([NAMES[index] for index in class_id]),
        "features": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), d),
    }


def write_reference(root, version=7, size=400, seed=0, **changes):
    path = root / f"m/{version}/assets.extra/reference.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(rows(seed, size, **changes)), path)
    return root


def write_log(root, size, *, start=DAY, version=7, seed=1, images=False, requests=None, **changes):
    """Writes a log with an image per minute; `requests` is the number of images of each request."""
    each = requests or 1
    times = [start + datetime.timedelta(minutes=index) for index in range(size)]
    columns = {
        "time": pa.array(times, pa.timestamp("us", "UTC")),
        "version": pa.array([version] * size, pa.int64()),
        "request": pa.array([f"{version}-{seed}-{index // each}" for index in range(size)]),
        **rows(seed, size, **changes),
    }
    if images:
        columns["image"] = pa.array([png(index % 256) for index in range(size)])
    table = pa.table(columns)
    # As the server writes it: several files a day, and a hidden one that is not finished.
    for number, part in enumerate((table[: size // 3], table[size // 3 :])):
        for day in sorted({time.date() for time in times}):
            folder = root / f"m/date={day}"
            folder.mkdir(parents=True, exist_ok=True)
            of_day = [time.date() == day for time in part["time"].to_pylist()]
            pq.write_table(part.filter(pa.array(of_day)), folder / f"{version}-{seed}-{number}.parquet")
            (folder / ".part.parquet").write_bytes(b"PAR1")
    return root


def run(code, *arguments):
    result = CliRunner().invoke(command.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return " ".join(result.output.split())


@pytest.fixture
def reference(tmp_path):
    return write_reference(tmp_path / "serving")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "requests"


def compare(tmp_path, log, reference, code, *arguments):
    """Returns the result as JSON."""
    file = tmp_path / "result.json"
    run(code, log, "--reference", reference, "--json", file, *arguments)
    return json.loads(file.read_text())


def test_no_drift(tmp_path, log, reference):
    write_log(log, 300)
    assert "No drift was found" in run(0, log, "--reference", reference)
    result = compare(tmp_path, log, reference, 0)
    assert not result["drift"]
    assert (result["model"], result["version"], result["compared_images"]) == ("m", 7, 300)
    assert (result["since"], result["until"]) == ("2026-03-04T00:00:00+00:00", "2026-03-04T04:59:00+00:00")
    assert {test["name"] for test in result["tests"]} == {*samples.NUMBERS, "classes", "features"}


@pytest.mark.parametrize(
    ("changes", "drifted", "words"),
    [
        ({"brightness": -0.8}, "brightness", "darker: mean 0.4"),
        ({"shares": (0.5, 0.5, 0.0)}, "classes", "<frog> 0.0% instead of"),
        ({"features": 0.5}, "features", "times that of images without drift"),
    ],
)
def test_only_what_has_changed_is_reported(tmp_path, log, reference, changes, drifted, words):
    write_log(log, 300, **changes)
    result = compare(tmp_path, log, reference, command.DRIFT)
    assert [test["name"] for test in result["tests"] if test["drifted"]] == [drifted]
    (test,) = [test for test in result["tests"] if test["drifted"]]
    assert test["p_value"] < test["p_adjusted"] <= 0.05
    assert words in test["sentence"]
    assert f"Drift: {drifted}." in run(command.DRIFT, log, "--reference", reference)


class InMemory(samples.Sample):
    """A sample whose features are in its table."""

    def features(self):
        return np.stack(self.table["features"].combine_chunks().to_numpy(zero_copy_only=False))

    def take(self, rows):
        return InMemory((), self.table.take(pa.array(rows)))


def test_the_rate_of_false_alarms():
    """At a rate of 40 %, 60 clean windows give 24 false alarms or somewhat fewer."""
    found = 0
    for seed in range(60):
        window, tested = (
            InMemory((), pa.table(rows(seed + offset, size))) for offset, size in ((1000, 100), (5000, 300))
        )
        found += two_sample.compare(window, tested, 0.4).drifted
    assert 9 <= found <= 33  # about 2.5 standard deviations on each side of 18 and 24


def test_holm():
    # By hand: 3 x 0.01, then 2 x 0.02, then 1 x 0.03, which must not be smaller than the one before.
    assert two_sample.holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert two_sample.holm([0.9, 0.4]) == pytest.approx([0.9, 0.8])


def test_the_window(tmp_path, log, reference):
    """Without a window, it is the last day; the day before is bright."""
    write_log(log, 150, start=DAY - datetime.timedelta(days=1), brightness=5, seed=1)
    write_log(log, 200, seed=2)
    assert compare(tmp_path, log, reference, 0)["logged_images"] == 200
    assert compare(tmp_path, log, reference, 3, "--since", "2026-03-01")["logged_images"] == 350
    yesterday = compare(tmp_path, log, reference, 3, "--until", "2026-03-04")
    assert yesterday["logged_images"] == 150
    last = compare(tmp_path, log, reference, 0, "--last", "120")
    assert (last["logged_images"], last["since"]) == (120, "2026-03-04T01:20:00+00:00")
    part = compare(tmp_path, log, reference, 0, "--since", "2026-03-04T01:00", "--until", "2026-03-04T03:00")
    assert part["logged_images"] == 120


def test_versions_are_not_mixed(tmp_path, log, reference):
    write_log(log, 150, version=7, seed=1)
    write_log(log, 150, version=8, seed=2, start=DAY + datetime.timedelta(hours=12), brightness=2)
    assert "of version 8 of model m" in run(1, log, "--reference", reference)
    write_reference(reference, 8)
    assert compare(tmp_path, log, reference, 3)["version"] == 8
    seven = compare(tmp_path, log, reference, 0, "--version", "7")
    assert (seven["version"], seven["logged_images"], seven["images_of_other_versions"]) == (7, 150, 150)
    for place in (reference / "m/8", reference / "m/8" / samples.REFERENCE):
        assert "found that of version 8" in run(1, log, "--version", 7, "--reference", place)
    assert "found those of 7, 8" in run(1, log, "--version", 9, "--reference", reference)


def test_one_image_of_each_request_is_compared(tmp_path, log, reference):
    write_log(log, 600, requests=5)
    assert compare(tmp_path, log, reference, 0)["compared_images"] == 120
    assert compare(tmp_path, log, reference, 0, "--every-image")["compared_images"] == 600


def test_too_few_images(log, reference, tmp_path):
    assert "expected the log of one model, found none" in run(1, log, "--reference", reference)
    write_log(log, 60)
    output = run(command.TOO_FEW, log, "--reference", reference)
    assert "expected at least 100 images in the window, found 60" in output
    write_log(log, 150, seed=2, requests=50)
    output = run(command.TOO_FEW, log, "--reference", reference)
    assert "found 63 requests with 210 images" in output
    assert "no images were logged since" in run(command.TOO_FEW, log, "--since", "2027-01-01")
    few = write_reference(tmp_path / "few", size=99)
    output = run(command.TOO_FEW, log, "--every-image", "--reference", few)
    assert "in the reference, found 99" in output


def test_places_of_the_log_and_the_reference(log, reference, tmp_path):
    write_log(log, 150)
    version = reference / "m/7"
    for place in (reference, reference / "m", version, version / samples.REFERENCE, tmp_path):
        assert "No drift" in run(0, log / "m", "--reference", place)
    earlier = write_log(tmp_path / "earlier", 150, start=DAY - datetime.timedelta(days=30), seed=9)
    assert "No drift" in run(0, log, "--reference", earlier)
    (log / "m").rename(log / "a")
    write_log(log, 150)
    assert "found" in run(1, log) and "Name one of them" in run(1, log)
    run(2, log, "--alpha", "0")
    other = write_reference(tmp_path / "other", d=5)
    assert "features of one network, found 4" in run(1, log / "m", "--reference", other)


def test_the_log_itself_is_a_reference_with_its_images_before_the_window(log, tmp_path):
    write_log(log, 200, start=DAY - datetime.timedelta(days=2), seed=9)
    write_log(log, 150, brightness=-1)
    result = compare(tmp_path, log, log, command.DRIFT, "--since", "2026-03-04")
    assert (result["compared_images"], result["reference_images"]) == (150, 200)
    assert "no images were logged before 2026-03-02 00:00 UTC" in run(
        command.TOO_FEW, log, "--reference", log, "--until", "2026-03-04"
    )


def test_places_of_the_result_are_checked_before_the_work(log, reference, tmp_path):
    for option in ("--json", "--html"):
        output = run(1, log, "--reference", reference, option, tmp_path / "missing/file")
        assert f"{option} {tmp_path}/missing/file: expected a file in an existing folder" in output
    assert "after --since" in run(2, log, "--since", "2026-03-04", "--until", "2026-03-03")


def test_a_mean_that_has_not_changed_has_no_direction(tmp_path, log):
    reference = write_reference(tmp_path / "serving", size=300, seed=1)
    write_log(log, 300)
    sentences = [test["sentence"] for test in compare(tmp_path, log, reference, 0)["tests"]]
    assert sentences[0].startswith("mean ")


def test_the_page(log, reference, tmp_path):
    write_log(log, 150, brightness=3, images=True)
    page = tmp_path / "drift.html"
    run(command.DRIFT, log, "--reference", reference, "--html", page)
    html = page.read_text()
    assert "✗ Drift" in html and "brighter: mean" in html
    assert html.count("data:image/svg+xml") == 6
    assert html.count("data:image/png") == 24
    assert "&lt;frog&gt;" in html and "<frog>" not in html


def test_saved_images_are_in_folders_by_their_answers(log, reference, tmp_path):
    write_log(log, 150, images=True)
    folder = tmp_path / "images"
    assert "150 images are in" in run(0, log, "--reference", reference, "--save-images", folder)
    assert {path.name for path in folder.iterdir()} == {"cat", "dog", "_frog_"}
    table = pa.concat_tables([pq.read_table(path) for path in sorted(log.rglob("[!.]*.parquet"))])
    cats = set(table.filter(pa.compute.equal(table["class_name"], "cat"))["image"].to_pylist())
    assert sorted(path.read_bytes() for path in (folder / "cat").iterdir()) == sorted(cats)
    assert "does not exist yet" in run(1, log, "--reference", reference, "--save-images", folder)
    long = write_log(tmp_path / "long", 300, images=True)  # of which the images after the 256th are repeats
    output = run(0, long, "--reference", reference, "--save-images", tmp_path / "more")
    assert "256 images are in" in output and "44 repeats are left out" in output
    assert len(list((tmp_path / "more").glob("*/*"))) == 256
    write_log(log, 50, seed=5)
    output = run(1, log, "--reference", reference, "--save-images", tmp_path / "new")
    assert "start the server with --log-images" in output


def photos(seed, size):
    """Draws sharp pictures: rectangles of random colours."""
    rng = np.random.default_rng(seed)
    images = np.empty((size, 16, 16, 3), np.uint8)
    for image in images:
        image[:] = rng.integers(40, 216, 3)
        for _ in range(6):
            top, left = rng.integers(0, 12, 2)
            image[top : top + rng.integers(2, 8), left : left + rng.integers(2, 8)] = rng.integers(40, 216, 3)
    return images


def described(seed, images):
    """Returns a sample of images with the measures that an exported model describes them with."""
    measured = statistics.measure(tf.constant(images / 255, tf.float32))
    columns = {name: pa.array(values.numpy()) for name, values in measured.items()}
    return InMemory((), pa.table({**rows(seed, len(images)), **columns}))


@pytest.mark.parametrize(
    ("name", "drifted"),
    [
        ("blur", "sharpness"),
        ("noise", "sharpness"),
        ("darkness", "brightness"),
        ("contrast", "contrast"),
        ("jpeg", "sharpness"),
    ],
)
def test_corrupted_images_are_drift(name, drifted):
    tested = described(0, photos(0, 300))
    clean = photos(1, 200)
    assert not two_sample.compare(described(1, clean), tested, 0.05).drifted
    corrupted = corrupt(clean, name, CORRUPTIONS[name].strengths[1])
    found = two_sample.compare(described(1, corrupted), tested, 0.05)
    assert drifted in [test.name for test in found.outcomes if test.drifted]
