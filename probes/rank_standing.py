"""Where each rank stands: stacks of several ranks one after another, and the calls that NCCL logs with their counts.

Sources: py-spy `src/dump.rs`, gdb's `bt`, NCCL `src/enqueue.cc` (``AllReduce: opCount 1f sendbuff … count … datatype``).
"""  # noqa: E501

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import computed, excerpt, fact

_SMALL = 1 << 18
_LINES = 3000
_WHO = regex(
    r"^\W*(?:py-?spy dump\W.{0,40}|stack of |process \d+\b.{0,60})?\[?(?:global[ _-]|local[ _-])?rank[ _:=#-]{0,2}(?P<n>\d{1,4})\]?"  # noqa: E501
    r"(?=$|[\s:,()=|-])(?P<rest>.*)$",
    re.IGNORECASE,
)
_FRAME = regex(
    r"^\s*(?:#\d+\s+(?:0x[0-9a-f]+ in )?)?(?P<name>[\w<>:.~]+) ?\((?P<file>[\w./<>-]*)(?::(?P<line>\d+))?[^()]*\)(?:.*)$"  # noqa: E501
)
_PY_FILE = regex(r"File \"(?P<file>[^\"]+)\", line (?P<line>\d+),? in (?P<name>\w+)")
_INLINE = regex(r"(?P<name>\b[a-z_]\w+) \((?P<file>[\w./-]+)(?::\d+)?\)", re.IGNORECASE)
_OP = regex(
    r"^_?(?:ncclP?)?(?P<op>all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast|barrier)\w*$", re.IGNORECASE
)
_LIBRARY = regex(
    r"torch/distributed|distributed_c10d|c10d_logger|/torch/|^torch/|libnccl|libtorch|deepspeed/comm", re.I
)
_WAITS = regex(
    r"^(?:wait|synchronize|_wait\w*|poll|select|epoll_wait|futex\w*|sem_wait|pthread\w*|decorate_\w+|wrapper)$"
)
_OUTER = regex(
    r"^(?:main|<module>|_?run\w*|_bootstrap\w*|__call__|wrapper|inner|_start|__libc_start_\w+|decorate_\w+|_?call_impl|_wrapped_call_impl|launch\w*|fit)$"
)


@dataclass
class _Stack:
    rank: str
    line: Line
    frames: list[tuple[str, str, Line]] = field(default_factory=list)  # function, file

    def standing(self) -> tuple[str, str, Line] | None:
        """The collective the rank is in, the caller's place, and the line that says so."""
        for k, (name, _, line) in enumerate(self.frames):
            hit = _OP.match(name.rpartition(".")[2].rpartition("::")[2])
            if hit is None:
                continue
            own = next((f for f in self.frames[k + 1 :] if not _LIBRARY.search(f[1]) and not _OP.match(f[0])), None)
            return hit["op"].lower().replace("_", ""), f"{own[1]} {own[0]}" if own else "", line
        return None

    def work(self) -> tuple[str, Line] | None:
        """The innermost frame that is no wait and no wrapper."""
        return next(
            ((f"{n} ({f})" if f else n, at) for n, f, at in self.frames if not _WAITS.match(n) and not _OUTER.match(n)),
            None,
        )


class StacksOfRanks:
    """Stacks of two ranks or more: in which collective each stands and who called it; a rank that stands in none."""

    name = "rank_stacks"
    needles: tuple[bytes, ...] = (b"rank", b"Rank", b"RANK")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rank.collective` where they differ, `rank.call_site` where callers do, `rank.stack_elsewhere`."""
        stacks = [s for s in _stacks(excerpt(doc, _SMALL, _LINES)) if s.frames]
        stood = [(s, s.standing()) for s in stacks]
        inside = [(s, at) for s, at in stood if at is not None]
        if len(stacks) < 2 or not inside:
            return
        ops = Counter(at[0] for _, at in inside)
        for op in ops if len(ops) > 1 else ():
            first, at = next((s, at) for s, at in inside if at[0] == op)
            yield fact(doc, at[2], "rank.collective", op, label=f"rank {first.rank}")
        sites = {at[1]: (s, at) for s, at in reversed(inside) if at[1]}
        for site, (first, at) in sites.items() if len(ops) == 1 and len(sites) > 1 else ():
            yield fact(doc, at[2], "rank.call_site", site, label=f"rank {first.rank}")
        outside = [(s, s.work()) for s, at in stood if at is None]
        if len(inside) > len(outside):
            for stack, found in outside[:2]:
                if found is not None:
                    yield fact(doc, found[1], "rank.stack_elsewhere", found[0][:100], rank=_number(stack.rank))
            if outside:
                first, at = inside[0]
                yield fact(doc, at[2], "rank.waits_in", at[0], label=f"rank {first.rank}")


def _number(text: str) -> int:
    return int(text)


def _stacks(lines: list[Line]) -> Iterator[_Stack]:
    current: _Stack | None = None
    for line in lines:
        text = line.prefix + line.text
        who = _WHO.match(text) if len(text) < 300 else None
        if who is not None:
            if current is not None and current.frames and (current.rank != who["n"] or not _INLINE.search(who["rest"])):
                yield current
                current = None
            if current is None or current.rank != who["n"]:
                current = _Stack(who["n"], line)
            for hit in _INLINE.finditer(who["rest"]):
                current.frames.append((hit["name"], hit["file"], line))
            continue
        if current is None:
            continue
        frame = _PY_FILE.search(text) or _FRAME.match(text)
        if frame is not None and not frame["name"].isdecimal():
            current.frames.append((frame["name"], frame["file"] or "", line))
    if current is not None:
        yield current


_CALL = regex(
    r"(?P<op>AllReduce|AllGather|ReduceScatter|Broadcast|Reduce|Send|Recv|AllToAll|Gather|Scatter): opCount (?P<seq>[0-9a-f]+)"  # noqa: E501
    r" .{0,90}?\bcount (?P<count>\d+) datatype (?P<type>\d+).{0,40}?\bcomm (?P<comm>0x[0-9a-f]+)?(?:.{0,12}\[nranks=(?P<n>\d+)\])?"  # noqa: E501
)
_BY = regex(r"^\W*(?P<who>[\w.-]+:\d+:\d+ \[\d+\]|\[?(?:rank|r)?[ _=]?\d+\]?|[\w.-]+:\d+)[\s:|]")
_POINT = ("Send", "Recv")


class CallsOfRanks:
    """What each process issued at one number: they must agree on operation, count and type."""

    name = "nccl_calls"
    needles: tuple[bytes, ...] = (b"opCount",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nccl.call_differs`: two calls with one number, and one communicator size, that cannot meet."""
        calls: dict[tuple[str, str], dict[str, tuple[str, Line]]] = {}
        done = 0
        for line in doc.holding("opCount"):
            text = line.prefix + line.text
            hit, who = _CALL.search(text), _BY.match(text)
            if hit is None or who is None or hit["op"] in _POINT:
                continue
            said = f"{hit['op']} count {hit['count']} datatype {hit['type']}"
            rows = calls.setdefault((hit["seq"], hit["n"] or ""), {})
            if who["who"] in rows:  # one process has several communicators, which number their calls alike
                done += 1
                rows[who["who"]] = "", line
            else:
                rows[who["who"]] = said, line
            if done > 200:
                return
        for (seq, _), rows in calls.items():
            kinds = Counter(said for said, _ in rows.values() if said)
            if len(rows) < 2 or "" in {s for s, _ in rows.values()} or len(kinds) != 2:
                continue
            odd = min(kinds, key=lambda k: kinds[k])
            for kind in (odd, max((k for k in kinds if k != odd), key=lambda k: kinds[k])):
                who_, line_ = next((w, at) for w, (said, at) in rows.items() if said == kind)
                yield fact(doc, line_, "nccl.call_differs", kind, label=f"{who_} opCount {seq}"[:80])
            return


_ETPT = regex(r"lowest\s+Etpt ?\(TF\): (?P<list>\d[\d., /]+)")
_RANKED = regex(r"(?P<v>\d+(?:\.\d+)?)/(?P<rank>\d+)")
_ENDS = regex(
    r"M(?:in|n)(?P<what>Etpt|Rtt|Clk|Throughput|RoundTripTime)/Ra?nk: (?P<low>\d+(?:\.\d+)?)\w*/(?P<lr>\d+)"
    r".*?M(?:ax|x)(?P=what)/Ra?nk: (?P<high>\d+(?:\.\d+)?)\w*/(?P<hr>\d+)"
)


class MegatronStragglers:
    """The report of Megatron's straggler detector (`megatron/core/utils.py`): throughput a rank, lowest first."""

    name = "megatron_stragglers"
    needles: tuple[bytes, ...] = (b"Etpt", b"Rtt/Rnk", b"Throughput/Rank")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`spread.outlier` of a rank that is alone at the bottom; `rank.timer_spread` of what the report compares."""
        for line in doc.holding("Etpt"):
            hit = _ETPT.search(line.text)
            rows = [(float(r["v"]), r["rank"]) for r in _RANKED.finditer(hit["list"])] if hit else []
            if len(rows) >= 2 and 0 < rows[0][0] <= 0.8 * rows[1][0]:
                low, usual = (
                    fact(doc, line, "rank.reading", v, "count", around=f"{v:g}", label=f"rank {r}") for v, r in rows[:2]
                )
                yield Fact(
                    "spread.outlier", rows[1][0] / rows[0][0], "count",
                    Subject(label=f"rank|flops|rank {rows[0][1]}", rank=int(rows[0][1])), (doc.span(line),),
                    kind="derived", formula="b / a", inputs=(low, usual), status=doc.status,
                )  # fmt: skip
                return
        for line in doc.holding("/Rnk", "/Rank"):
            for ends in _ENDS.finditer(line.text):
                low_, high_ = float(ends["low"]), float(ends["high"])
                if low_ > 0 and ends["what"] in ("Etpt", "Throughput", "Clk"):
                    yield computed(
                        doc,
                        line,
                        "rank.timer_spread",
                        high_ / low_,
                        "count",
                        self.name,
                        label=f"compute {ends['what']}",
                    )


_RANK_IF = regex(
    r"^(?P<in>\s*)if\b(?P<test>.*(?:\b\w*rank\w*(?:\(\))? ?(?:==|!=|>|<|in)|is_main_process|is_rank_zero|is_global_zero|is_master|is_local_main).*):\s*(?:#.*)?$"  # noqa: E501
)
# what a batch holds differs from rank to rank as well
_DATA_IF = regex(
    r"^(?P<in>\s*)if\b(?P<test>.*(?:\.any\(\)|\.all\(\)|\.item\(\)|\.numel\(\)|isnan|isfinite|len\((?:batch|labels|x|inputs|mask|idx|indices)\)).*):\s*(?:#.*)?$"
)
_CALLS = regex(
    r"\b(?:dist|distributed|comm|accelerator|fabric|strategy|dist_utils)\.(?:barrier|all_reduce|all_gather\w*|broadcast\w*|reduce\w*|gather\w*"
    r"|all_to_all\w*|wait_for_everyone)\(|\b(?:gather_from_all|all_gather\w*|all_reduce\w*|sync_across\w*|concat_all_gather|GatherLayer\.apply)\("
)
_LEAVES = regex(r"^\s*(?:return|continue|break|raise|sys\.exit)\b")


class RankBranches:
    """Code: a collective that stands inside a branch on the rank and in no other, or behind a way out of some ranks."""

    name = "rank_branches"
    needles: tuple[bytes, ...] = (b"rank", b"main_process", b"is_master", b"gather", b"all_reduce", b"dist.")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nccl.branch_collective`, whose value is the call."""
        lines = excerpt(doc, _SMALL, _LINES)
        for n, line in enumerate(lines):
            text = line.prefix + line.text
            test = _RANK_IF.match(text.expandtabs(4)) or _DATA_IF.match(text.expandtabs(4))
            if test is None:
                continue
            deep = len(test["in"])
            body, rest, other = _blocks(lines[n + 1 :], deep)
            inside = next((at for at in body if _CALLS.search(at.text.split("#")[0])), None)
            if inside is not None and not any(_CALLS.search(at.text) for at in other):
                yield fact(
                    doc, inside, "nccl.branch_collective", inside.text.strip()[:100], label=test["test"].strip()[:80]
                )
                return
            gone = any(_LEAVES.match(at.text) for at in body) and not other
            after = next((at for at in rest if _CALLS.search(at.text.split("#")[0])), None)
            if gone and inside is None and after is not None:
                yield fact(
                    doc, after, "nccl.branch_collective", after.text.strip()[:100], label=test["test"].strip()[:80]
                )
                return


def _depth(line: Line) -> int:
    text = (line.prefix + line.text).expandtabs(4)
    return len(text) - len(text.lstrip())


def _blocks(lines: list[Line], deep: int) -> tuple[list[Line], list[Line], list[Line]]:
    """The body of a branch, what follows at its depth, and the body of its `else`."""
    body: list[Line] = []
    rest: list[Line] = []
    other: list[Line] = []
    into = body
    for line in lines[:60]:
        text = line.prefix + line.text
        if not text.strip():
            continue
        if _depth(line) < deep:
            break
        if _depth(line) == deep:
            into = other if re.match(r"\s*(?:else|elif)\b", text) and into is not rest else rest
            if into is other:
                continue
        into.append(line)
    return body, rest, other


_LAST = regex(
    r"^\W*rank ?(?P<r>\d+)\b.*?\b(?:nccl)?(?P<op>all_?reduce|all_?gather|reduce_?scatter|broadcast|all_?to_?all|barrier)\w*\b"  # noqa: E501
    r".*?\b(?:count|numel|elements|nelem|size|bytes)\W{1,3}(?P<n>\d+)\b.*?\b(?:seq\w*|op_?count|number)\W{1,3}(?P<seq>\w+)",
    re.IGNORECASE,
)


class LastCalls:
    """One line a rank with its last call, the number of elements and the call's number."""

    name = "last_calls"
    needles: tuple[bytes, ...] = (b"rank", b"Rank")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nccl.call_differs` of two ranks that are at one number."""
        rows: dict[str, dict[str, tuple[str, Line]]] = {}
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _LAST.match(line.prefix + line.text) if len(line.text) < 300 else None
            if hit is not None:
                said = f"{hit['op'].lower().replace('_', '')} count {hit['n']}"
                rows.setdefault(hit["seq"], {}).setdefault(hit["r"], (said, line))
        for seq, found in rows.items():
            kinds = {said: (r, at) for r, (said, at) in found.items()}
            if len(kinds) == 2:
                for said, (r, at) in kinds.items():
                    yield fact(doc, at, "nccl.call_differs", said, label=f"rank {r} number {seq}")
                return


READERS: list[Reader] = [LastCalls(), StacksOfRanks(), CallsOfRanks(), MegatronStragglers(), RankBranches()]
