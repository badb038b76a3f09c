"""The command `python -m serving.predict`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import rich.box
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from serving import atomic_file, folders, routing, terminal
from serving.predict.images import Image, Search

if TYPE_CHECKING:
    import pyarrow as pa

    from serving.predict.answers import Answerer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

_ROOT = Path("runs/serving")
_SOME_FAILED = 3  # exit status
# Images that the table and the page show, and how many of those without an answer they show beyond them.
_TABLE, _PAGE, _FAILED = 40, 200, 20
_OUT = (".parquet", ".csv", ".jsonl")
_HTML = (".html", ".htm")
_PLAIN_WIDTH = 160  # columns of output that does not go to a terminal; wide enough for paths


class _Shown:
    """The first answers, and the first of those images that have none.

    Attributes:
      rows: rows of the answers.
      pictures: what `picture` returned for each of them.
    """

    def __init__(self, limit: int, picture: Callable[[bytes], str]) -> None:
        self.rows: list[dict[str, Any]] = []
        self.pictures: list[str] = []
        self._limit, self._picture = limit, picture
        self._seen = self._failed = 0

    def add(self, images: Sequence[Image], answers: pa.RecordBatch) -> None:
        """Keeps what is to be shown of a batch."""
        if self._seen >= self._limit and answers.column("error").null_count == len(images):
            return
        for image, row in zip(images, answers.to_pylist(), strict=True):
            self._seen += 1
            if self._seen > self._limit:
                if row["error"] is None or self._failed == _FAILED:
                    continue
                self._failed += 1
            self.rows.append(row)
            self.pictures.append(self._picture(image.encoded))


@app.command(cls=terminal.Command)
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="Image files, folders, patterns such as `'photos/*.jpg'`, TFRecord files, and `-` for one "
            "image on standard input.",
            show_default=False,
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="A pushed version; or a folder of versions, of which the one that answers is taken: the "
            "newest, unless `python -m serving.versions` has chosen another; or a folder with one such "
            "folder.",
        ),
    ] = _ROOT,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Number of classes to name.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all answers to a .parquet, .csv or .jsonl file."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page that shows the images with their answers."),
    ] = None,
) -> None:
    """Answers images with a pushed model, and shows the most probable classes.

    Folders are searched with all folders in them, for files with the suffixes of images, and for TFRecords:
    files with `tfrecord` in their names, compressed or not, of tf.train.Examples with the feature `image`.
    Hidden files are left out.

    An image that cannot be answered gets a line with the reason. The files of `--out` and `--html` are
    complete or not there.

    **Exit status:** 0 if all images were answered, 3 if some were not, 1 after an error, 2 after a wrong
    command line.

    `python -m pipeline.predict_images` does the same with Beam, for more images than one machine can answer.
    """
    _check_file(out, "--out", _OUT)
    _check_file(html, "--html", _HTML)
    search = _search(images)
    version = _version(model)
    try:
        failed = _run(_load(version, top), version, search, out, html)
    except BrokenPipeError:
        raise
    except OSError as error:
        terminal.fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    if failed:
        raise typer.Exit(_SOME_FAILED)


def _run(answerer: Answerer, version: Path, search: Search, out: Path | None, html: Path | None) -> int:
    """Answers all images, and returns the number of those without an answer."""
    from serving.predict import answers, files, page  # noqa: PLC0415 - see `_load`

    table = _Shown(_TABLE, lambda _: "")
    gallery = _Shown(_PAGE if html else 0, page.thumbnail if html else lambda _: "")
    count = failed = unsure = 0
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        # The hidden files take their places when everything else is done.
        out_part = stack.enter_context(atomic_file.replacing(out)) if out else None
        html_part = stack.enter_context(atomic_file.replacing(html)) if html else None
        with contextlib.ExitStack() as writing:
            write = None
            if out and out_part:
                write = writing.enter_context(files.writer(out_part, out.suffix.lower(), answerer.schema))
            advance = writing.enter_context(_progress(search))
            batches = writing.enter_context(contextlib.closing(answers.answer_all(answerer, search.images())))
            for size, images, batch in batches:
                count += len(images)
                failed += len(images) - batch.column("error").null_count
                unsure += batch.column("abstained").true_count
                table.add(images, batch)
                gallery.add(images, batch)
                if write:
                    write(batch)
                advance(size, count)
        seconds = time.perf_counter() - start
        if html_part:
            text = page.render(str(version), gallery.rows, gallery.pictures, count, failed)
            html_part.write_text(text, encoding="utf-8")
    _show(table.rows, count)
    if failed:
        _say(f"{failed:,} of {count:,} images have no answer of {version}")
    else:
        _say(
            f"{count:,} {'image' if count == 1 else 'images'} answered by {version}, {count / seconds:,.0f}/s"
        )
    if unsure:
        shown = "1 image has" if unsure == 1 else f"{unsure:,} images have"
        _say(f"{shown} no class, because the model is unsure")
    if search.left_out:
        kinds = ", ".join(f"{suffix}: {number:,}" for suffix, number in search.left_out.most_common())
        _say(f"left out, as files that are neither images nor TFRecords: {kinds}")
    return failed


def _load(version: Path, top: int) -> Answerer:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # On some CPUs TensorFlow switches oneDNN off by default, and is slower.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Packages that TensorFlow imports warn of Python 3.10.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    with Console(stderr=True).status(f"Loading {version}"):
        # These imports take seconds; wrong arguments are reported before.
        import tensorflow as tf  # noqa: PLC0415

        from serving.errors import RequestError  # noqa: PLC0415
        from serving.predict.answers import Answerer  # noqa: PLC0415
        from serving.saved_model import Model  # noqa: PLC0415

        tf.get_logger().setLevel("ERROR")
        try:
            return Answerer(Model(version), top)
        except (OSError, ValueError, RequestError) as error:
            terminal.fail(f"{version}: the model cannot be used: {error}")


@contextlib.contextmanager
def _progress(search: Search) -> Iterator[Callable[[int, int], None]]:
    """Shows the progress on a terminal.

    Yields:
      A function of the bytes that have been answered since its last call, and of the number of all images
      that have been answered.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda size, images: None
        return
    total = sum(found.size for found in search.files())
    columns = TextColumn("{task.fields[images]:,} images"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total or None, images=0)
        yield lambda size, images: bar.update(task, advance=size, images=images)


def _show(rows: Sequence[dict[str, Any]], count: int) -> None:
    from serving.predict import page  # noqa: PLC0415

    table = Table("image", "classes", box=rich.box.SIMPLE)
    for row in rows:
        if row["error"] is not None:
            answer = Text(f"no answer: {_printable(row['error'])}", style="red")
        else:
            best = zip(row["top_k_names"], row["top_k_probabilities"], strict=True)
            texts = [Text(f"{name} {page.percent(value)}") for name, value in best]
            if row["abstained"]:
                texts.insert(0, Text("unsure", style="yellow"))
            answer = Text("   ").join(texts)
        table.add_row(Text(_printable(page.name(row)), overflow="fold"), answer)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    console.print(table)
    if count > len(rows):
        console.print(
            f"{len(rows)} of {count:,} images: the first {_TABLE}, and at most {_FAILED} more without an "
            "answer. --out FILE has all.",
            highlight=False,
        )


def _printable(text: str) -> str:
    """Returns a text for a terminal, in which control characters of file names do nothing."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _check_file(path: Path | None, option: str, suffixes: tuple[str, ...]) -> None:
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise typer.BadParameter(
            f"expected {' or '.join(suffixes)} at the end, found {path.name}", param_hint=option
        )
    terminal.check_output_file(path, option)


def _search(arguments: list[str]) -> Search:
    try:
        search = Search(arguments)
    except FileNotFoundError as error:
        terminal.fail(str(error))
    if next(search.files(), None) is None:
        terminal.fail(
            f"{', '.join(arguments)}: expected images or TFRecords, which are files with tfrecord in their "
            "names; found none"
        )
    return search


def _version(path: Path) -> Path:
    """Returns the version that a path names, or the one below it that answers, as with the server."""
    if (path / folders.SAVED_MODEL).is_file():
        return path
    versions: dict[int, Path] = {}
    if path.is_dir():
        models = {} if folders.versions(path) else folders.models(path)
        if len(models) > 1:
            listed = ", ".join(f"{path / name}" for name in models)
            terminal.fail(
                f"--model {path}: expected one model, found several; give one of {listed} to --model"
            )
        path = next(iter(models.values()), path)
        versions = folders.versions(path)
    if not versions:
        terminal.fail(
            f"--model {path}: expected a pushed model, such as runs/serving/NAME/VERSION, found "
            f"{'none' if path.is_dir() else 'no such folder'}. A run of local_runner.py that blesses its "
            "model writes it"
        )
    try:
        stable = routing.read(path).stable_of(versions)
    except routing.RoutingError as error:
        terminal.fail(str(error))
    if stable is None:
        terminal.fail(
            f"--model {path}: no version answers, as its {routing.FILE} says; name one of "
            f"{', '.join(map(str, sorted(versions)))}, or promote one with python -m serving.versions"
        )
    return versions[stable]


class _StopError(BaseException):
    """A signal to stop; nothing handles it, apart from removing unfinished files."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _StopError(128 + number)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, _stop)
    try:
        app(prog_name="python -m serving.predict")
    except _StopError as stop:
        # Without waiting for threads, one of which may be reading standard input.
        os._exit(stop.args[0])
