"""What is done to a text on its way here changes no fact: blank lines, line ends, colours, launchers, order."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from diagnose.evals.case import own_cases

from diagnose.document import Document
from diagnose.gather import gather, number

EVERY = 60  # of the shipped cases


def _lines(text: str, change: Callable[[str], str]) -> str:
    return "\n".join(map(change, text.split("\n")))


CHANGES: dict[str, Callable[[str], str]] = {
    "blank lines at the ends": lambda t: "\n\n" + t + "\n\n\n",
    "carriage returns": lambda t: t.replace("\n", "\r\n"),
    "colours": lambda t: _lines(t, lambda x: f"\x1b[32m{x}\x1b[0m" if x else x),
    "byte-order mark": lambda t: "\ufeff" + t,
}


@cache
def cases() -> list[list[str]]:
    """The texts of some of the shipped cases; those that launchers or editors changed already are no start."""
    found = [[text for _, text in case.texts] for case in own_cases()]
    return [texts for texts in found if not any("\r" in t or "\x1b" in t for t in texts)][::EVERY]


@cache
def said(*texts: str) -> frozenset[tuple[str, str, str]]:
    """Signal, subject and value of every fact, wherever it stands."""
    out = gather([Document.of(f"t{n}", text.encode()) for n, text in enumerate(texts)])
    return frozenset((f.signal, str(f.subject.key()), str(f.value)) for f in out.facts)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_form_changes_no_fact(name: str) -> None:
    differ = []
    for texts in cases():
        after = said(*map(CHANGES[name], texts))
        if after != said(*texts):
            differ.append((texts[0][:80], sorted(after ^ said(*texts))[:4]))
    assert differ == []


def test_order_of_documents_changes_nothing() -> None:
    for texts in cases():
        docs = [Document.of(f"t{n}", text.encode()) for n, text in enumerate(texts)]
        assert number(gather(docs)) == number(gather(docs[::-1]))


@pytest.mark.parametrize("prefix", ["[rank0]: ", "[1,0]<stdout>:", "node3: "])
def test_a_launcher_in_front_of_a_log_changes_nothing(prefix: str) -> None:
    """Of logs: in a table by hand `node3: 12 GB/s` names the row."""
    text = "\n".join(
        ["h1:4:9 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1", "h1:4:9 [0] NCCL INFO Using network Socket",
         "h1:4:9 [0] NCCL WARN Cuda failure 'out of memory'", "torch.OutOfMemoryError: Tried to allocate 2.00 GiB."]
    )  # fmt: skip
    logged = {f for f in said(text) if f[0].startswith(("nccl.", "gpu.oom", "env."))}
    after = {f for f in said(_lines(text, lambda x: prefix + x)) if f[0].startswith(("nccl.", "gpu.oom", "env."))}
    assert len(logged) > 3 and logged == after


@pytest.mark.parametrize("colour", ["\x1b[01;31m\x1b[K{}\x1b[m\x1b[K", "\x1b[32m{}\x1b[0m"])
def test_colours_within_lines_as_grep_sets_them(colour: str) -> None:
    text = "h1:4:9 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1\nh1:4:9 [0] NCCL INFO Using network Socket\n"
    assert said(text) == said(text.replace("NCCL", colour.format("NCCL")).replace("network", colour.format("network")))


def test_two_documents_say_at_least_what_each_says_where_lines_stand_alone() -> None:
    """Logs joined into one; tables and prose may well mean something else behind each other."""
    log = "h1:4:9 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1\n"
    kernel = "[ 12.5] NVRM: Xid (PCI:0000:3b:00): 79, pid=12, GPU has fallen off the bus.\n"
    assert said(log + kernel) >= said(log) | said(kernel) and said(log) and said(kernel)
