"""Answers concurrent requests together: those that wait while a batch is computed become the next batch."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from serving.errors import RequestError

Arrays = Mapping[str, np.ndarray]
# Computes outputs from inputs; the first dimension of all of them is the batch.
Compute = Callable[[Arrays], dict[str, np.ndarray]]


@dataclass(frozen=True)
class _Request:
    inputs: Arrays
    size: int
    pixels: int
    compute: Compute
    answer: asyncio.Future[dict[str, np.ndarray]]

    @property
    def kind(self) -> tuple[tuple[str, np.dtype, tuple[int, ...]], ...]:
        """What has to be equal for two requests to be one batch: types and shapes without the batch."""
        return tuple((name, value.dtype, value.shape[1:]) for name, value in sorted(self.inputs.items()))


class Batcher:
    """Combines requests to one signature of one model.

    One batch is computed at a time, because TensorFlow uses all cores for it. A request that arrives alone is
    computed at once. If the last batch held several requests, others are likely to follow, and the next batch
    waits for them for a moment.

    Args:
      pool: threads that compute.
      max_batch: largest batch, in images.
      max_pixels: most pixels of the images of a batch, unless a single request has more.
      wait: longest time, in seconds, for which a batch waits for further requests.
      on_batch: called with the number of images of each batch.
    """

    def __init__(
        self,
        pool: concurrent.futures.Executor,
        *,
        max_batch: int,
        max_pixels: int,
        wait: float,
        on_batch: Callable[[int], None],
    ) -> None:
        self._pool = pool
        self._max_batch = max_batch
        self._max_pixels = max_pixels
        self._wait = wait
        self._on_batch = on_batch
        self._waiting: list[_Request] = []
        self._arrived = asyncio.Event()
        self._last_requests = 1
        # Runs while requests wait. Without any, nothing here refers to the model, so that it can be unloaded.
        self._task: asyncio.Task[None] | None = None

    async def run(self, compute: Compute, inputs: Arrays, pixels: int = 0) -> dict[str, np.ndarray]:
        """Computes the outputs of a request, together with other ones that wait.

        Args:
          compute: computes a batch, in a thread of the pool; the same function for all requests.
          inputs: name -> values of each input.
          pixels: number of pixels of all images of the request.

        Raises:
          RequestError: the model cannot compute with these inputs.
        """
        size = len(next(iter(inputs.values())))
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(inputs, size, pixels, compute, answer))
        self._arrived.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            await self._gather()
            batch = self._take()
            self._last_requests = len(batch)
            await self._answer(batch)

    async def _gather(self) -> None:
        """Waits for requests that are likely to follow: as many as the last batch had."""
        # One turn of the event loop reads the requests that the sockets hold already.
        await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + self._wait
        while len(self._waiting) < self._last_requests:
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), remaining)
            except asyncio.TimeoutError:
                return

    def _take(self) -> list[_Request]:
        """Removes the next batch from the waiting requests: the oldest one and those that fit it."""
        first, *others = self._waiting
        batch, rest, size, pixels = [first], [], first.size, first.pixels
        for request in others:
            if (
                request.kind == first.kind
                and size + request.size <= self._max_batch
                and pixels + request.pixels <= self._max_pixels
            ):
                batch.append(request)
                size += request.size
                pixels += request.pixels
            else:
                rest.append(request)
        self._waiting = rest
        return batch

    async def _answer(self, batch: list[_Request]) -> None:
        loop = asyncio.get_running_loop()
        try:
            inputs = {
                name: np.concatenate([request.inputs[name] for request in batch]) for name in batch[0].inputs
            }
            outputs = await loop.run_in_executor(self._pool, batch[0].compute, inputs)
        except RequestError as error:
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            # One request must not spoil the others: each is computed alone.
            for request in batch:
                await self._answer([request])
            return
        except Exception as error:
            for request in batch:
                _fail(request, error)
            return
        self._on_batch(sum(request.size for request in batch))
        start = 0
        for request in batch:
            end = start + request.size
            if not request.answer.done():
                request.answer.set_result({name: value[start:end] for name, value in outputs.items()})
            start = end


def _fail(request: _Request, error: Exception) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)
