"""Pages of monitors beside the engine's own: node_exporter, cAdvisor, kube-state-metrics, Envoy, nginx, Ray Serve.

Source: node_exporter 1.8 (`infiniband_linux.go`, `netstat_linux.go`), cAdvisor 0.49 (`prometheus.go`),
kube-state-metrics 2.13 (`pod.go`), Envoy 1.31 (cluster statistics), nginx `stub_status`, HAProxy 2.8,
nvidia_gpu_exporter 1.2 (names of `nvidia-smi --query-gpu`), Ray 2.40 (`serve/_private`),
LMCache 0.3 (`observability.py`), SGLang 0.5 (`metrics/collector.py`: disaggregation, graphs, experts), vLLM 0.11
(`v1/metrics/loggers.py`: external cache, sleep state). Of a series that was read twice, the last reading counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import computed, divided, fact, metric_labels

_STEMS = (
    "node_netstat_Tcp_", "node_infiniband_", "node_load1", "node_memory_Mem", "container_memory_working_set_bytes",
    "container_spec_memory_limit_bytes", "container_oom_events_total", "kube_pod_container_resource_limits",
    "nvidia_smi_clocks_", "nvidia_smi_ecc_errors_uncorrected", "haproxy_backend_current_queue",
    "ray_serve_", "envoy_cluster_", ".upstream_rq_", ".circuit_breakers.", "lmcache:", "vllm:engine_sleep_state",
    "vllm:external_prefix_cache_", "sglang:kv_transfer_", "sglang:is_cuda_graph", "sglang:eplb_balancedness",
    "sglang:num_prefill_inflight_queue", "sglang:num_decode_", "sglang:spec_accept_rate", "sglang:num_running_reqs",
    "sglang:num_queue_reqs", "sglang:token_usage",
)  # fmt: skip
_LINE = regex(
    r"""^[\s*•-]*(?P<name>(?:node|container|kube_pod|ray_serve|envoy_cluster|nvidia_smi|haproxy_backend)_\w+|(?:lmcache|vllm|sglang):\w+
            |cluster\.[\w.:|-]+\.(?:upstream_rq_\w+|circuit_breakers\.\w+\.\w+))
        (?P<labels>\{[^}]*\})?(?:\s*(?:=>|[:=|])\s*|\s+)
        (?P<value>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w.])""",
    re.VERBOSE,
)
_REASON = regex(r"nvidia_smi_clocks_(?:throttle|event)_reasons_([hs]w_\w+)")
_GIB = 2.0**-30

# name -> signal, unit, factor, label; a counter or queue at zero says nothing
_PLAIN: dict[str, tuple[str, str, float, str | None]] = {
    "node_load1": ("host.load", "count", 1.0, None),
    "node_memory_MemAvailable_bytes": ("host.memory.available", "GiB", _GIB, None),
    "node_memory_MemTotal_bytes": ("host.memory.total", "GiB", _GIB, None),
    "container_oom_events_total": ("host.memory.events", "count", 1.0, "oom_kill"),
    "sglang:kv_transfer_latency_ms": ("kv.xfer_time", "ms", 1.0, "sglang:kv_transfer_latency_ms"),
    "sglang:kv_transfer_speed_gb_s": ("kv.throughput", "GB/s", 1.0, "sglang:kv_transfer_speed_gb_s"),
    "sglang:kv_transfer_bootstrap_ms": ("kv.stage", "ms", 1.0, "bootstrap"),
    "sglang:kv_transfer_alloc_ms": ("kv.stage", "ms", 1.0, "allocation"),
    "sglang:spec_accept_rate": ("serving.accept_rate", "fraction", 1.0, None),
    "ray_serve_deployment_queued_queries": ("proxy.queued", "count", 1.0, "ray serve"),
    "haproxy_backend_current_queue": ("proxy.queued", "count", 1.0, "haproxy"),
    "nvidia_smi_ecc_errors_uncorrected_volatile_total": ("gpu.ecc.uncorrected", "count", 1.0, "volatile"),
    "lmcache:remote_ping_errors": ("kv.failed", "count", 1.0, "lmcache:remote_ping_errors"),
    "envoy_cluster_upstream_rq_pending_active": ("proxy.queued", "count", 1.0, "envoy"),
    "envoy_cluster_upstream_rq_pending_overflow": ("proxy.rejected", "count", 1.0, "envoy pending overflow"),
}
_PORT = {
    "link_downed": "link_downed", "link_error_recovery": "link_error_recovery", "symbol_error": "symbol_error",
    "port_errors_received": "port_rcv_errors", "port_discards_transmitted": "port_xmit_discards",
    "port_transmit_wait": "port_xmit_wait", "local_link_integrity_errors": "local_link_integrity_errors",
    "port_receive_remote_physical_errors": "port_rcv_remote_physical_errors",
}  # fmt: skip
_ENVOY = {"upstream_rq_pending_active": "envoy_cluster_upstream_rq_pending_active",
          "upstream_rq_pending_overflow": "envoy_cluster_upstream_rq_pending_overflow"}  # fmt: skip


@dataclass(frozen=True)
class _Sample:
    """The last reading of a series."""

    line: Line
    name: str
    labels: dict[str, str]
    value: float


def _where(sample: _Sample) -> tuple[str | None, str | None]:
    return sample.labels.get("pod"), sample.labels.get("container")


def _share(doc: Document, signal: str, part: _Sample, whole: _Sample, label: str, read: str, unit: str) -> Fact:
    """`part` over `whole`, both as read."""
    sides = tuple(fact(doc, s.line, read, s.value, unit, label=s.name) for s in (part, whole))
    return divided(signal, sides, "fraction", Subject(label=label), spans=sides[0].spans)


class Exporters:
    """Series of monitors, mapped to the signals that the tools themselves would give."""

    name = "exporter_metrics"
    needles: tuple[bytes, ...] = tuple(stem.encode() for stem in _STEMS[:-3])

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Plain readings first, then what two series say together."""
        series: dict[tuple[str, str], _Sample] = {}
        for line in doc.holding(*_STEMS):
            hit = _LINE.match(line.text)
            if hit is None:
                continue
            name = hit["name"].removesuffix("_total") if hit["name"].startswith(("lmcache:", "vllm:")) else hit["name"]
            made = _Sample(line, name, metric_labels(hit["labels"] or ""), float(hit["value"]))
            series[name, hit["labels"] or ""] = made
        for sample in series.values():
            yield from self._plain(doc, sample)
        by_name: dict[str, list[_Sample]] = {}
        for sample in series.values():
            by_name.setdefault(sample.name, []).append(sample)
        for joined in (self._tcp, self._external, self._experts, self._graphs, self._backlog, self._memory):
            yield from joined(doc, by_name)

    def _plain(self, doc: Document, s: _Sample) -> Iterator[Fact]:
        name = s.name
        if name.startswith("cluster."):
            if name.endswith("_open"):
                name = "envoy_cluster_circuit_breakers_open"
            else:
                name = _ENVOY.get(name.rpartition(".")[2], name)
        if name.startswith("envoy_cluster_circuit_breakers_") and name.endswith("_open"):
            if s.value == 1:
                yield fact(doc, s.line, "proxy.rejected", s.value, "count", label="envoy circuit breaker open")
        elif (reason := _REASON.fullmatch(name)) is not None:
            if s.value == 1:
                yield fact(doc, s.line, "gpu.throttle", "active", label=reason[1])
        elif name.startswith("node_infiniband_"):
            yield from self._port(doc, s)
        elif name == "kube_pod_container_resource_limits":
            what = s.labels.get("resource")
            if what == "cpu":
                yield fact(doc, s.line, "host.cpu.quota", s.value, "count", label="pod")
            elif what == "memory":
                yield fact(doc, s.line, "host.memory.limit", s.value * _GIB, "GiB", label="pod")
        elif name == "vllm:engine_sleep_state":
            if s.labels.get("sleep_state") == "awake" and s.value == 0:
                yield fact(doc, s.line, "serving.asleep", "awake 0")
        elif s.value > 0 and (known := _PLAIN.get(name)) is not None:
            signal, unit, factor, label = known
            yield fact(doc, s.line, signal, s.value * factor, unit, label=label)

    @staticmethod
    def _port(doc: Document, s: _Sample) -> Iterator[Fact]:
        nic = s.labels.get("device")
        if s.name == "node_infiniband_state_id":
            state = {1: "DOWN", 2: "INIT", 3: "ARMED", 4: "ACTIVE"}.get(int(s.value))
            if state is not None:
                yield fact(doc, s.line, "rdma.port.state", state, nic=nic)
        elif s.name == "node_infiniband_rate_bytes_per_second" and s.value > 0:
            yield fact(doc, s.line, "rdma.port.rate", s.value * 8e-9, "Gb/s", nic=nic)
        counter = _PORT.get(s.name.removeprefix("node_infiniband_").removesuffix("_total"))
        if counter is not None and s.value > 0:
            yield fact(doc, s.line, "rdma.counter", s.value, "count", label=counter, nic=nic)

    @staticmethod
    def _tcp(doc: Document, by: dict[str, list[_Sample]]) -> Iterator[Fact]:
        again, sent = by.get("node_netstat_Tcp_RetransSegs"), by.get("node_netstat_Tcp_OutSegs")
        if again and sent and sent[0].value >= again[0].value and sent[0].value > 10_000:
            yield _share(doc, "net.tcp.retransmit_share", again[0], sent[0], "host", "counter.read", "count")

    @staticmethod
    def _external(doc: Document, by: dict[str, list[_Sample]]) -> Iterator[Fact]:
        pairs = (
            ("vllm:external_prefix_cache_hits", "vllm:external_prefix_cache_queries"),
            ("lmcache:num_hit_tokens", "lmcache:num_requested_tokens"),
            ("lmcache:num_lookup_hits", "lmcache:num_lookup_tokens"),
        )
        for part, whole in pairs:
            hits, asked = by.get(part), by.get(whole)
            if hits and asked and asked[0].value >= max(hits[0].value, 10_000):
                yield _share(doc, "serving.external_hit_rate", hits[0], asked[0], part, "serving.counter", "count")

    @staticmethod
    def _experts(doc: Document, by: dict[str, list[_Sample]]) -> Iterator[Fact]:
        for s in by.get("sglang:eplb_balancedness", [])[-1:]:
            if 0 < s.value <= 1:
                yield fact(doc, s.line, "serving.mark.eplb", s.value, "count")
        counts = by.get("sglang:eplb_balancedness_count", [])
        for total, count in zip(by.get("sglang:eplb_balancedness_sum", []), counts, strict=False):
            if count.value > 0 and 0 < total.value / count.value <= 1:
                mean = total.value / count.value
                yield computed(doc, total.line, "serving.mark.eplb", mean, "count", "exporter_metrics")

    @staticmethod
    def _graphs(doc: Document, by: dict[str, list[_Sample]]) -> Iterator[Fact]:
        """An idle scheduler shows zero too: only with requests running does the gauge mean anything."""
        running = max((s.value for s in by.get("sglang:num_running_reqs", [])), default=0.0)
        graphs = [s for s in by.get("sglang:is_cuda_graph", []) if s.labels.get("engine_type") != "prefill"]
        if graphs and running > 0:
            off = all(s.value == 0 for s in graphs)
            yield fact(doc, graphs[0].line, "serving.decode_graph", "False" if off else "True", label="gauge")

    @staticmethod
    def _backlog(doc: Document, by: dict[str, list[_Sample]]) -> Iterator[Fact]:
        """Requests whose only business is their KV transfer, where they outnumber what runs and what queues."""
        others = [*by.get("sglang:num_running_reqs", []), *by.get("sglang:num_queue_reqs", [])]
        full = [s for s in by.get("sglang:token_usage", []) if s.value >= 0.9]
        for s in by.get("sglang:num_decode_prealloc_queue_reqs", []):
            if full and s.value >= 8:  # what waits for room in the decode engine's KV cache
                yield fact(doc, s.line, "serving.waiting", s.value, "count", label="decode prealloc queue")
        if not others:
            return
        most = max(s.value for s in others)
        for name in ("sglang:num_prefill_inflight_queue_reqs", "sglang:num_decode_transfer_queue_reqs"):
            for s in by.get(name, []):
                if s.value >= 8 and s.value > 2 * most:
                    yield fact(doc, s.line, "kv.backlog", s.value, "count", label=name[11:41])

    @staticmethod
    def _memory(doc: Document, by: dict[str, list[_Sample]]) -> Iterator[Fact]:
        limits = [s for s in by.get("container_spec_memory_limit_bytes", []) if s.value > 0]
        limits += [s for s in by.get("kube_pod_container_resource_limits", []) if s.labels.get("resource") == "memory"]
        for used in by.get("container_memory_working_set_bytes", []):
            limit = next((s for s in limits if _where(s) == _where(used)), None)
            if limit is not None and limit.value > 0:
                yield _share(doc, "container.memory_share", used, limit, "container", "counter.read", "count")


class NginxStatus:
    """`stub_status`: connections that were accepted and not handled met a limit of nginx."""

    name = "nginx_status"
    needles: tuple[bytes, ...] = (b"server accepts handled requests",)
    _row = regex(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s*$")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The three counters stand below their head."""
        head = False
        for line in doc.lines():
            hit = self._row.match(line.text) if head else None
            head = "server accepts handled requests" in line.text
            if hit is not None and int(hit[1]) - int(hit[2]) > 0.001 * int(hit[1]):
                lost = float(int(hit[1]) - int(hit[2]))
                yield computed(doc, line, "proxy.rejected", lost, "count", self.name, label="nginx connections")


READERS: list[Reader] = [Exporters(), NginxStatus()]
