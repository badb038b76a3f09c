import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from components.model_report import compare, comparison, predictions, report_files
from components.model_report.predictions import Predictions

# One name looks like rich's markup, which must be printed and not interpreted; the others like HTML or LaTeX.
NAMES = ["cat", "[red]dog[/red]", "<script>", "Büsche $"]
COUNT = 400


def write_report(folder, answers, labels, name="pets", names=NAMES, prefix="id"):
    probabilities = np.where(np.eye(len(names))[answers] > 0, 0.7, 0.3 / (len(names) - 1))
    ids = [f"{prefix}{i:03}" for i in range(len(labels))]
    folder.mkdir()
    written = Predictions(ids, np.array(labels), probabilities.astype(np.float32))
    predictions.write(written, names, folder / report_files.PREDICTIONS)
    (folder / report_files.METRICS).write_text(json.dumps({"name": name}))
    (folder / report_files.PAGE).write_text("")
    return folder


@pytest.fixture
def labels():
    return np.arange(COUNT) % 3  # no image of the last class


@pytest.fixture
def a(tmp_path, labels):
    """The report of a model that is wrong on every fifth image."""
    return write_report(tmp_path / "a", np.where(np.arange(COUNT) % 5 == 0, 3, labels), labels)


@pytest.fixture
def b(tmp_path, labels):
    """The report of a model that is wrong on the images of classes 1 and 2 among the first 200."""
    wrong = (np.arange(COUNT) < 200) & (labels > 0)
    return write_report(tmp_path / "b", np.where(wrong, 0, labels), labels, name="later")


def invoke(*arguments):
    return CliRunner().invoke(compare.app, [str(argument) for argument in arguments])


def words(text):
    return " ".join(text.split())


def test_a_comparison_is_printed(a, b):
    result = invoke(a, b / report_files.PAGE)
    assert result.exit_code == 0, result.output
    printed = words(result.stdout)
    assert "A pets, accuracy 0.8000 on 400 images" in printed
    assert "B later, accuracy 0.6675 on 400 images" in printed
    # A is wrong on 80 images, B on 133, both on 26.
    assert "Only A is right on 107 images, only B on 54." in printed
    assert "107 images became wrong, 54 became right." in printed
    assert "and 87 more images; --json FILE writes them all" in printed
    # Names are printed unchanged; the class without images comes last.
    classes = printed[printed.index("Classes,") : printed.index("Right with A")]
    # The recalls changed by -41, -39 and +27 images.
    assert sorted(NAMES, key=classes.index) == ["[red]dog[/red]", "<script>", "cat", "Büsche $"]
    assert "Büsche $ 0 no data" in classes


def test_json_holds_everything(a, b, tmp_path):
    file = tmp_path / "comparison.json"
    assert invoke(a, b, "--json", file).exit_code == 0
    content = json.loads(file.read_text())
    expected = {"report": str(a), "name": "pets", "examples": 400, "accuracy": 0.8, "corrupted": None}
    assert content["a"] == expected
    assert content["b"]["name"] == "later"
    assert len(content["became_wrong"]) == 107
    assert {"metrics", "mcnemar", "classes", "became_right", "only_a", "only_b"} <= content.keys()


def test_the_accuracy_on_corrupted_images_is_shown_where_it_was_measured(a, b, tmp_path):
    corruptions = {"images": 500, "accuracy": 0.534, "intervals": {"accuracy": [0.5, 0.56]}}
    (b / report_files.METRICS).write_text(json.dumps({"name": "later", "corruptions": corruptions}))
    file = tmp_path / "comparison.json"
    printed = words(invoke(a, b, "--json", file).stdout)
    assert printed.count("corrupted image") == 1
    assert "accuracy 0.5340 (95% interval 0.5000 to 0.5600) on 500 corrupted images" in printed
    assert json.loads(file.read_text())["b"]["corrupted"]["accuracy"] == 0.534


def test_reports_are_compared_without_tensorflow(a, b):
    program = (
        "import sys; sys.modules['tensorflow'] = None; "
        "from components.model_report import compare; compare.app()"
    )
    command = [sys.executable, "-c", program, str(a), str(b)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert "accuracy 0.8000" in finished.stdout


@pytest.mark.parametrize(
    ("name", "interval", "verdict"),
    [
        ("accuracy", [0.01, 0.02], "better"),
        ("accuracy", [-0.02, -0.01], "worse"),
        ("accuracy", [-0.01, 0.02], "no clear difference"),
        ("accuracy", [0.0, 0.0], "no clear difference"),
        ("loss", [-0.2, -0.1], "better"),
        ("calibration_error", [0.1, 0.2], "worse"),
    ],
)
def test_a_difference_is_judged_by_its_interval(name, interval, verdict, a):
    stored, _ = predictions.read(a / report_files.PREDICTIONS)
    result = comparison.compare(stored, stored, NAMES)
    for entry in result["metrics"]:
        if entry["name"] == name:
            entry["interval"] = interval
    model = {"report": "a", "name": "a", "examples": 1, "accuracy": 1.0, "corrupted": None}
    console = Console(width=160, record=True)
    compare.show(console, {"a": model, "b": model, **result})
    label = {"accuracy": "Accuracy", "loss": "Loss", "calibration_error": "Calibration error"}[name]
    (line,) = [line for line in console.export_text().splitlines() if line.startswith(label)]
    assert line.rstrip().endswith(verdict)


def test_a_model_does_not_differ_from_itself(a):
    printed = words(invoke(a, a).stdout)
    assert "A and B are right on the same images." in printed
    assert printed.count("no clear difference") == 6
    assert "0 images became wrong, 0 became right." in printed
    assert "Right with A" not in printed


def test_runs_are_found_by_their_ids(a, b, tmp_path, monkeypatch):
    from components import metadata  # noqa: PLC0415

    root = tmp_path / "runs"
    root.mkdir()
    metadata.open_store(root / "metadata.sqlite")
    monkeypatch.setattr(metadata, "report_of_run", lambda store, run: {"one": a, "two": b}.get(run))
    monkeypatch.setattr(metadata, "run_ids", lambda store: ["one", "two"])
    assert "A pets" in words(invoke("one", "two", "--root", root).stdout)
    missing = invoke("one", "three", "--root", root)
    assert missing.exit_code == 1
    assert "three: expected the folder of a report or the id of a run in" in missing.stderr
    assert missing.stderr.endswith("the newest runs are two, one\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "neither"], "neither: expected the folder of a report or the id of a run in nowhere"),
        (["a", "empty"], "expected the folder of a report, found no predictions.parquet"),
        (["a", "damaged"], "predictions.parquet cannot be read"),
        (["a", "bare"], "metrics.json: No such file"),
        (["a", "renamed"], "only A has <script>; only B has bird, fish, gnu, hen, ibex and others"),
        (["a", "reordered"], "expected models of the same classes, found: the same classes in a different"),
        (["a", "other images"], "no common id among the 400 images of the first model and the 3 of the"),
        (["a", "a", "--json", "no folder/x.json"], "no folder/x.json: No such file or directory"),
    ],
)
def test_an_error_is_one_line_and_no_file_is_written(arguments, message, a, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / report_files.PREDICTIONS).write_bytes(b"PAR1")
    few = [0, 1, 2]
    (write_report(tmp_path / "bare", few, few) / report_files.METRICS).unlink()
    others = ["cat", "[red]dog[/red]", "bird", "fish", "gnu", "hen", "ibex", "yak", "Büsche $"]
    write_report(tmp_path / "renamed", few, few, names=others)
    write_report(tmp_path / "reordered", few, few, names=NAMES[::-1])
    write_report(tmp_path / "other images", few, few, prefix="other")
    if "--json" not in arguments:
        arguments = [*arguments, "--json", "comparison.json"]
    result = invoke(*arguments, "--root", "nowhere")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "comparison.json").exists()
