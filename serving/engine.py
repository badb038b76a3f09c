"""Answers requests with the models of a repository: limits, batches, canary, shadow and measurements."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving import values
from serving.batching import Batcher
from serving.comparison import COMPARED, Comparison
from serving.errors import RequestError
from serving.metrics import Metrics
from serving.repository import Repository
from serving.request_log import LogOptions, RequestLog
from serving.saved_model import Model

_LOG = logging.getLogger("serving")
# Batches of different models, versions or signatures that are computed at the same time.
_THREADS = 2
_ANSWERED, _OVERLOADED, _FAILED, _NOT_READY = 200, 429, 500, 503


@dataclass(frozen=True)
class Limits:
    """What the server accepts, and how it forms batches.

    Attributes:
      max_batch: largest batch, in images; larger requests are split.
      batch_wait: longest time, in seconds, for which a batch waits for further requests.
      max_body: largest body of a request, in bytes.
      max_pixels: most pixels of all images of a request, and of a batch.
      max_concurrent: requests that are read, wait or are computed at the same time; further ones are refused.
      refresh: seconds between two looks for new versions.
    """

    max_batch: int = 64
    batch_wait: float = 0.002
    max_body: int = 32 * 2**20
    max_pixels: int = 100_000_000
    max_concurrent: int = 256
    refresh: float = 1.0


class Engine:
    """Answers requests; everything but `__init__` and `watch` is called in the thread of the event loop.

    Attributes:
      repository: the models.
      limits: what is accepted.
      metrics: measurements.
      comparisons: model -> comparison of its shadow with the version that answers.
      log: takes a share of the requests; None if none are logged.
    """

    def __init__(self, root: Path, limits: Limits, log: LogOptions | None = None) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.repository = Repository(root, self._note_change)
        self.comparisons: dict[str, Comparison] = {}
        self.log = RequestLog(log, self.metrics) if log is not None else None
        self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="model")
        # By signature. The batchers of a version go when it is unloaded.
        self._batchers: weakref.WeakKeyDictionary[Model, dict[str, Batcher]] = weakref.WeakKeyDictionary()
        self._active = 0
        self._shadow_task: asyncio.Task[None] | None = None

    def watch(self, stop: threading.Event) -> None:
        """Looks for new versions until `stop` is set."""
        problem = ""
        while not stop.is_set():
            try:
                self.repository.refresh()
                problem = ""
            except Exception as error:  # a folder that cannot be read for a moment must not end the server
                if str(error) != problem:
                    _LOG.exception("new versions cannot be looked for; the server goes on with those it has")
                problem = str(error)
            stop.wait(self.limits.refresh)

    @contextlib.contextmanager
    def answering(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Model]:
        """Admits a request, finds the version that answers it, and measures how that goes.

        A request counts from before its body is read until it is answered.

        Args:
          name: name of the model.
          version: number of a version; None lets the routes decide.
          label: `stable` or `canary`, instead of a number.

        Yields:
          The version that answers.

        Raises:
          RequestError: there are too many requests already, there is no such model or version, or the server
            failed while it answered.
        """
        start = time.perf_counter()
        model, status = None, _FAILED
        try:
            with self._admitted():
                model = self.repository.find(name, version, label)
                yield model
            status = _ANSWERED
        except RequestError as error:
            status = error.status
            raise
        except Exception:
            _LOG.exception("model %s: a request failed", name)
            raise RequestError(_FAILED, "the server failed; its log has the reason") from None
        finally:
            # Names that clients made up must not become labels.
            known, number = (name, model.version) if model else ("", None)
            self.metrics.answered(known, number, status, time.perf_counter() - start)

    async def run(
        self, name: str, model: Model, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Computes the outputs of a request.

        Args:
          name: name of the model.
          model: the version that answers.
          signature: name of the signature.
          inputs: name -> values of each input.

        Raises:
          RequestError: the request is too large, or the model cannot compute with it.
        """
        count = functools.partial(values.count_pixels, inputs, self.limits.max_pixels)
        is_large = len(next(iter(inputs.values()))) > self.limits.max_batch
        # The headers of some thousand images take a while to read, in which others are to be answered.
        pixels = await asyncio.to_thread(count) if is_large else count()
        start = time.perf_counter()
        outputs = await self._compute(name, model, signature, inputs, pixels)
        seconds = time.perf_counter() - start
        if "abstained" in outputs:
            self.metrics.abstained(name, model.version, int(outputs["abstained"].sum()))
        if self.log is not None:
            self.log.offer(name, model, signature, inputs)
        shadow = self.repository.shadow(name)
        if (
            shadow is not None
            and model is self.repository.stable(name)
            and shadow.outputs.get(signature, {}).keys() & outputs.keys() >= COMPARED
            and (self._shadow_task is None or self._shadow_task.done())
        ):
            # The shadow leaves out the requests that arrive while it is busy.
            self._shadow_task = asyncio.create_task(
                self._compare(name, (model, shadow), signature, inputs, pixels, outputs, seconds)
            )
        return outputs

    def check_ready(self) -> None:
        """Checks that models answer.

        Raises:
          RequestError: no model is loaded yet.
        """
        if not self.repository.is_ready():
            raise RequestError(_NOT_READY, "no model is loaded yet", retry_after=5)

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._active >= self.limits.max_concurrent:
            raise RequestError(_OVERLOADED, "too many requests wait already; try again", retry_after=1)
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

    async def _compute(
        self, name: str, model: Model, signature: str, inputs: Mapping[str, np.ndarray], pixels: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Computes the outputs of a request, in parts if it is larger than a batch.

        One part follows the other, so that smaller requests of others come between.
        """
        size, most = len(pixels), self.limits.max_batch
        if size <= most:
            return await self._compute_batch(name, model, signature, inputs, int(pixels.sum()))
        parts = []
        for start in range(0, size, most):
            part = slice(start, start + most)
            try:
                outputs = await self._compute_batch(
                    name,
                    model,
                    signature,
                    {key: value[part] for key, value in inputs.items()},
                    int(pixels[part].sum()),
                )
            except RequestError as error:
                # The message counts the images of the part.
                place = f"images {start + 1} to {min(start + most, size)} of {size}"
                raise RequestError(error.status, f"{place}: {error.message}", error.retry_after) from None
            parts.append(outputs)
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    async def _compute_batch(
        self, name: str, model: Model, signature: str, inputs: Mapping[str, np.ndarray], pixels: int
    ) -> dict[str, np.ndarray]:
        batchers = self._batchers.setdefault(model, {})
        if signature not in batchers:
            batchers[signature] = Batcher(
                self._pool,
                max_batch=self.limits.max_batch,
                max_pixels=self.limits.max_pixels,
                wait=self.limits.batch_wait,
                on_batch=functools.partial(self.metrics.batch, name, model.version),
            )
        return await batchers[signature].run(functools.partial(model.run, signature), inputs, pixels)

    async def _compare(
        self,
        name: str,
        models: tuple[Model, Model],
        signature: str,
        inputs: Mapping[str, np.ndarray],
        pixels: np.ndarray,
        outputs: Mapping[str, np.ndarray],
        seconds: float,
    ) -> None:
        """Lets the shadow compute a request that was answered, and compares the outputs."""
        model, shadow = models
        start = time.perf_counter()
        try:
            answer = await self._compute(name, shadow, signature, inputs, pixels)
        except Exception as error:  # a shadow must not disturb anything
            _LOG.warning("model %s: shadow %s: %s", name, shadow.version, error)
            return
        versions = (model.version, shadow.version)
        comparison = self.comparisons.get(name)
        if comparison is None or comparison.versions != versions:
            comparison = self.comparisons[name] = Comparison(versions)
        agreeing = comparison.add(outputs, answer, (seconds, time.perf_counter() - start))
        self.metrics.shadowed(name, shadow.version, agreeing, len(answer["class_name"]))

    def _note_change(self, name: str) -> None:
        model = self.repository.stable(name)
        self.metrics.answers(name, model.version if model else None)
        if self.log is not None and model is not None:
            self.log.check(name, model)
