"""Prometheus metrics of a server. Updated by `guard.py`, `scheduler.py`, `chat_completions.py` and `app.py`."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters, gauges and histograms, in a separate registry for every application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        seconds: dict[str, Any] = {"buckets": SECONDS_BUCKETS, "registry": registry}
        self.requests = Counter("pvc_requests", "Requests by route, status.", ["route", "status"], registry=registry)
        self.open_requests = Gauge("pvc_requests_open", "Requests that wait or are answered.", registry=registry)
        self.phase_seconds = Histogram("pvc_phase_seconds", "Time by phase.", ["phase"], **seconds)
        self.first_token_seconds = Histogram("pvc_first_token_seconds", "Until the first token.", **seconds)
        self.tokens = Counter("pvc_tokens", "Tokens by kind.", ["kind"], registry=registry)
        self.step_seconds = Histogram("pvc_step_seconds", "Time of a decoding step.", **seconds)
        self.batch_sizes = Histogram(
            "pvc_step_answers", "Answers in a decoding step.", buckets=BATCH_SIZE_BUCKETS, registry=registry
        )
        self.rejected_media = Counter("pvc_media_refused", "Rejected media by error code.", ["code"], registry=registry)
        self.cache_lookups = Counter("pvc_cache", "Lookups in the visual cache.", ["result"], registry=registry)
        self.open_answers = Gauge("pvc_answers_open", "Answers that are being generated.", registry=registry)
        self.decoding_media = Gauge("pvc_media_decoding", "Media that are being decoded.", registry=registry)
        self.workers = Gauge("pvc_decoders", "Decoding workers by how they ended.", ["fate"], registry=registry)
        self.cache_bytes = Gauge("pvc_cache_bytes", "Bytes of the visual cache.", registry=registry)
        self.open_streams = Gauge("pvc_streams_open", "Live videos.", registry=registry)

    def observe_phase(self, name: str, seconds: float) -> None:
        """Record the time of one phase of a request.

        Args:
            name: "queue", "read", "decode", "encode" or "prefill".
            seconds: its duration.
        """
        self.phase_seconds.labels(name).observe(seconds)

    def observe_step(self, batch_size: int, seconds: float) -> None:
        """Record one decoding step.

        Args:
            batch_size: number of answers in the step.
            seconds: its duration.
        """
        self.step_seconds.observe(seconds)
        self.batch_sizes.observe(batch_size)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


__all__ = ["Metrics"]
