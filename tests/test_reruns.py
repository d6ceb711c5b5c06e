"""Runs made again, traffic by interface and ceilings: what readers take from notes, and what rules make of it."""

from __future__ import annotations

from diagnose.probes.rank_notes import CacheGrowth, PinnedRanks, RankStacks
from diagnose.probes.reruns import ControlReader, RepeatReader, VariableRows, VersionRows
from diagnose.probes.traffic_rows import BacklogReader, CallSizes, ManyAtOnce, TrafficReader

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact
from diagnose.rules import RULES


def facts(reader: object, text: str) -> list[Fact]:
    """What one reader yields for a text."""
    return list(reader.parse(Document.of("note", text.encode())))  # type: ignore[attr-defined]


def rule(name: str, symptom: str, *texts: str) -> bool | None:
    """Outcome of a named predicate for a symptom and its texts."""
    docs = [Document.of(f"note{n}", text.encode()) for n, text in enumerate(texts)]
    return RULES[name](triage(symptom, docs).context).holds


def test_a_note_says_what_was_changed() -> None:
    """Behind ``with``, ``after`` and their like; a sentence without a figure gives nothing."""
    (got,) = facts(ControlReader(), "with the tuner .so renamed away: 478.9 GB/s")
    assert got.value == 478.9 and "tuner" in (got.subject.label or "")
    assert facts(ControlReader(), "with the tuner it is slow") == []
    assert [f.value for f in facts(ControlReader(), "GPU 1 with driver 550: 3 of 8 fail")] == []


def test_the_same_command_twice_names_what_lies_between() -> None:
    """The gain carries the lines in between; a status dump with equal keys is no repeat."""
    text = "ib_write_bw -d mlx5_2 -> 49.1\nsetpci -s 40:01.1 ECAP_ACS+6.w=0000\nib_write_bw -d mlx5_2 -> 195.2\n"
    (got,) = facts(RepeatReader(), text)
    assert round(float(got.value or 0), 2) == 3.98 and "ECAP_ACS" in (got.subject.label or "")
    assert facts(RepeatReader(), "Volatile\n DRAM Correctable : 2\nAggregate\n DRAM Correctable : 9\n") == []


def test_rows_of_releases_and_of_variables() -> None:
    """The worst release beside the best; a variable's row beside the run without, in the direction of the unit."""
    rows = "busbw GB/s\nlibnccl.so.2.26.2   46.8  46.9\nlibnccl.so.2.26.5   21.3  21.4\n"
    assert [f.subject.label for f in facts(VersionRows(), rows)] == ["nccl|2.26.5|2.26.2|busbw"]
    table = "latency, us\nas deployed          812\nNCCL_PROTO=Simple    401\nNCCL_PROTO=LL        815\n"
    assert [f.subject.label for f in facts(VariableRows(), table)] == ["NCCL_PROTO=Simple"]
    assert facts(VariableRows(), table.replace("latency, us", "")) == []


def test_traffic_backlog_and_sizes() -> None:
    """`sar` in kB/s, counters read twice, queues that overflow, the share of small calls."""
    sar = "Average: IFACE rxpck/s txpck/s rxkB/s txkB/s %ifutil\nAverage: ens3 8.0 8.0 1000000.0 900000.0 90.0\n"
    assert [(f.subject.nic, f.value) for f in facts(TrafficReader(), sar)] == [("ens3", 1.024)]
    twice = "/sys/class/infiniband/mlx5_0/ports/1/counters/port_xmit_data   before 8812   after 9912"
    assert [(f.signal, f.value) for f in facts(TrafficReader(), twice)] == [("counter.delta", 1100.0)]
    assert [f.value for f in facts(BacklogReader(), "TcpExtListenOverflows   41877   0.0")] == [41877.0]
    assert facts(BacklogReader(), "TcpExtListenOverflows   0   0.0\nLISTEN 0 128 0.0.0.0:22") == []
    log = "Message Size   Count   Total Latency(ms)\n 2.0 KB   51840   3120.1\n 128.0 MB   480   1402.5\n"
    (share,) = facts(CallSizes(), log)
    assert round(float(share.value or 0), 2) == 0.69
    flows = "path   1 flow alone   16 flows at once\nrack1 -> rack2   93.9   22.8\n"
    assert [f.signal for f in facts(ManyAtOnce(), flows)] == ["load.slows"]


def test_processes_and_caches() -> None:
    """A stack with a collective in it is no rank that works elsewhere; a cache that stands still does not grow."""
    stack = "py-spy dump, rank 0:\n    save_checkpoint (trainer.py:911)\n    main (train.py:77)\n"
    assert [f.subject.rank for f in facts(RankStacks(), stack)] == [0]
    assert facts(RankStacks(), stack.replace("save_checkpoint", "all_reduce")) == []
    pinned = "pid 1's current affinity list: 0-23\npid 2's current affinity list: 0-23\n"
    assert [(f.subject.label, f.value) for f in facts(PinnedRanks(), pinned)] == [("0-23", 2.0)]
    assert [f.value for f in facts(CacheGrowth(), "~/.triton/cache: step 10: 20  step 90: 200")] == [10.0]
    assert facts(CacheGrowth(), "~/.triton/cache: step 10: 200  step 90: 214") == []


_ROW = "  8589934592    134217728     float    none      -1    21701  395.83  371.09      0    21709  395.69  370.96      0"  # noqa: E501
_HEAD = "# all_gather_perf, 16 ranks on 2 hosts\n"


def test_rails_are_a_ceiling_only_when_they_are_met() -> None:
    """Eight adapters of 400 Gb/s give 400 GB/s; half of it is no health, and a faster rerun takes it away."""
    asked = "Is this normal across two nodes? 8x 400G each."
    assert rule("nodes_at_their_rails", asked, _HEAD + _ROW) is True
    assert (
        rule("nodes_at_their_rails", asked, _HEAD + _ROW.replace("371.09", "190.00").replace("370.96", "189.9")) is None
    )
    assert rule("nodes_at_their_rails", asked, _HEAD + _ROW, "with the other switch port: 444 GB/s") is None


def test_a_narrow_slot_is_no_ceiling() -> None:
    """The slot has to run at its own width."""
    row = "   536870912     134217728     float     sum      -1    22954   23.39   23.39      0    22961   23.38   23.38      0"  # noqa: E501
    wide = "3b:00.0 LnkSta: Speed 16GT/s, Width x16"
    assert rule("pair_fills_its_slot", "Only 23 GB/s, is that normal?", row, wide) is True
    assert rule("pair_fills_its_slot", "Only 23 GB/s, is that normal?", row, wide.replace("x16", "x8")) is None
