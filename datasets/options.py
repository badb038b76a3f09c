"""Options that the command lines of the importers share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ValFraction = Annotated[
    float, typer.Option(min=0, max=1, help="Fraction of each class for val, unless the source has val.")
]
TestFraction = Annotated[
    float, typer.Option(min=0, max=1, help="Fraction of each class for test, unless the source has test.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the splits and of the order of the examples.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out images that cannot be used instead of stopping.")
]
Report = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write an HTML page with the summary and images of every class."),
]
