"""Disturbs every durable write of the pipeline and of the importers: `python -m tests.faults.all --help`.

For each write the command is killed before it, which is also after the write before it; gets EIO from it; or
finds the disk full from it on. Then the same command runs again, undisturbed, and must end in the state of a
run that was never disturbed, with nothing left over. A trial in a component of the pipeline begins with the
files as they were when this component began, and its runs end after it.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from settings.pipeline import PipelineConfig
from tests.faults import commands, injection
from tests.faults.commands import COMMANDS, Command, Place
from tests.faults.injection import FAULTS, KILL, NO_SPACE, Point

# The modules that take long to import; none of them starts TensorFlow's runtime.
_IMPORTERS = (
    *(
        "datasets.image_folder",
        "datasets.manifest",
        "datasets.tfrecords",
        "datasets.cifar10",
        "datasets.shapes",
    ),
    "tensorflow",
)
_IMPORTED = (
    *("components.metadata", "pipeline.pipeline", "pipeline.local.summary", "pipeline.local.runner"),
    *("models.trainer", "models.tuner", "models.preprocessing", "components.model_report.component"),
)
_STAGES = ["", *PipelineConfig().steps()]
_TRACEBACK = "Traceback (most recent call last)"
# Calls that make room; they do not fail on a full disk.
_MAKES_ROOM = ("unlink", "rmdir")


@dataclass(frozen=True)
class Trial:
    """A fault at a point of a command."""

    command: str
    point: Point
    fault: str

    def __str__(self) -> str:
        return f"{self.command}: {self.fault} at {self.point}"


@dataclass
class Undisturbed:
    """What a command does if nothing disturbs it.

    Attributes:
      points: its durable writes.
      state: its end state.
      templates: stage -> copy of the folder of the case at the beginning of this stage.
    """

    points: list[Point]
    state: Any
    templates: dict[str, Path]


class Harness:
    """Runs trials of the commands in a folder of its own."""

    def __init__(self, folder: Path, until: str = "", to_the_end: bool = False) -> None:
        """Prepares the folder.

        Args:
          folder: an empty folder.
          until: the last component of the pipeline that can be disturbed; all can be if it is empty.
          to_the_end: whether the runs of the pipeline do not end after the component that is disturbed.
        """
        self._folder, self._until, self._to_the_end = folder, until, to_the_end
        self._undisturbed: dict[str, Undisturbed] = {}

    def _place(self, command: Command) -> Place:
        # The folder has the same path in all trials, because ML Metadata has absolute paths.
        return Place(self._folder / command.name / "inputs", self._folder / command.name / "case")

    def undisturbed(self, name: str) -> Undisturbed:
        """Runs a command without a fault, once."""
        if name in self._undisturbed:
            return self._undisturbed[name]
        command = COMMANDS[name]
        place = self._place(command)
        commands.clear(place)
        templates: dict[str, Path] = {}
        prepared = injection.run(
            functools.partial(command.prepare, place), place.inputs, self._folder / "prepared.txt"
        )
        assert prepared.status == 0, (self._folder / "prepared.txt").read_text()

        def snapshot(point: Point) -> None:
            if point.stage not in templates:
                copy = self._folder / command.name / f"template-{len(templates)}"
                shutil.copytree(place.case, copy, symlinks=True)
                templates[point.stage] = copy

        outcome = self._run(command, place, until="" if self._to_the_end else self._until, on_point=snapshot)
        assert outcome.status == 0, place.output.read_text()[-5000:]
        self._undisturbed[name] = Undisturbed(outcome.points, command.state(place), templates)
        return self._undisturbed[name]

    def trials(self, name: str) -> Iterator[Trial]:
        """Yields all trials of a command."""
        for point in dict.fromkeys(self.undisturbed(name).points):
            for fault in FAULTS:
                if fault != NO_SPACE or point.call not in _MAKES_ROOM:
                    yield Trial(name, point, fault)

    def carry_out(self, trials: Iterable[Trial], in_a_row: int = 1) -> Iterator[tuple[Trial, list[str]]]:
        """Carries out trials, and yields each with what is not as it should be.

        The run that follows a fault is that of the next trial, as long as the faults end the runs; a last one
        is undisturbed. If the end is not as it should be, each of these trials is repeated on its own.

        Args:
          trials: what to do; those of a stage follow each other.
          in_a_row: at most so many trials of a stage before a run is undisturbed.
        """
        for _, of_stage in itertools.groupby(trials, lambda trial: (trial.command, trial.point.stage)):
            rest = list(of_stage)
            while rest:
                count, problems = self._carry_out_in_a_row(rest[:in_a_row])
                for trial in rest[:count]:
                    alone = self._carry_out_in_a_row([trial])[1] if problems and count > 1 else problems
                    yield trial, alone
                del rest[:count]

    def _carry_out_in_a_row(self, trials: Sequence[Trial]) -> tuple[int, list[str]]:
        """Carries out the first of some trials, and returns how many, and what is not as it should be."""
        first = trials[0]
        command = COMMANDS[first.command]
        place = self._place(command)
        expected = self.undisturbed(first.command)
        shutil.rmtree(place.case, ignore_errors=True)
        shutil.copytree(expected.templates[first.point.stage], place.case, symlinks=True)
        stages = self._stages(first)
        until = stages[-1] if command.stages and not self._to_the_end else ""
        problems = []
        count = 0
        for trial in trials:
            disturbed = self._run(command, place, trial, until)
            if not disturbed.hit:
                break
            count += 1
            said = place.output.read_text(errors="replace")
            if trial.fault != KILL and _TRACEBACK in said:
                problems.append(f"a traceback on the screen: {said[-300:]!r}")
            if disturbed.status == 0:
                break
        if not count:
            return 1, ["not reached"]
        again = self._run(command, place, until=until)
        said = place.output.read_text(errors="replace")
        if _TRACEBACK in said:
            problems.append(f"a traceback when run again: {said[-300:]!r}")
        try:
            state = command.state(place)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return count, [*problems, f"no end state ({reason}), status {again.status}: {said[-300:]!r}"]
        wanted = expected.state
        if until:
            wanted, state = (commands.part(each, stages) for each in (wanted, state))
        return count, [*problems, *_differences(wanted, state)]

    def _stages(self, trial: Trial) -> list[str]:
        """Returns the stages that a trial needs: those up to its own, and at least one component."""
        stages = list(self.undisturbed(trial.command).templates)
        return stages[: max(stages.index(trial.point.stage), 1) + 1]

    def _run(
        self,
        command: Command,
        place: Place,
        trial: Trial | None = None,
        until: str = "",
        on_point: Any = None,
    ) -> injection.Outcome:
        return injection.run(
            functools.partial(command.call, place, until),
            place.case,
            place.output,
            at=trial.point if trial else None,
            fault=trial.fault if trial else "",
            stage=functools.partial(commands.stage, place.output) if command.stages else str,
            on_point=on_point,
        )


def _differences(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            yield from _differences(expected.get(key), found.get(key), f"{where}/{key}" if where else key)
    elif expected != found:
        yield f"{where}: expected {expected}, found {found}"


def sample(trials: Sequence[Trial], count: int, seed: str) -> list[Trial]:
    """Chooses trials: as many of each importer and component as of the others, where there are enough."""
    generator = random.Random(seed)
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.command, trial.point.stage), []).append(trial)
    for some in groups.values():
        generator.shuffle(some)
    turns = (some[turn : turn + 1] for turn in range(len(trials)) for some in groups.values())
    return [trial for some in turns for trial in some][:count]


def seed_of_commit() -> str:
    """Returns the hash of the commit, so that the sample moves with it; empty without git."""
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return git.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument(
        "--stage",
        nargs="*",
        default=_STAGES,
        choices=_STAGES,
        help="of the pipeline, only these components; '' is what comes before the first",
    )
    parser.add_argument(
        "--to-the-end", action="store_true", help="runs the components after the disturbed one, too"
    )
    parser.add_argument(
        "--in-a-row",
        type=int,
        default=1,
        help="how many trials follow each other before a run is undisturbed; the more, the faster",
    )
    parser.add_argument("--calls", nargs="*", help="only these calls, such as rename and write")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument(
        "--sample", type=int, help="so many trials, of one component of the pipeline; by default all"
    )
    parser.add_argument("--seed", default=seed_of_commit(), help="by default the hash of the commit")
    parser.add_argument("--count", action="store_true", help="counts the points and injects nothing")
    parser.add_argument(
        "--out", type=Path, help="file of one JSON line per trial; those in it are not repeated"
    )
    options = parser.parse_args()
    for module in (*_IMPORTERS, *_IMPORTED):
        importlib.import_module(module)
    _read_code()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        stages = _stages(options)
        until = stages[-1] or _STAGES[1]
        sys.exit(_work(Harness(Path(folder), until, options.to_the_end), stages, options))


def _stages(options: argparse.Namespace) -> list[str]:
    """Returns the components to disturb, in their order; for a sample one of them, as the seed chooses."""
    stages = [stage for stage in _STAGES if stage in options.stage]
    return stages if options.sample is None else random.Random(options.seed).sample(stages, 1)


def _read_code() -> None:
    """Computes the digests of the code once, which every run needs."""
    from pipeline import code_digest, pipeline  # noqa: PLC0415 - it loads TFX

    for modules in pipeline.ENTRY_MODULES.values():
        code_digest.digest(*modules)


def _work(harness: Harness, stages: Sequence[str], options: argparse.Namespace) -> int:
    """Carries out the chosen trials; returns the exit status."""
    trials = [
        trial
        for name in options.only
        for trial in harness.trials(name)
        if trial.fault in options.faults
        and (not options.calls or trial.point.call in options.calls)
        and (not COMMANDS[name].stages or trial.point.stage in stages)
    ]
    if options.count:
        _show_counts(trials)
        return 0
    if options.sample is not None:
        trials = sample(trials, options.sample, options.seed)
    done = set()
    if options.out and options.out.exists():
        done = {json.loads(line)["trial"] for line in options.out.read_text().splitlines()}
    trials = [trial for trial in trials if str(trial) not in done]
    start, failed, missed = time.monotonic(), 0, 0
    for number, (trial, problems) in enumerate(harness.carry_out(trials, options.in_a_row), start=1):
        missed += problems == ["not reached"]
        failed += bool(problems) and problems != ["not reached"]
        if problems:
            print(f"[{number}/{len(trials)}] {trial}", *problems, sep="\n    ", flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps({"trial": str(trial), "problems": problems}) + "\n")
    seconds = time.monotonic() - start
    print(f"{len(trials)} trials in {seconds:.0f} s: {failed} with problems, {missed} not reached")
    return 1 if failed else 0


def _show_counts(trials: Sequence[Trial]) -> None:
    places = Counter((trial.command, trial.point.stage) for trial in trials)
    points = Counter((command, point.stage) for command, point in {(t.command, t.point) for t in trials})
    for key, count in places.items():
        print(f"{key[0]:<14} {key[1] or '(start)':<18} {points[key]:>5} points {count:>6} trials")
    print(f"{'':<33} {sum(points.values()):>5} points {len(trials):>6} trials")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
