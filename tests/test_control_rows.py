"""Control rows: what was set otherwise and how it went; edges at a limit; health by a reference."""

from __future__ import annotations

import pytest
from diagnose.probes.control_rows import ControlLines, LoadPoints, RepeatedPrompt, VersionRows
from diagnose.probes.prompt_code import CachedShare, LayerLoop, PromptCode

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact
from diagnose.plugin import Reader


def _read(reader: Reader, text: str) -> list[Fact]:
    return list(reader.parse(Document.of("a.txt", text.encode())))


def _lead(symptom: str, *texts: str) -> str:
    got = triage(symptom, [Document.of(f"{i}.txt", t.encode()) for i, t in enumerate(texts)]).assessment
    return got.accepted[0].cause.id if got.verdict == "cause" else got.verdict


@pytest.mark.parametrize(
    ("text", "label", "gain"),
    [
        ("copy GB/s  a: 51.0   b: 30.0\nb with --cpunodebind=1 --membind=1: 51.0 GB/s\n", "binding|--cpunodebind=1 --membind=1|peers", 1.7),  # noqa: E501
        ("read back GB/s: 26.0\n改成 numactl -N 0 -m 0: 52.0\n", "binding|numactl -N 0 -m 0|alone", 2.0),
        ("rank   push GB/s\n0      24.0\n1      12.0\nrank 1 again with UCX_NET_DEVICES=mlx5_4:1 -> 24.0 GB/s\n", "net_devices|mlx5_4:1|peers", 2.0),  # noqa: E501
        ("reload 44.0 s\nrebound with --membind=1: reload 22.0 s\n", "binding|--membind=1|alone", 2.0),
    ],
)  # fmt: skip
def test_control_line_names_lever_and_gain(text: str, label: str, gain: float) -> None:
    (fact,) = _read(ControlLines(), text)
    assert (fact.subject.label, fact.value) == (label, gain)


def test_control_line_without_gain_is_none() -> None:
    assert _read(ControlLines(), "pull 19.2 GB/s\nwith UCX_NET_DEVICES=mlx5_4:1: 19.0 GB/s\n") == []
    assert _read(ControlLines(), "with --membind=1 it was started at 10.5 s\n") == []


def test_release_that_drifts_needs_one_that_stays() -> None:
    rows = "UCX 1.18.0      3.1     6.9    17.5    33.8\nUCX 1.17.0      3.1     3.1    3.2    3.1\n"
    assert [f.subject.label for f in _read(VersionRows(), rows)] == ["ucx|1.18.0|1.17.0"]
    assert _read(VersionRows(), rows.splitlines()[0] + "\n") == []
    assert (
        _read(
            VersionRows(),
            rows.replace("1.17.0      3.1     3.1    3.2    3.1", "1.17.0      9.1     9.1    9.2    9.1"),
        )
        == []
    )


def test_repeat_and_load_points() -> None:
    hit = _read(RepeatedPrompt(), "same prompt twice: cached_tokens 0, then 1984\n")
    assert [f.value for f in hit] == [1984.0]
    assert _read(RepeatedPrompt(), "cached_tokens 0, prompt_tokens 1984\n") == []
    points = _read(LoadPoints(), "VUs=32 req/s=6.1 avg=5.25s\n")
    assert {f.subject.label: f.value for f in points} == {"request_rate|32": 6.1, "latency|32": 5250.0}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('content = f"now {datetime.now()}\\n{REGULATIONS}"', True),
        ('prompt = f"[{uuid.uuid4()}]\\n"\nprompt += HANDBOOK', True),
        ("random.shuffle(shots)\nprompt = SYSTEM + ''.join(shots)", True),
        ('messages = [{"content": POLICY}, {"content": f"{q} ({datetime.now()})"}]', False),
        ('String system = "Request " + UUID.randomUUID() + INSTRUCTIONS; // prompt', True),
        ("start = time.time()\nresp = client.create(model=MODEL, messages=messages)", False),
    ],
)
def test_what_varies_ahead_of_what_is_shared(code: str, found: bool) -> None:
    assert bool(_read(PromptCode(), code + "\n")) is found


def test_cached_share_and_layer_loop() -> None:
    (share,) = _read(CachedShare(), "Prefill batch. #new-token: 9874, #cached-token: 11\n")
    assert share.value == pytest.approx(0.0011)
    loop = "for layer in range(n):\n    run(layer)\n    torch.cuda.synchronize()\n    agent.transfer(h)\n    {}\n"
    spin = 'while agent.check_xfer_state(h) != "DONE": pass'
    assert _read(LayerLoop(), loop.format(spin))
    assert not _read(LayerLoop(), loop.format("handles.append(h)") + spin + "\n")


SWEEP = "concurrency   median TPOT (ms)\n1   6.0\n4   6.2\n8   6.4\n9   {}\n16  {}\n"
SIZES = "vllm serve m --compilation-config '{\"cudagraph_capture_sizes\": [1, 2, 4, 8]}'\n"


def test_step_past_the_captured_size() -> None:
    assert _lead("TPOT jumps", SIZES, SWEEP.format(12.1, 12.2)) == "serving.cuda_graphs_off"
    assert _lead("TPOT grows", SIZES, SWEEP.format(7.0, 9.9)) == "inconclusive"


USERS = "users   requests/s   p50 latency\n1   20   50 ms\n8   98   82 ms\n32   {}   {} ms\n128   {}   {} ms\n"


def test_saturation_by_littles_law() -> None:
    full = USERS.format(100, 320, 101, 1270) + "queue time p50 at 128 users: 1180 ms\n"
    assert _lead("latency grows with users", full) == "serving.queueing_saturation"
    assert _lead("latency grows a bit", USERS.format(370, 86, 1400, 91)) != "serving.queueing_saturation"


def test_deferred_wait() -> None:
    table = "mode                         total time\nwait per layer                1450 ms\none wait at the end            {} ms\npush disabled                  760 ms\n"  # noqa: E501
    symptom = "the KV transfer takes as long as prefill"
    assert _lead(symptom, table.format(790)) == "nixl.no_overlap"
    assert _lead(symptom, table.format(1400)) != "nixl.no_overlap"


def test_queue_column_says_why_rows_are_late() -> None:
    rows = "request  prompt_tokens  queue   TTFT\na  900  0.01 s  0.08 s\nb  1,100  {}  3.98 s\nc  950  {}  4.10 s\n"
    rows = "\n".join("    ".join(line.split("  ")) for line in rows.splitlines()) + "\n"
    assert _lead("TTFT of four seconds for some", rows.format("3.90 s", "4.02 s")) == "serving.queueing_saturation"
    assert _lead("TTFT of four seconds for some", rows.format("0.01 s", "0.02 s")) != "serving.queueing_saturation"


def test_overlap_of_blocks_is_no_transfer() -> None:
    log = "INFO kv_router: worker 5, 0 overlap blocks\nafter restart: overlap blocks 0 -> 88, TTFT 1.7 s -> 0.2 s\n"
    assert _lead("routing sends repeats anywhere", log) != "nixl.no_overlap"


@pytest.mark.parametrize(
    ("line", "healthy"),
    [
        ("TPOT 11.2 ms; burn-in report 11.3 ms; neighbour node 11.2 ms", True),
        ("TTFT 231 ms; 验收报告 229 ms; 另一机房同型号 233 ms", True),
        ("TPOT 9.1 ms, TTFT 204 ms (上线验收: 9.2 / 203)", True),
        ("prefill 8k: 188 ms (baseline 189 ms); decode 10.2 ms/token (baseline 10.2)", True),
        ("prefill 8k: 312 ms (baseline 189 ms); decode 12.9 ms/token (baseline 10.2)", False),
        ("TPOT 12.6 ms, TTFT 204 ms (上线验收: 9.2 / 203)", False),
        ("TPOT 14.9 ms; burn-in report 11.3 ms; neighbour node 11.2 ms", False),
    ],
)
def test_equal_to_its_reference(line: str, healthy: bool) -> None:
    note = "GPU Current Temp : 82 C\n" + line + "\n"
    assert (_lead("the temperature alert fires, is it a problem?", note) == "healthy") is healthy


def test_a_claim_is_not_answered_by_an_equal_figure() -> None:
    assert _lead("decode is twice as slow as last week?", "TPOT 11.2 ms; last week 11.3 ms\n") != "healthy"


def test_floor_of_a_single_stream() -> None:
    log = (
        "GPU 0: NVIDIA H200 (UUID: GPU-1)\nLoad weight end. type=Q, avail mem=75.10 GB, mem usage=61.04 GB.\n"
        "Decode batch. #running-req: 1, #token: 812, token usage: 0.00, gen throughput (token/s): {}, #queue-req: 0\n"
    )
    assert _lead("only that many tokens a second for one user?", log.format(65.2)) == "healthy"
    assert _lead("only that many tokens a second for one user?", log.format(21.0)) != "healthy"
