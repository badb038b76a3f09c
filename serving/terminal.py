"""What the commands of this package say on the terminal."""

import sys
from typing import NoReturn


def fail(message: str, status: int = 1) -> NoReturn:
    """Ends the program with an error message on standard error, and an exit status."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(status)
