"""Punctuation of Chinese texts, and English texts of the report in Chinese."""

from __future__ import annotations

import pytest

from diagnose.advice import advise
from diagnose.answer_facts import phrase, reason_text
from diagnose.catalogue import catalogue
from diagnose.chinese import native


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("加副本,或做限流;按 queue time 扩缩容", "加副本，或做限流；按 queue time 扩缩容"),
        ("GPU,或限流", "GPU，或限流"),
        ("命中计数(向下取整到整块)增加", "命中计数（向下取整到整块）增加"),
        ("加载(LimitMEMLOCK=infinity)后重启", "加载(LimitMEMLOCK=infinity)后重启"),
        ("设 NCCL_SOCKET_IFNAME=^docker,br-,veth", "设 NCCL_SOCKET_IFNAME=^docker,br-,veth"),
        ("日志写着“a, 中, b”,就是它", "日志写着“a, 中, b”，就是它"),
        ("1,024 个 token", "1,024 个 token"),
        ("跑 `echo 中,文` 看看", "跑 `echo 中,文` 看看"),
        ("no Chinese, at all: none", "no Chinese, at all: none"),
        ("本该走 RDMA,NCCL 却退回了", "本该走 RDMA，NCCL 却退回了"),
        ("9000 可用 4096,1500 只能 1024", "9000 可用 4096，1500 只能 1024"),
        ("哪些 Xid 属于 NVLink?", "哪些 Xid 属于 NVLink？"),
        ("报第一个失败的调用(invalid usage)", "报第一个失败的调用（invalid usage）"),
        ("轮流使用 SM(time slicing),除非", "轮流使用 SM（time slicing），除非"),
        ("乘以(n-1)/n,再除", "乘以(n-1)/n，再除"),
    ],
)
def test_full_width(text: str, want: str) -> None:
    assert native(text) == want and native(want) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("queue 13 s to about 0 ms, TPOT 7.0 ms to 9.1 ms", "排队从 13 s 降到约 0 ms，TPOT 从 7.0 ms 变为 9.1 ms"),
        ("--max-num-seqs 4 to 64", "--max-num-seqs 从 4 改为 64"),
        ("prefill stage, 512 tokens", "prefill 阶段，512 个 token"),
        ("collective busbw, 16 GPUs, 2 nodes, 8 x 200 Gb/s, ring",
         "集合通信 busbw，16 张 GPU、2 个节点，8 x 200 Gb/s，ring"),
        ("something nobody translated", "something nobody translated"),
    ],
)  # fmt: skip
def test_phrases(text: str, want: str) -> None:
    assert phrase(catalogue(), text) == want


def test_a_reason_that_is_not_known_is_quoted() -> None:
    cat = catalogue()
    assert reason_text(cat, "a strange reason", "zh") == "“a strange reason”"
    assert reason_text(cat, "no reading names the GPU; and more", "zh") == "没有读数说明 GPU 型号；“and more”"
    assert advise([], [], []) == ([], [])
