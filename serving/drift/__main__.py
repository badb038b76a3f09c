"""Finds out whether the images that a served model gets have drifted: `python -m serving.drift`."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import PIL.Image
import rich.box
import rich.markup
import typer
from rich.console import Console
from rich.table import Table

from serving import atomic_file, terminal
from serving.drift import samples, two_sample
from serving.drift.samples import DriftError, Sample, TooFewError
from serving.drift.two_sample import FEWEST, Comparison

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
# Exit codes beside 0, no drift, and 2, wrong arguments.
ERROR, DRIFT, TOO_FEW = 1, 3, 4
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
_EXAMPLES = "2026-03-01, 2026-03-01T08:30 or 2026-03-01T08:30:00"


@app.command(cls=terminal.Command)
def drift(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Log that the server wrote: that of a model, or a folder with that of one model.",
        ),
    ] = Path("runs/requests"),
    reference: Annotated[
        Path,
        typer.Option(
            metavar="DIR|FILE",
            help="What the images are compared with: a pushed version; or a folder of pushed models, of "
            "which the one that answered is taken; or a Parquet file; or a log, of which only "
            "the images before the window are taken if the window is from it.",
        ),
    ] = Path("runs/serving"),
    since: Annotated[
        datetime.datetime | None,
        typer.Option(metavar="TIME", formats=_TIMES, help=f"Start of the window, in UTC: {_EXAMPLES}."),
    ] = None,
    until: Annotated[
        datetime.datetime | None,
        typer.Option(metavar="TIME", formats=_TIMES, help="End of the window, in UTC."),
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only this many images, the newest ones.")] = None,
    version: Annotated[
        int | None, typer.Option(help="Version that answered; by default, that of the newest image.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Probability of reporting drift if there is none.")
    ] = 0.05,
    every_image: Annotated[
        bool,
        typer.Option(
            "--every-image",
            help="Compare all images of a request instead of one; only for requests of unrelated images.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="File for the result, for programs.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="File for the result as a page.")
    ] = None,
    save_images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="New folder for the logged images of the window, in folders by their answers. Of equal "
            "files, the first is written.",
        ),
    ] = None,
) -> None:
    """Compares logged requests with the images that the model was tested on.

    Without a window, it is the last day with requests, in UTC. Exit codes: 0 no drift, 1 an error, 2 wrong
    arguments, 3 drift, 4 too few images.
    """
    if since is not None and until is not None and since >= until:
        raise typer.BadParameter("expected a time after --since", param_hint="--until")
    terminal.check_output_file(json_file, "--json")
    terminal.check_output_file(html_file, "--html")
    try:
        model, files = samples.find_log(log)
        logged, version, others = samples.read_window(
            files, since=_utc(since), until=_utc(until), last=last, version=version
        )
        if save_images is not None:
            _save_images(logged, save_images)
        window = logged if every_image else samples.one_of_each_request(logged)
        tested, found = samples.read_reference(reference, model, version, logged)
        _check_sizes(window, logged, tested)
        comparison = two_sample.compare(window, tested, alpha)
        times = logged.table["time"]
        result = {
            "model": model,
            "version": version,
            "since": times[0].as_py().isoformat(timespec="seconds"),
            "until": times[-1].as_py().isoformat(timespec="seconds"),
            "logged_images": len(logged),
            "compared_images": len(window),
            "images_of_other_versions": others,
            "reference": str(found),
            "reference_images": len(tested),
            "alpha": alpha,
            "drift": comparison.drifted,
            "tests": [asdict(outcome) for outcome in comparison.outcomes],
        }
        if json_file is not None:
            _write(json_file, json.dumps(result, indent=2) + "\n")
        if html_file is not None:
            from serving.drift import page  # noqa: PLC0415 - matplotlib takes a second to import

            text = page.render(result, _conclusion(comparison, alpha), window, tested, comparison)
            _write(html_file, text)
    except TooFewError as error:
        terminal.fail(str(error), TOO_FEW)
    except (DriftError, OSError) as error:
        terminal.fail(str(error), ERROR)
    _print(result, comparison)
    sys.exit(DRIFT if comparison.drifted else 0)


def _check_sizes(window: Sample, logged: Sample, reference: Sample) -> None:
    """Checks that there are enough images.

    Raises:
      TooFewError: there are not.
    """
    if len(window) < FEWEST <= len(logged):
        raise TooFewError(
            f"expected at least {FEWEST} requests, because one image of each is compared; found "
            f"{len(window)} requests with {len(logged)} images. Choose a longer window with --since; or, if "
            "the images of a request have nothing to do with each other, compare all with --every-image"
        )
    if len(window) < FEWEST:
        raise TooFewError(
            f"expected at least {FEWEST} images in the window, found {len(window)}. Choose a longer window "
            "with --since, or let the server log more with --log-fraction"
        )
    if len(reference) < FEWEST:
        raise TooFewError(
            f"expected at least {FEWEST} images in the reference, found {len(reference)}. It is a sample of "
            "the test split, which has to be larger"
        )


def _write(file: Path, text: str) -> None:
    with atomic_file.replacing(file) as part:
        part.write_text(text, encoding="utf-8")


def _save_images(sample: Sample, folder: Path) -> None:
    """Writes the images of a sample to `folder`/<class that was answered>/, equal ones once.

    Raises:
      DriftError: the images were not logged, or the folder exists.
    """
    images = sample.images()
    if images is None:
        raise DriftError("--save-images: the images were not logged: start the server with --log-images")
    if folder.exists():
        raise DriftError(f"--save-images {folder}: expected a folder that does not exist yet")
    times = sample.table["time"].to_pylist()
    written: set[bytes] = set()
    for index, (name, image, time) in enumerate(zip(sample.classes(), images, times, strict=True)):
        content = hashlib.sha256(image).digest()
        if content in written:
            continue
        written.add(content)
        # The name of a class may have any characters.
        path = folder / (re.sub(r"[^\w .()+-]", "_", name).lstrip(".") or "_")
        path.mkdir(parents=True, exist_ok=True)
        with PIL.Image.open(io.BytesIO(image)) as opened:
            suffix = str(opened.format).lower()
        (path / f"{time:%Y%m%dT%H%M%S}-{index:06}.{suffix}").write_bytes(image)
    repeats = f"; {len(images) - len(written)} repeats are left out" if len(written) < len(images) else ""
    _say(f"{len(written)} images are in {folder}, in the folders of the classes that were answered{repeats}")


def _print(result: dict[str, Any], comparison: Comparison) -> None:
    _say(
        f"{result['model']}, version {result['version']}: {result['compared_images']:,} images of "
        f"{result['logged_images']:,} that were logged from {result['since']} to {result['until']}"
    )
    if result["images_of_other_versions"]:
        _say(f"Left out: {result['images_of_other_versions']:,} images that other versions answered")
    _say(f"Reference: {result['reference_images']:,} images of {result['reference']}")
    table = Table(box=rich.box.SIMPLE)
    table.add_column("")
    table.add_column("drift")
    table.add_column("p, corrected", justify="right")
    table.add_column("effect", justify="right")
    table.add_column("difference")
    for outcome in comparison.outcomes:
        table.add_row(
            outcome.name,
            "[bold red]yes[/]" if outcome.drifted else "no",
            f"{outcome.p_adjusted:.2g}",
            f"{outcome.effect:.2f}",
            rich.markup.escape(outcome.sentence),
        )
    Console().print(table)
    _say(_conclusion(comparison, result["alpha"]))


def _conclusion(comparison: Comparison, alpha: float) -> str:
    """Says in words what was found, and how sure it is."""
    found = [outcome for outcome in comparison.outcomes if outcome.drifted]
    if not found:
        return "No drift was found: without drift, such differences are usual."
    windows = max(1, round(1 / max(min(outcome.p_adjusted for outcome in found), 1e-6)))
    return (
        f"Drift: {', '.join(outcome.name for outcome in found)}. Without drift, at most one of {windows:,} "
        f"windows shows so much; the rate of false alarms is {alpha:.1%}."
    )


def _utc(time: datetime.datetime | None) -> datetime.datetime | None:
    return None if time is None else time.replace(tzinfo=datetime.timezone.utc)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    app()
