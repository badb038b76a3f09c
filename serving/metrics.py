"""Measurements of the server in Prometheus' format."""

from __future__ import annotations

import contextlib

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Bounds of the histograms: seconds of a request, and images of a batch.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Metrics:
    """The measurements of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("model", "version")
        self._requests = Counter(
            "serving_requests", "Requests that were answered", (*labels, "code"), registry=self._registry
        )
        self._seconds = Histogram(
            "serving_request_seconds",
            "Seconds from the headers of a request to its answer",
            labels,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "serving_batch_images",
            "Images that were computed together",
            labels,
            buckets=_BATCHES,
            registry=self._registry,
        )
        self._answering = Gauge(
            "serving_answering_version",
            "Version that answers requests without a version",
            ("model",),
            registry=self._registry,
        )
        self._shadow = Counter(
            "serving_shadow_images",
            "Images that a shadow version computed, too, by whether it found the same class",
            (*labels, "agrees"),
            registry=self._registry,
        )
        self._abstained = Counter(
            "serving_abstained_images",
            "Images for which the model named no class, because it was unsure",
            labels,
            registry=self._registry,
        )
        self._logged = Counter(
            "serving_logged_images",
            "Images of requests that were chosen for the log, by whether they were written or why not",
            (*labels, "outcome"),
            registry=self._registry,
        )

    def answered(self, model: str, version: int | None, code: int, seconds: float) -> None:
        """Counts a request.

        Args:
          model: name of the model, or empty if there is none of this name.
          version: version that answered; None if none did.
          code: HTTP status of the answer.
          seconds: duration of the request.
        """
        labels = (model, "" if version is None else str(version))
        self._requests.labels(*labels, str(code)).inc()
        self._seconds.labels(*labels).observe(seconds)

    def batch(self, model: str, version: int, size: int) -> None:
        """Counts a batch of `size` images."""
        self._batches.labels(model, str(version)).observe(size)

    def answers(self, model: str, version: int | None) -> None:
        """Notes which version of a model answers; None if the model is gone."""
        if version is None:
            with contextlib.suppress(KeyError):
                self._answering.remove(model)
        else:
            self._answering.labels(model).set(version)

    def shadowed(self, model: str, version: int, agreeing: int, images: int) -> None:
        """Counts images that a shadow version has computed, and those for which it agrees."""
        self._shadow.labels(model, str(version), "yes").inc(agreeing)
        self._shadow.labels(model, str(version), "no").inc(images - agreeing)

    def abstained(self, model: str, version: int, images: int) -> None:
        """Counts images for which the model named no class."""
        self._abstained.labels(model, str(version)).inc(images)

    def logged(self, model: str, version: int, outcome: str, images: int) -> None:
        """Counts images of requests that were chosen for the log, by what became of them."""
        if images:
            self._logged.labels(model, str(version), outcome).inc(images)

    def text(self) -> bytes:
        """Returns all measurements."""
        return prometheus_client.generate_latest(self._registry)
