import os
import subprocess
import sys

import pytest

from pipeline import console
from pipeline.local.runner import ComponentRun, State


@pytest.mark.parametrize("verbose", [False, True])
def test_all_output_goes_to_the_log_except_that_of_the_console(tmp_path, verbose):
    code = f"""
import os, subprocess, sys
from pathlib import Path
from pipeline import console
with console.logs_to(Path({str(tmp_path / "logs" / "run.log")!r}), verbose={verbose}) as terminal:
    terminal.print("for people")
    print("from python")
    os.write(2, b"from C\\n")
    subprocess.run(["echo", "from a child"])
print("afterwards")
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    log = (tmp_path / "logs" / "run.log").read_text()
    assert sorted(log.splitlines()) == ["from C", "from a child", "from python"]
    assert "for people" in process.stdout
    assert process.stdout.endswith("afterwards\n")
    assert ("from C" in process.stdout) is verbose


def test_without_a_terminal_every_change_is_one_line(tmp_path):
    with (tmp_path / "output").open("w") as file:
        terminal = console.Console(file=file, width=100)
        with console.View(terminal, ["Trainer"]) as view:
            view.update(ComponentRun("Trainer", State.RUNNING))
            view.progress("epoch 1/2 [not markup]" + 20 * " wide")
            view.update(ComponentRun("Trainer", State.COMPLETE, seconds=1.25))
    lines = (tmp_path / "output").read_text().splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "Trainer running",
        "epoch 1/2 [not markup]" + 20 * " wide",
        "Trainer done 1.2 s",
    ]


def test_on_a_terminal_a_table_shows_every_component(tmp_path):
    read, write = os.pipe()
    with os.fdopen(write, "w") as file:
        terminal = console.Console(file=file, force_terminal=True, width=100)
        with console.View(terminal, ["Transform", "Trainer"]) as view:
            view.update(ComponentRun("Transform", State.CACHED, seconds=0.1))
            view.update(ComponentRun("Trainer", State.RUNNING))
            view.progress("epoch 1/2")
    with os.fdopen(read) as file:
        shown = file.read()
    for text in ("Transform", "cached", "Trainer", "running", "epoch 1/2"):
        assert text in shown


def test_output_that_nobody_reads_is_told_once_and_then_dropped(tmp_path):
    code = f"""
import os
from pathlib import Path
from pipeline import console
with console.logs_to(Path({str(tmp_path / "run.log")!r}), False, lambda: print("closed")) as terminal:
    terminal.print("lost")
    terminal.print("lost" * 10_000, soft_wrap=True, highlight=False)
    print("for the log")
"""
    reading, writing = os.pipe()
    os.close(reading)
    subprocess.run([sys.executable, "-c", code], stdout=writing, check=True)
    os.close(writing)
    assert (tmp_path / "run.log").read_text() == "closed\nfor the log\n"


def test_a_log_on_a_full_disk_does_not_end_the_run_and_is_not_shown_afterwards():
    code = """
from pathlib import Path
from pipeline import console
with console.logs_to(Path("/dev/full"), verbose=False) as terminal:
    print("for the log")
print("afterwards")
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert process.stdout == "afterwards\n"
    assert process.stderr == ""
