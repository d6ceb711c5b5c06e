"""The extension API, in one page. A plugin imports only `diagnose`.

A *reader* is the parse half of a probe: bytes of a document to facts, pure. It runs on every
document that holds one of its `needles`, whatever the file is called and whoever made it.

    class MyReader:
        name = "my_tool"                       # shown as inputs[].recognised_as
        needles = (b"# my_tool version",)      # any of these bytes -> parse is called
        def parse(self, doc: Document) -> Iterator[Fact]: ...

Entry points (group -> object):
    diagnose.probes       a function returning a list of readers
    diagnose.collectors   a function returning a list of collectors
    diagnose.causes       a package that holds signals/ marks/ causes/ trees/ words/ probes/ as YAML
The object or its module declares ``DIAGNOSE_API = 1``. What fails to load is skipped and listed
by `diagnose doctor`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Protocol

from .document import Document
from .models import Fact

API = 1

# Built-in reader modules, through the same door: each has `READERS`.
BUILTIN = (
    "fleet_table",
    "nccl_log", "nccl_tests", "nccl_torch", "nvidia_smi", "nvidia_smi_q", "nvidia_smi_csv", "topology", "dmesg", "oom",
    "host", "host_load", "env_dump", "container", "rdma", "ucx", "mpi", "nixl", "kv_stages",
    "serving_log", "serving_metrics", "serving_bench", "serving_args", "serving_procs", "serving_moe",
    "serving_sched", "serving_stages", "serving_llama", "serving_versions",
    "model_config", "kineto", "nsight", "torch_text",
    "nccl_trials", "nccl_samples", "nccl_paths", "nccl_ras", "nccl_inspector", "nccl_xml", "nccl_hosts", "siblings",
    "rank_lines", "code_notes", "reruns", "traffic_rows", "rank_notes",
    "dcgm", "gpu_tools", "engine_lines", "load_tools", "request_trace", "proxy", "small_notes",
    "allocator", "placement", "copy_notes", "bench_json", "served", "live_host", "live_nccl", "live_ucx",
    "rdma_sysfs", "live_nixl", "live_repeat", "splits", "columns", "engine_stats", "host_settings",
    "plateau", "saves",
    "client_bounds", "answer_ends", "registrations", "version_counts", "named_ports", "weight_reads", "piece_sizes",
    "rank_ranges", "device_use", "answers", "security_groups", "hardware_ways",
    "net_words", "pair_words", "levers", "plain_turns", "control_rows", "prompt_code",
    "rank_standing", "host_waits", "kv_moments", "numa_rows", "form_rows",
    "token_work", "turns", "path_bytes", "clock", "pci_acs", "bench_blocks", "engine_config", "stack_dump",
    "monitor_pages", "pasted_tools", "quantities", "overflow", "request_spans", "stream_arrival", "twin_states",
    "model_rows", "load_check", "moves", "settled", "past_events",
    "generic",
)  # fmt: skip


class Reader(Protocol):
    """What a reader looks like. `parse` may raise `ParseError` and nothing else.

    A reader may also have ``owns(doc) -> bool``: True for a document that is its format from end to end
    (a trace, a database), on which then no other reader and no mark runs; or ``beside``, a frozenset of names of
    readers that run there as well, and the marks with them.
    """

    @property
    def name(self) -> str:
        """What `inputs[].recognised_as` calls it."""
        ...

    @property
    def needles(self) -> tuple[bytes, ...]:
        """Bytes of which any one in a document makes `parse` run."""
        ...

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of `doc`, in order of their first byte. Figures must stand in the text."""
        ...


@lru_cache(maxsize=8)
def installed(group: str) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """What installed plugins offer under an entry-point group, functions called, and what failed to load."""
    found: list[Any] = []
    failed: list[str] = []
    for entry in entry_points(group=group):
        try:
            made = entry.load()
            api = getattr(made, "DIAGNOSE_API", None) or getattr(import_module(entry.module), "DIAGNOSE_API", None)
            if api != API:
                raise TypeError(f"declares API {api}, this is {API}")
            found.append(list(made()) if callable(made) else made)
        except Exception as err:  # a stranger's code: whatever it raises is reported, never fatal
            failed.append(f"{entry.name}: {err}")
    return tuple(found), tuple(failed)


@lru_cache(maxsize=1)
def readers() -> tuple[tuple[Reader, ...], tuple[str, ...]]:
    """All readers, built-in and installed, and what failed to load."""
    found: list[Reader] = []
    for module in BUILTIN:
        found.extend(import_module(f"diagnose.probes.{module}").READERS)
    made, failed = installed("diagnose.probes")
    return (*found, *(reader for readers in made for reader in readers)), failed


def catalogue_roots() -> tuple[Traversable, ...]:
    """Folders of installed plugins that hold catalogue YAML."""
    return tuple(files(package) for package in installed("diagnose.causes")[0])


def failed() -> list[str]:
    """Installed plugins that were left out, each with the reason."""
    groups = ("diagnose.probes", "diagnose.collectors", "diagnose.causes")
    return [f"{group}: {text}" for group in groups for text in installed(group)[1]]
