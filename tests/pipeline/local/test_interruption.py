import os
import signal
import subprocess
import sys
import threading

import pytest

from pipeline.local import interruption


@pytest.fixture(autouse=True)
def _signals_are_not_ignored():
    """As in a terminal; a process in the background, or of nohup, ignores some."""
    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _exit_is_seen(monkeypatch):
    monkeypatch.setattr(interruption, "_descendants", lambda parent: [])
    monkeypatch.setattr(os, "_exit", sys.exit)


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_program_with_its_status(capsys, name, status):
    with interruption.Watch() as watch:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), getattr(signal, name))
        with pytest.raises(KeyboardInterrupt):
            watch.check()
        with pytest.raises(SystemExit) as stop:
            watch.end()
    assert stop.value.code == status
    assert capsys.readouterr().err == "interrupted\n"


def test_without_a_signal_the_run_goes_on():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.Watch() as watch:
        watch.check()
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_repeated_signal_does_not_disturb_the_end_of_the_run_but_a_repeated_ctrl_c_ends_it():
    with interruption.Watch() as watch:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert watch.number is signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored():
    code = "import os, signal; from pipeline.local import interruption\n"
    code += "with interruption.Watch() as watch: os.kill(os.getpid(), signal.SIGHUP)\nprint(watch.number)"
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", code]
    assert subprocess.run(ignoring, capture_output=True, text=True, check=True).stdout == "None\n"


def test_output_that_nobody_reads_ends_the_run_without_a_word(capsys):
    watch = interruption.Watch()
    with pytest.raises(KeyboardInterrupt):
        watch.output_is_closed()
    watch.output_is_closed()  # while the summary of this run is shown
    with pytest.raises(SystemExit) as stop:
        watch.end()
    assert stop.value.code == 141
    assert capsys.readouterr().err == ""


def test_a_thread_whose_output_nobody_reads_lets_the_main_thread_end_the_run():
    watch = interruption.Watch()
    thread = threading.Thread(target=watch.output_is_closed)
    thread.start()
    thread.join()
    with pytest.raises(KeyboardInterrupt):
        watch.check()


def test_no_process_and_no_thread_outlives_the_end():
    code = """
import signal, subprocess, threading
from pipeline.local import interruption
child = subprocess.Popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE)
child.stdout.readline()
threading.Thread(target=child.wait).start()
interruption.Watch().end()
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)
    assert process.returncode == 130
