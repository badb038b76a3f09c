"""The harness finds what a careless program loses, and nothing in a careful one."""

import os
import select
import subprocess
import sys
import time

import pytest

from tests.faults import all as faults
from tests.faults import commands, injection
from tests.faults.commands import Command


def _careless(place, until):
    """Takes what is there for complete."""
    del until
    file = place.case / "results.txt"
    if not file.exists():
        with file.open("w") as opened:
            for number in range(4):
                opened.write(f"{number}\n")
                opened.flush()


def _careful(place, until):
    del until
    file, partial = place.case / "results.txt", place.case / "results.partial"
    if not file.exists():
        try:
            with partial.open("w") as opened:
                for number in range(4):
                    opened.write(f"{number}\n")
                    opened.flush()
                os.fsync(opened.fileno())
        except OSError as error:
            sys.exit(f"{partial}: {error.strerror}")
        # By another process, whose calls are seen, too.
        subprocess.run(["mv", str(partial), str(file)], check=False)


def _state(place):
    return {path.name: path.read_text() for path in place.case.glob("results*")}


@pytest.fixture
def carry_out_all(tmp_path, monkeypatch):
    """Carries out all trials of a program; returns those that found problems, as text, and their number."""

    def carry_out(run, in_a_row):
        command = Command("program", lambda place: None, run, _state)
        monkeypatch.setattr(commands, "COMMANDS", {"program": command})
        monkeypatch.setattr(faults, "COMMANDS", commands.COMMANDS)
        harness = faults.Harness(tmp_path)
        try:
            trials = list(harness.trials("program"))
        except injection.UnavailableError as error:
            pytest.skip(f"system calls cannot be observed here: {error}")
        found = harness.carry_out(trials, in_a_row)
        return {str(trial) for trial, problems in found if problems}, len(trials)

    return carry_out


@pytest.mark.parametrize("in_a_row", [1, 5])
def test_what_a_careless_program_loses_is_found(carry_out_all, in_a_row):
    found, number = carry_out_all(_careless, in_a_row)
    # Its file is opened, and written four times, of which the third does not count.
    assert number == 4 * len(injection.FAULTS)
    for fault in injection.FAULTS:
        for count in range(3):
            assert f"program: {fault} at - write results.txt #{count}" in found
    assert "program: kill at - open results.txt #0" not in found


@pytest.mark.parametrize("in_a_row", [1, 5])
def test_nothing_is_found_in_a_careful_program(carry_out_all, in_a_row):
    assert carry_out_all(_careful, in_a_row) == (set(), 6 * len(injection.FAULTS))


def test_of_many_temporary_files_of_a_kind_only_some_are_points(tmp_path):
    def make_files():
        for number in range(9):
            (tmp_path / "case" / f"tmpabcdef{number}").touch()

    (tmp_path / "case").mkdir()
    try:
        outcome = injection.run(make_files, tmp_path / "case", tmp_path / "output.txt")
    except injection.UnavailableError as error:
        pytest.skip(f"system calls cannot be observed here: {error}")
    assert [str(point) for point in outcome.points] == [f"- open tmp* #{number}" for number in (0, 1, 3, 7)]


WAITING = """
import os, sys, time
from pathlib import Path
from tests.faults import injection
folder = Path(sys.argv[1])
def wait():
    print(os.getpid(), flush=True)
    time.sleep(60)
injection.run(wait, folder, folder / "output.txt")
"""


def test_the_child_does_not_outlive_a_killed_parent(tmp_path):
    output = tmp_path / "output.txt"
    with subprocess.Popen([sys.executable, "-c", WAITING, tmp_path], stderr=subprocess.PIPE) as parent:
        while not (output.exists() and output.read_text().removesuffix("\n").isdecimal()):
            if parent.poll() is not None:
                pytest.skip(f"system calls cannot be observed here: {parent.stderr.read()}")
            time.sleep(0.02)
        child = os.pidfd_open(int(output.read_text()))
        parent.kill()
    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended


def test_varying_parts_of_names_are_replaced():
    place = "pipelines/tiny/Trainer/model/7/.model.partial-ab12_x9z/part-00001-of-00002"
    assert injection.normalize("a/8b0d1c2e-0a1b-4c5d-8e9f-0123456789ab.json") == "a/*.json"
    assert injection.normalize("tmp/8xxdtf4k") == "tmp/*"
    assert injection.normalize("tmp/pipeline-z_5p1x0q/_obeb3e7") == "tmp/pipeline-*/*"
    assert injection.normalize(place) == "pipelines/tiny/Trainer/model/#/.model.partial-*/part-#-of-#"


def test_the_sample_takes_turns_and_moves_with_the_seed():
    points = [injection.Point("", "write", f"{number}", 0) for number in range(20)]
    trials = [faults.Trial(name, point, injection.KILL) for name in ("a", "b") for point in points]
    first, second = (faults.sample(trials, 8, seed) for seed in ("1", "2"))
    assert [trial.command for trial in first] == ["a", "b"] * 4
    assert first == faults.sample(trials, 8, "1") != second
