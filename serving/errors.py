"""The error of requests that cannot be answered."""

from __future__ import annotations


class RequestError(Exception):
    """A request that cannot be answered.

    Attributes:
      status: HTTP status of the answer, such as 400.
      message: what was expected and what was found.
      retry_after: seconds after which the client should try again; None if that is of no use.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
