import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets import digest, terminal
from datasets.directory import DatasetError

ROOT = Path(__file__).parents[2]


def _raise(error):
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DatasetError("expected this, found that"), "error: expected this, found that\n"),
        (OSError(28, "No space left on device", "/data"), "error: /data: No space left on device\n"),
        (OSError("the disk is missing"), "error: the disk is missing\n"),
    ],
)
def test_dataset_and_file_errors_give_a_message_and_exit_code_1(capsys, monkeypatch, error, message):
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as stop:
        terminal.run(_raise(error))
    assert stop.value.code == 1
    assert capsys.readouterr().err == message


def test_unexpected_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(ZeroDivisionError):
        terminal.run(_raise(ZeroDivisionError()))


def test_progress_is_two_lines_without_a_terminal(capsys):
    with terminal.progress("Counting", 1000) as advance:
        for _ in range(1000):
            advance(1)
    captured = capsys.readouterr()
    assert captured.err == "Counting ...\nCounting: done\n"
    assert captured.out == ""


def test_progress_of_long_work_has_more_lines(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_LINE_SECONDS", 0)
    with terminal.progress("Counting", 2000) as advance:
        advance(1500)
    assert capsys.readouterr().err == "Counting ...\nCounting: 1,500 of 2,000\nCounting: done\n"
    with terminal.progress("Uploading", 2 * 10**9, in_bytes=True) as advance:
        advance(15 * 10**8)
    assert "Uploading: 1,500 of 2,000 MB\n" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["cifar10", "image_folder", "manifest", "shapes", "tfds", "tfrecords"])
def test_every_command_has_help(module):
    command = [sys.executable, "-m", f"datasets.{module}", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "OUT" in result.stdout
    assert "--seed" in result.stdout
    assert result.stderr == ""


def test_the_help_of_a_command_keeps_paragraphs_and_names_in_paths():
    command = [sys.executable, "-m", "datasets.image_folder", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    shown = " ".join(result.stdout.replace("│", " ").split())
    assert "SRC/CLASS/..., or SRC/SPLIT/CLASS/..." in shown
    # The docstring breaks its lines elsewhere.
    assert any(line.startswith(" train, val and test. If test or val") for line in result.stdout.splitlines())


def test_a_failing_command_shows_no_traceback(tmp_path):
    (tmp_path / "taken").touch()
    command = [sys.executable, "-m", "datasets.shapes", tmp_path / "taken"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert "remove it or choose another place" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_digest_of_large_data_is_computed_with_progress(tiny_dataset, monkeypatch, capsys):
    expected = digest.of_directory(tiny_dataset.path)
    assert terminal.compute_digest(tiny_dataset) == expected
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(terminal, "_LONG_BYTES", 0)
    assert terminal.compute_digest(tiny_dataset) == expected
    assert f"Reading {tiny_dataset.path}: done" in capsys.readouterr().err


PRINTING = """
from rich.console import Console
from {package} import terminal
import typer
app = typer.Typer()
@app.command(cls=terminal.Command)
def command() -> None:
    {statement}
app({arguments})
"""


@pytest.mark.parametrize("package", ["datasets", "serving"])
@pytest.mark.parametrize(
    ("statement", "arguments", "status"),
    [
        ("print('text')", [], 141),
        ("print('text' * 100_000)", [], 141),
        ("Console().print('text')", [], 141),
        ("print('text'); raise typer.Exit(3)", [], 141),
        ("raise typer.Exit(3)", [], 3),
        ("pass", ["--help"], 141),
    ],
    ids=["at the end", "at once", "by rich", "with a status", "nothing", "help"],
)
def test_output_that_nobody_reads_ends_a_command_quietly(package, statement, arguments, status):
    reading, writing = os.pipe()
    os.close(reading)
    command = [
        sys.executable,
        "-c",
        PRINTING.format(package=package, statement=statement, arguments=arguments),
    ]
    result = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (status, "")


def test_a_connection_that_breaks_is_an_error_and_not_output_that_nobody_reads():
    with pytest.raises(BrokenPipeError), terminal.quiet_if_closed():
        raise BrokenPipeError
