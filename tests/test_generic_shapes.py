"""What people type: small tables, lists, headed blocks, prose. Each shape with the comparison that must come out of it."""

from __future__ import annotations

import re

import pytest

from diagnose.document import Document
from diagnose.gather import gather
from diagnose.models import Fact

R, S, K, F = "compare.ratio", "compare.same", "compare.knee", "compare.flat"
Expected = tuple[str, str, float | None]


def facts_of(*texts: str) -> list[Fact]:
    """All facts of the engine over these texts, each a document."""
    return gather(Document.of(f"d{i}", t.encode()) for i, t in enumerate(texts)).facts


def holds(facts: list[Fact], want: Expected) -> bool:
    signal, label, value = want
    for fact in facts:
        if fact.signal == signal and re.search(label, fact.subject.label or "", re.I):
            if value is None or abs(float(fact.value or 0) - value) <= 0.02 * abs(value):
                return True
    return False


SHAPES: list[tuple[str, str | tuple[str, ...], list[Expected]]] = [
    # lists
    ("ngpus-list", "1 GPU: 0.48 s/step\n4 GPUs: 0.92 s/step", [(R, r"^ngpus\|step_time\|4 GPUs\|1 GPU", 1.917)]),
    ("ngpus-rate", "1x A100   1520 img/s\n8x A100   4310 img/s", [(R, r"^ngpus\|iterations\|1x", 2.836), ("compare.scaling", "^ngpus", 0.354)]),
    ("proxy-list", "curl to pod:        TTFT 0.31 s\nthrough ingress:    TTFT 6.90 s", [(R, r"^proxy\|ttft\|through ingress", 22.26)]),
    ("proxy-metric-first", "TTFT (direct): 0.4 s\nTTFT via nginx: 6.3 s", [(R, r"^proxy\|ttft\|.*nginx\|.*direct", 15.75)]),
    ("proxy-zh", "直连: 首 token 延迟 0.4 秒\n经网关: 首 token 延迟 5.2 秒", [(R, r"^proxy\|ttft", 13.0)]),
    ("node-bw", "node-a   11.2 GB/s\nnode-b   46.1 GB/s", [(R, r"^node\|bandwidth\|node-a", 4.116)]),
    ("p2p-env", "NCCL_P2P_DISABLE=0: 6.1 GB/s busbw\nNCCL_P2P_DISABLE=1: 11.9 GB/s busbw", [(R, r"^p2p\|busbw\|.*=0\|.*=1", 1.951), (R, r"^env\|busbw", 1.951)]),
    ("pinned", "pageable  3.9 GB/s\npinned    24.8 GB/s", [(R, r"^memory_kind\|bandwidth\|pageable\|pinned", 6.359)]),
    ("direction", "H2D 24.9 GB/s\nD2H 11.2 GB/s", [(R, r"^direction\|bandwidth\|D2H\|H2D", 2.223)]),
    ("get-put", "GET 0.9 GB/s\nPUT 140 GB/s", [(R, r"^direction\|bandwidth\|GET\|PUT", 155.6)]),
    ("spec", "drafter on:  61 tok/s, accept len 1.31\ndrafter off: 74 tok/s", [(R, r"^spec_decode\|\w*throughput\|drafter on\|drafter off", 1.213)]),
    ("graphs", "--enforce-eager: TPOT 41 ms\ncuda graphs: TPOT 14 ms", [(R, r"^graphs\|tpot\|.*eager", 2.93)]),
    ("threads", "OMP_NUM_THREADS=64   step 1.9 s\nOMP_NUM_THREADS=4    step 0.6 s", [(R, r"^threads\|step_time\|.*64\|.*4", 3.167)]),
    ("workers", "num_workers=0: 410 img/s\nnum_workers=16: 2900 img/s", [(R, r"^workers\|iterations\|.*0\|.*16", 7.07)]),
    ("storage", "epoch from nfs: 1840 s\nepoch from local nvme: 240 s", [(R, r"^storage\|epoch_time\|.*nfs", 7.667)]),
    ("power", "GPU at 250 W: 61 tok/s\nGPU at 370 W: 70 tok/s", [(R, r"^power\|throughput\|.*250 W", 1.1475)]),
    ("quant", "bf16: 88 tok/s\nawq: 31 tok/s", [(R, r"^quantization\|throughput\|awq\|bf16", 2.839)]),
    ("attn", "FLASHINFER backend: 1210 tok/s\nTRITON_ATTN backend: 640 tok/s", [(R, r"^attention_backend\|throughput\|TRITON", 1.89)]),
    ("cold", "first request: 41.2 s\nsecond request: 0.9 s", [(R, r"^cold_warm\|.*first request\|second", 45.8)]),
    ("runs", "run 1: 38.2 s\nrun 2: 2.1 s\nrun 3: 2.2 s\nrun 4: 2.1 s", [(R, r"^cold_warm\|", 18.19)]),
    ("container", "bare metal: 188 GB/s busbw\nin container: 21 GB/s busbw", [(R, r"^container\|busbw\|in container\|bare metal", 8.952)]),
    ("numa", "numactl --membind=0: 25.1 GB/s\nnumactl --membind=1: 13.2 GB/s", [(R, r"^numa\|bandwidth\|.*1\|.*0", 1.90)]),
    ("mtu", "MTU 1500: 9.1 Gb/s\nMTU 9000: 38 Gb/s", [(R, r"^mtu\|bandwidth\|.*1500", 4.176)]),
    ("transport", "UCX_TLS=tcp,cuda_copy      1.1 GB/s\nUCX_TLS=rc,cuda_copy,cuda_ipc   22.8 GB/s", [(R, r"^transport\|bandwidth", 20.7), (R, r"^env\|", 20.7)]),
    ("gdr", "GDR off: 8.3 GB/s\nGDR on: 23.9 GB/s", [(R, r"^gdr\|bandwidth\|GDR off\|GDR on", 2.88)]),
    ("iommu", "iommu on: 5.5 GB/s\niommu=pt: 11.8 GB/s", [(R, r"^iommu\|bandwidth\|iommu on", 2.145)]),
    ("topology", "GPU0-GPU1: 21.4 GB/s\nGPU0-GPU4: 9.8 GB/s", [(R, r"^topology\|bandwidth\|GPU0-GPU4", 2.18)]),
    ("two-nodes", "one node: 371 GB/s busbw\ntwo nodes: 43 GB/s busbw", [(R, r"^(topology|ngpus)\|busbw\|two nodes", 8.63)]),
    ("other-start", "yesterday: 1420 tok/s\ntoday: 310 tok/s", [(R, r"^time\|throughput\|today", 4.58)]),
    ("client", "bench from laptop client: TTFT p99 9.1 s\ncurl: TTFT p99 0.4 s", [(R, r"^client\|ttft_p99\|", 22.75)]),
    ("server-client", "TTFT at client: 4.2 s\nTTFT at server (metrics): 0.3 s", [(R, r"^measured_by\|ttft\|.*client", 14.0)]),
    ("unaffected", "json schema: TTFT 21 s, TPOT 12.1 ms\nfree text:   TTFT 0.4 s, TPOT 12.0 ms", [(R, r"^structured_output\|ttft\|json", 52.5), (S, r"^structured_output\|tpot", 1.008)]),
    ("idle-load", "GPU idle: 26.1 GB/s\nunder load: 12.8 GB/s", [(R, r"^load\|bandwidth\|under load", 2.04)]),
    ("stride", "stride 1:  1810 GB/s\nstride 32: 120 GB/s", [(R, r"^stride\|bandwidth\|.*32", 15.08)]),
    ("kernel", "naive transpose  240 GB/s\npadded tile      1390 GB/s", [(R, r"^kernel\|bandwidth\|naive", 5.79)]),
    ("overlap", "overlap_comm=false: 812 ms/step\noverlap_comm=true: 530 ms/step", [(R, r"^overlap\|step_time\|.*false", 1.532)]),
    ("compile", "eager: 0.31 s/it\ntorch.compile: 1.90 s/it", [(R, r"^compile\|step_time\|torch.compile", 6.13)]),
    ("pcie", "slot 1 (x16): 24.6 GB/s\nslot 5 (x4): 6.2 GB/s", [(R, r"^pcie\|bandwidth\|.*x4", 3.97)]),
    ("expected", "measured busbw   97 GB/s\nexpected busbw   370 GB/s", [(R, r"^expected\|busbw\|measured", 3.81)]),
    ("tp", "TP=2: TPOT 9.8 ms\nTP=8: TPOT 17.1 ms", [(R, r"^tp\|tpot\|TP=8", 1.745)]),
    # tables
    ("pipes", "| backend | TTFT (ms) | TPOT (ms) |\n|---|---|---|\n| xgrammar | 310 | 12.0 |\n| outlines | 21040 | 12.2 |",
     [(R, r"^structured_output\|ttft\|outlines", 67.87), (S, r"^structured_output\|tpot", 1.0167)]),
    ("versions-columns", "metric            v0.8.5   v0.9.0\noutput tok/s      2110     1290\nmean TTFT (ms)    188      191",
     [(R, r"^version\|decode_throughput\|v0.9.0\|v0.8.5", 1.636), (S, r"^version\|ttft_mean", 1.016)]),
    ("concurrency-sweep", "concurrency  TTFT(ms)  tok/s\n1            92        71\n8            118       540\n16           4210      548\n32           11800     551",
     [(R, r"^concurrency\|ttft\|32\|1", 128.3), (K, r"^concurrency\|ttft\|16\|8", 35.7)]),
    ("csv", "batch,latency_ms,throughput\n1,12.1,82\n8,12.9,620\n64,98.0,650", [(R, r"^batch\|latency\|64\|1", 8.1)]),
    ("flat", "batch  ms/step\n1      41.2\n4      41.5\n16     41.9", [(F, r"^batch\|step_time", 1.017)]),
    ("numeric-head", "clients        1      8      64\ntokens/s       71     498    512", [(R, r"^concurrency\|throughput\|1\|64", 7.21)]),
    ("tabs", "prompt tokens\tTTFT\n1k\t0.12 s\n8k\t0.71 s\n32k\t9.8 s", [(R, r"^prompt_length\|ttft\|32k\|1k", 81.7)]),
    ("words", "mtu gbps\n1500 9.1\n4200 22.0", [(R, r"^mtu\|", 2.417)]),
    ("gpu-columns", "              GPU 0    GPU 1    GPU 2    GPU 3\nSM clock MHz  1980     1980     1155     1980",
     [("spread.outlier", r"^gpu\|clock\|GPU 2", 1.714)]),
    ("mixed-columns", "prompt   direct TTFT   gateway TTFT\n1K       0.2 s         4.4 s\n8K       0.9 s         5.1 s", [(R, r"^proxy\|ttft\|gateway", 22.0)]),
    ("word-columns", "run   memory     GB/s\n1     pageable   4.1\n2     pinned     24.0", [(R, r"^memory_kind\|bandwidth\|.*pageable", 5.85)]),
    # subjects
    ("ranks", "rank 0: 1.02 s\nrank 1: 1.01 s\nrank 2: 1.03 s\nrank 3: 1.86 s", [("spread.outlier", r"^rank\|time\|rank 3", 1.82)]),
    ("ranks-even", "rank 0: 1.02 s\nrank 1: 1.01 s\nrank 2: 1.03 s\nrank 3: 1.04 s", [("spread.even", r"^rank\|time", 1.03)]),
    ("hosts", "host      step (ms)\ngpu-01    410\ngpu-02    408\ngpu-03    655\ngpu-04    411", [("spread.outlier", r"^node\|step_time\|gpu-03", 1.59)]),
    ("requests", "request  TTFT\n1        0.4 s\n2        1.5 s\n3        2.6 s\n4        3.7 s\n5        4.9 s", [("trend.growth", r"^request\|ttft", 12.25)]),
    ("first-only", "request  latency\n1        41.0 s\n2        0.9 s\n3        1.0 s\n4        0.9 s", [("trend.first_outlier", r"^request\|latency", 45.6)]),
    ("series", "TTFT per request: 0.4 s, 1.5 s, 2.6 s, 3.7 s, 4.8 s, 5.9 s", [("trend.growth", r"ttft", 14.75)]),
    ("period", "step  ms\n1  1900\n2  210\n3  205\n4  211\n5  1880\n6  209\n7  207\n8  208\n9  1910\n10  204", [("trend.period", r"^time", 4)]),
    # blocks
    ("releases", "# vllm 0.8.4\nRequest throughput: 7.1 req/s\n# vllm 0.9.2\nRequest throughput: 3.2 req/s", [(R, r"^version\|request_rate\|.*0.9.2\|.*0.8.4", 2.219)]),
    ("commands", "$ vllm serve m --enforce-eager\nOutput token throughput (tok/s): 310\n\n$ vllm serve m\nOutput token throughput (tok/s): 940",
     [(R, r"^graphs\|decode_throughput\|.*enforce-eager", 3.03), (R, r"^flag\|", 3.03)]),
    ("with-without", "with nginx:\n  TTFT 4.1 s\n  ITL 3 ms\nwithout nginx:\n  TTFT 0.3 s\n  ITL 24 ms", [(R, r"^proxy\|ttft\|with nginx", 13.67), (R, r"^proxy\|itl\|without nginx", 8.0)]),
    ("two-texts", ("driver 535.129.03\nbusbw 371 GB/s", "driver 550.54.15\nbusbw 188 GB/s"), [(R, r"^version\|busbw\|driver 550", 1.973)]),
    ("describe", "E2E latency (ms):\ncount  50\nmean   1810.2\nstd    1204.0\nmin    400.1\nmax    9120.5", [("stat.cv", r"e2e", 0.665)]),
    ("percentiles", "p50 TTFT: 0.21 s\np99 TTFT: 8.40 s", [("stat.tail", r"ttft", 40.0)]),
    # prose
    ("from-to", "after the driver upgrade all-reduce busbw went from 372 GB/s to 188 GB/s", [(R, r"^version\|busbw\|after\|before", 1.979)]),
    ("clauses", "throughput is 1210 tok/s with graphs, 310 tok/s in eager mode", [(R, r"^graphs\|throughput\|.*eager", 3.9)]),
    ("vs", "decode 41 ms/token eager vs 14 ms/token with cuda graphs", [(R, r"^graphs\|tpot\|.*eager", 2.93)]),
    ("times", "transfer time, cuda_ipc vs rc_x   ~20x", [(R, r"^transport\|\w+\|cuda_ipc\|rc_x", 20.0)]),
    ("zh-prose", "升级前吞吐 1200 tokens/秒，升级后吞吐 400 tokens/秒", [(R, r"^version\|throughput\|升级后", 3.0)]),
    # arithmetic
    ("per-op", "62,000 descriptors, 1.5 GB", [("compare.bytes_per_op", r"desc", 24193.5)]),
    ("per-op-printed", "transfer size   18.2 kB/desc", [("compare.bytes_per_op", r".", 18200)]),
    ("buffer", "each SSE event is 128 bytes; bursts of 64 events", [("compare.buffer_size", r"event", 8192)]),
    ("multiples", "prompt tokens   cached tokens\n900             528\n1700            1584\n3000            2640", [("compare.multiple", r"cache_hits", 528)]),
    ("proportional", "task   accept len   tok/s\nmath   3.90         158\nchat   2.10         86", [("compare.ratio", r"\|acceptance_length\|", 1.857)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wants"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_shape(text: str | tuple[str, ...], wants: list[Expected]) -> None:
    facts = facts_of(*([text] if isinstance(text, str) else text))
    for want in wants:
        got = [f"{f.signal} {f.subject.label} = {f.value}" for f in facts if f.signal.split(".")[0] in ("compare", "spread", "trend", "stat")]
        assert holds(facts, want), f"{want} not in {got or [(f.signal, f.subject.label, f.value) for f in facts]}"
