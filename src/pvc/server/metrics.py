"""What a server counts, for Prometheus; every application has a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ANSWERS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters, gauges and histograms."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("pvc_requests", "Requests by route, status.", ["route", "status"], registry=own)
        self.waiting = Gauge("pvc_requests_open", "Requests that wait or are answered.", registry=own)
        self.phases = Histogram("pvc_phase_seconds", "Time by phase.", ["phase"], buckets=SECONDS, registry=own)
        self.first = Histogram("pvc_first_token_seconds", "Until the first token.", buckets=SECONDS, registry=own)
        self.tokens = Counter("pvc_tokens", "Tokens by kind.", ["kind"], registry=own)
        self.steps = Histogram("pvc_step_seconds", "Time of a decoding step.", buckets=SECONDS, registry=own)
        self.rows = Histogram("pvc_step_answers", "Answers in a decoding step.", buckets=ANSWERS, registry=own)
        self.refused = Counter("pvc_media_refused", "Media that were refused, by reason.", ["code"], registry=own)
        self.cache = Counter("pvc_cache", "Media that were encoded before, and not.", ["result"], registry=own)
        self.answers = Gauge("pvc_answers_open", "Answers that are being generated.", registry=own)
        self.decoding = Gauge("pvc_media_decoding", "Media that are being decoded.", registry=own)
        self.children = Gauge("pvc_decoders", "Decoders by what became of them.", ["fate"], registry=own)
        self.kept = Gauge("pvc_cache_bytes", "Bytes of visual tokens that are kept.", registry=own)
        self.streams = Gauge("pvc_streams_open", "Live videos.", registry=own)

    def phase(self, name: str, seconds: float) -> None:
        """Time of a phase of a request: queue, read, decode, encode, prefill."""
        self.phases.labels(name).observe(seconds)

    def step(self, rows: int, seconds: float) -> None:
        """One decoding step."""
        self.steps.observe(seconds)
        self.rows.observe(rows)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


__all__ = ["Metrics"]
