"""Arms of an experiment: a variable that somebody switched to see what happens, and what happened.

A setting that stands in one row of a comparison is not a leftover. A line is an *arm* when it names a
setting and says how it went, in words or in a table below it; a *control* is the same without a
setting. Numbers of two arms are left to the generic reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .nccl_tests import halves

SMALL = 160  # lines up to which a document is taken as typed by hand
LONGEST = 2000  # characters of a line of such a document
_ASSIGN = regex(
    r"(?<![\w$/.-])((?:NCCL|GLOO|UCX|TORCH|CUDA|FI|OMPI"
    r"|RCCL)_[A-Z0-9_]+)\s?=\s?[\"']?([^\s\"',;:)|]+)"
)
# A switch in words -> the setting it stands for.
_WORDS: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (name, value, regex(pattern, re.IGNORECASE))
    for name, value, pattern in (
        ("NCCL_P2P_DISABLE", "1", r"\b(?:P2P|peer.to.peer|peer access)\W{0,3}(?:is |was )?(?:off|disabled?)\b"
                                  r"|(?:disabl\w+|without|w/o|no|关闭|关掉|禁用) ?P2P\b|P2P ?(?:关闭|关掉|禁用)"),
        ("NCCL_NET_GDR_LEVEL", "LOC", r"\b(?:GDR|GPUDirect(?: RDMA)?)\W{0,3}(?:off|disabled?)\b"
                                      r"|(?:disabl\w+|without|w/o|no|关闭|关掉|禁用) ?(?:GDR|GPUDirect(?: RDMA)?)\b"
                                      r"|GDR ?(?:关闭|关掉|禁用)"),
        ("NCCL_NVLS_ENABLE", "0", r"\bNVLS\W{0,3}(?:off|disabled?)\b"
                                    r"|(?:disabl\w+|without|w/o|no|关闭|关掉|禁用) ?NVLS\b"),
        ("NCCL_IB_DISABLE", "1", r"\bIB\W{0,3}(?:off|disabled?)\b|(?:disabl\w+|without|w/o) (?:IB|InfiniBand|RDMA)\b"
                                 r"|over (?:plain )?(?:TCP|sockets)(?: instead)?\b|(?:关闭|关掉|禁用) ?(?:IB|RDMA)\b"),
        ("NCCL_SHM_DISABLE", "1", r"\bSHM\W{0,3}(?:off|disabled?)\b|(?:disabl\w+|without|w/o) SHM\b"),
        ("IOMMU", "off", r"\biommu=(?:pt|off)\b|\b(?:iommu|VT-d)\W{0,3}(?:off|disabled?|passthrough)\b"
                         r"|(?:disabl\w+|without|w/o|关闭|关掉|禁用) ?(?:the )?(?:iommu|VT-d)\b|(?:iommu|VT-d) ?(?:关闭"
                         r"|关掉|禁用)"),
        ("ACS", "off", r"\bACS\W{0,3}(?:off|disabled?|cleared)\b"
                       r"|(?:disabl\w+|without|w/o|clear\w*|关闭|关掉|禁用) ?ACS\b"
                       r"|ACS ?(?:关闭|关掉|禁用)"),
    )
)  # fmt: skip
_VERSION = regex(r"\b(?:lib)?nccl[ -]?(?:version)?\s*[=v]{0,3}\s?(2\.\d+(?:\.\d+)?)\b", re.IGNORECASE)
# A list of bare versions; no other library that is tried like this counts so.
_BARE_VERSION = regex(r"^\s*(2\.(?:1[4-9]|[23]\d)\.\d+)(?:\+cuda[\d.]+)?(?=\s{2,}|\s*[:|])")
_CONTROL = regex(
    r"^\W*(?:(?:NCCL|GLOO|UCX)_[A-Z0-9_]+ ?[:=]? ?\(?(?:unset|not set|default|removed)\)?|default\w*|baseline|base|\(none\)|none|nothing(?: set)?|unset|\(unset\)|stock|as (?:is|shipped"  # noqa: E501
    r"|before)|plain|control|"
    r"without(?: (?:it|any|the variable|variables?))?|no (?:env|variables?|settings?)|original|clean env|原样|默认"
    r"|不设(?:置)?|不加|对照|去掉)(?![\w-])",
    re.IGNORECASE,
)
_NEGATED_BAD = regex(
    r"(?<![\d.])0 ?(?:of|out of|/) ?\d+\b(?! ?(?:GB|MB|B\b))"
    r"|\b(?:no|not|without|0|zero|never|doesn'?t|does not|no longer)\W+(?:\w+\W+)?(?:hang\w*|hung|errors?"
    r"|crash\w*|timeouts?|wrong|stuck|fail\w*)"
    r"|#?wrong\W{1,3}0\b|(?:hang|error|crash|timeout|problem|issue)s?\W+(?:is |are |was )?(?:gone|disappear\w*"
    r"|vanish\w*|solved|resolved)"
    r"|(?:不再?|没有?|无)(?:出现)?(?:卡\w*|挂\w*|报错|错误|超时|hang)|(?:卡住|报错|错误|超时|hang)\S{0,4}消失",
    re.IGNORECASE,
)  # fmt: skip
_NEGATED_OK = regex(
    r"\b(?:no|not|never|doesn'?t|does not|did not|didn'?t|won'?t)\W+(?:\w+\W+)?(?:work\w*|finish\w*|complet\w*"
    r"|pass\w*|help\w*|success\w*|fix\w*|change\w*|ok\b|return\w*)"
    r"|不(?:能)?(?:行|通|工作|完成)|没用|无效|still (?:hang|fail|crash|wrong|stuck|slow)\w*|same (?:hang|error|crash"
    r"|result)|no (?:change|difference|effect)|unchanged",
    re.IGNORECASE,
)
_OK = regex(
    r"\b(?:works?|worked|working|ok|okay|pass(?:es|ed)?|fine|complet(?:es|ed)|finish(?:es|ed)|runs?|ran|cured?"
    r"|correct|success\w*|stable"
    r"|trains|done|clean|good|resolve[sd]|fixe[sd])\b|正常|通过|跑通|完成|恢复|正确|没问题|成功|稳定",
    re.IGNORECASE,
)
_BAD = regex(
    r"\b(?:hangs?|hung|hanging|stuck|stall\w*|timeouts?|timed out|times out|fail\w*|errors?|crash\w*|wrong"
    r"|corrupt\w*|mismatch\w*|diverge\w*|nan|SIG\w+|segfault|"
    r"freez\w*|abort\w*|deadlock\w*)\b|卡住|卡死|挂起|挂死|超时|失败|报错|错误|不动|hang住",
    re.IGNORECASE,
)
_LOG = regex(r"NCCL (?:INFO|WARN|TRACE)|set by environment|^\s*\d{4}-\d\d-\d\d[T ]")
_HELD = regex(r"^\s*(?:export|ENV|setenv|declare|-x|-e|-\s+name|\"|'|-\s+NCCL)\b|^\s*-x |^\s*-e ")
_ROW = regex(r"^\s*\d+\s+\d+\s+[a-z]\w+\s+\w+\s+(.*)$")
_NUMBER = regex(r"(?<![\w.=])\d+(?:\.\d+)?(?![\w.]*=)")
_RATE = regex(r"(?<![\w.])(\d+(?:\.\d+)?)\s*GB/s")
_NEWS = regex(r"release notes|changelog|what.s new|更新日志", re.IGNORECASE)
_CELLS = regex(r"\s{2,}|\t|\s*\|\s*")
_VARIABLE = regex(r"(?:NCCL|GLOO|UCX)_[A-Z0-9_]+$")
_PIECE = regex(r"\s{3,}|;\s|,\s(?=\D)|\s\|\s|；|，")
_COMMAND = regex(r"(?:^|\s)(?:\./|/\S*/)?(\w+_perf|torchrun|python3?|mpirun|srun|vllm|deepspeed|accelerate)\b")

Setting = tuple[str, str]


@dataclass
class _Arm:
    """One way of running it, and how that went."""

    line: Line
    settings: frozenset[Setting]
    outcome: str = ""  # "ok", "bad" or ""
    numbers: bool = False
    busbw: dict[int, float] = field(default_factory=dict)
    rate: float = 0.0  # the only figure in GB/s on the line
    open: bool = False  # a heading: the lines below belong to it
    said: bool = False  # the outcome stands in words
    implied: bool = False  # an error without any setting near it


def outcome(text: str) -> str:
    """``ok``, ``bad`` or nothing: how a run went, by the words."""
    plain = _NEGATED_OK.sub(" stuck ", _NEGATED_BAD.sub(" works ", text))
    if _BAD.search(plain):
        return "bad"
    return "ok" if _OK.search(plain) else ""


def settings_of(text: str) -> frozenset[Setting]:
    """Settings that a line names, as variables or in words."""
    found = {(name, value.rstrip(".")) for name, value in _ASSIGN.findall(text)}
    known = {name for name, _ in found}
    found |= {(name, value) for name, value, pattern in _WORDS if name not in known and pattern.search(text)}
    found |= {("NCCL", version) for version in (*_VERSION.findall(text), *_BARE_VERSION.findall(text))}
    return frozenset(found)


class TrialReader:
    """Settings that were tried, with what came of it."""

    name = "nccl_trials"
    needles = (
        b"NCCL",
        b"nccl",
        b"2.1",
        b"2.2",
        b"2.3",
        b"P2P",
        b"GDR",
        b"GPUDirect",
        b"NVLS",
        b"IOMMU",
        b"iommu",
        b"ACS",
        b"GLOO_",
        b"VT-d",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact for each setting and outcome."""
        lines: list[Line] = []
        for line in doc.lines():
            if len(lines) >= SMALL or len(line.text) > LONGEST:  # a program's dump, not a note
                return
            lines.append(line)
        yield from _changes(doc, lines)
        arms = _arms(lines)
        if not arms:
            return
        settings = {a.settings for a in arms}
        if not any(a.said for a in arms if a.settings):
            arms = [a for a in arms if not a.implied]
            settings = {a.settings for a in arms}
            if len(settings) < 2:
                return
        common = frozenset.intersection(*settings) if len(settings) > 1 else frozenset()
        seen = set()
        for arm in arms:
            for setting in sorted(arm.settings - common):
                signal = _judge(arm, setting, arms)
                if (signal, setting) in seen:
                    continue
                seen.add((signal, setting))
                text = re.sub(r"\s+", " ", (arm.line.prefix + arm.line.text).strip())[:160]
                span = (doc.span(arm.line, setting[0]),)
                yield Fact(signal, text, None, Subject(label="=".join(setting)), span, status=doc.status)


_CHANGE = regex(
    r"(?<![\w.])(?P<a>\d+(?:\.\d+)?) ?(?P<au>GB/s|Gb/s|ms|s|us|it/s|img/s)? ?(?:->|→|=>|to) ?(?P<b>\d+(?:\.\d+)?)"
    r" ?(?P<u>GB/s|Gb/s|it/s|img/s|ms|us|s)\b"
)


def _changes(doc: Document, lines: list[Line]) -> Iterator[Fact]:
    """``after NCCL_IB_TC=106: 9.1 -> 41 GB/s``: one line that tells of both runs."""
    for line in lines:
        text = line.prefix + line.text
        hit = _CHANGE.search(text)
        found = sorted(settings_of(text)) if hit is not None and not _LOG.search(text) else []
        if hit is None or len(found) != 1 or re.search(r"unset|without|remov|drop|去掉", text, re.IGNORECASE):
            continue
        before, after = float(hit["a"]), float(hit["b"])
        gain = after / before if "/" in hit["u"] and before else before / after if after else 0.0
        signal = "trial.faster" if gain > 1.15 else "trial.slower" if 0 < gain < 0.87 else ""
        if signal:
            label = Subject(label="=".join(found[0]).rstrip(":"))
            yield Fact(signal, text.strip()[:160], None, label, (doc.span(line, found[0][0]),), status=doc.status)


def _judge(arm: _Arm, setting: Setting, arms: list[_Arm]) -> str:
    """Does a run with the setting go better, worse or not differently from those without it?"""
    others = [a for a in arms if setting not in a.settings]
    mates = [a for a in arms if setting in a.settings]
    failing = any(o.outcome == "bad" for o in others)
    # One good run with a switch says that there was a bad one; one good run of a version says nothing.
    alone = arm.said and setting[0] != "NCCL" and not any(o.outcome for o in others)
    if arm.outcome == "ok" and not any(m.outcome == "bad" for m in mates) and (failing or alone):
        return "trial.helps"
    if arm.outcome == "bad":
        plain = [o for o in others if not o.settings] or others
        good = any(o.outcome == "ok" for o in plain) and not any(o.outcome == "bad" for o in plain)
        return "trial.harms" if good else "trial.no_help"
    plain = [o for o in others if not o.settings and (o.busbw or o.rate)]
    plain = plain or [o for o in others if any(setting[0] == name for name, _ in o.settings)]
    for other in plain:
        if arm.rate and other.rate and not (arm.busbw or other.busbw):
            if arm.rate > 1.15 * other.rate:
                return "trial.faster"
            if other.rate > 1.15 * arm.rate:
                return "trial.slower"
        for size in arm.busbw.keys() & other.busbw.keys():
            if arm.busbw[size] > 1.15 * other.busbw[size]:
                return "trial.faster"
            if other.busbw[size] > 1.15 * arm.busbw[size]:
                return "trial.slower"
    return "trial.setting"


def _arms(lines: list[Line]) -> list[_Arm]:
    arms: list[_Arm] = []
    current: _Arm | None = None
    pending: frozenset[Setting] = frozenset()
    column = ""  # a variable that heads the first column of a table
    for line in _pieces(lines):
        text = line.prefix + line.text if line.prefix.rstrip().endswith(":") else line.text
        if _LOG.search(text) or _NEWS.search(text):
            continue
        cells = _CELLS.split(text.strip())
        if column and len(cells) > 1 and not settings_of(text):
            bare = _CONTROL.match(cells[0]) is not None
            results = {outcome(cell) for cell in cells[1:]} - {""}
            if results:
                own: frozenset[Setting] = frozenset() if bare else frozenset({(column, cells[0])})
                arms.append(_Arm(line, own, "bad" if "bad" in results else "ok", said=True))
                continue
        if len(cells) > 1 and (named := _VARIABLE.match(cells[0])):
            column = named[0]
            continue
        if not text.strip():
            pending, column = frozenset(), ""
            continue
        row = _ROW.match(text)
        if row is not None:
            if current is not None:
                _add_row(current, text, row[1])
            continue
        found = settings_of(text)
        control = _CONTROL.match(text.lstrip("#-=*>$ \t")) is not None and not (found - _off(text))
        rest = _ASSIGN.sub(" ", text)
        result = outcome(rest)
        heading = bool(re.match(r"\s*(?:#|//|--|==|\*|>>|\[)", text)) or text.rstrip().endswith((":", "："))
        if found and not control and not _HELD.match(text):
            bare = not re.sub(r"[\W\d_]+|\b(?:and|with|set|run|arm|case|same|command)\b", "", rest)
            figures = bool(_NUMBER.search(rest)) and not _COMMAND.search(rest)
            if result or figures or heading or _COMMAND.search(rest):
                current = _Arm(line, found | pending, result, figures, open=heading, said=bool(result))
                arms.append(current)
                pending = frozenset()
            elif bare:
                if pending and current is not None and current.settings == pending:
                    arms.remove(current)
                pending = pending | found
                current = _Arm(line, pending, "", False, open=True)
                arms.append(current)
        elif control:
            current = _Arm(line, frozenset(), result, bool(_NUMBER.search(rest)), open=heading, said=bool(result))
            arms.append(current)
        elif _COMMAND.search(text) and re.match(r"\s*[$#>]", text):
            current = _Arm(line, frozenset(), result, False, open=True, said=bool(result))
            arms.append(current)
        elif current is not None and result and not current.outcome and (current.open or _indented(text)):
            current.outcome, current.said = result, True
        elif result == "bad" and not found:
            arms.append(_Arm(line, frozenset(), result, said=True, implied=True))  # with nothing changed
        elif current is not None and current.open and _NUMBER.search(text):
            current.numbers = True
    for arm in arms:
        rates = _RATE.findall(arm.line.text)
        arm.rate = float(rates[0]) if len(rates) == 1 else 0.0
    return [a for a in arms if a.outcome or a.numbers or a.busbw]


def _pieces(lines: list[Line]) -> Iterator[Line]:
    """Lines, those that tell of several runs cut into one piece a run."""
    for line in lines:
        parts = [p for p in _PIECE.split(line.text) if p.strip()]
        if len(parts) > 1 and not _LOG.search(line.text):
            if re.search("nccl", line.text, re.IGNORECASE):
                parts = [re.sub(r"^\s*(?=2\.\d+(?:\.\d+)?\s*[:=(]|2\.\d+\.\d+\s)", "NCCL ", p) for p in parts]
            told = [p for p in parts if (settings_of(p) or _CONTROL.match(p.strip())) and outcome(_ASSIGN.sub(" ", p))]
            if len(told) > 1:
                yield from (replace(line, text=p) for p in parts)
                continue
        yield line


def _off(text: str) -> frozenset[Setting]:
    """In a control row ``without P2P_DISABLE`` is no setting."""
    return settings_of(text) if re.search(r"unset|without|去掉|不设", text, re.IGNORECASE) else frozenset()


def _indented(text: str) -> bool:
    return text[:1] in " \t"


def _add_row(arm: _Arm, text: str, rest: str) -> None:
    parts = halves(rest.split(), [])
    size = int(re.match(r"\s*(\d+)", text)[1])  # type: ignore[index]
    for part in parts[:1]:
        if part.busbw is not None:
            arm.busbw[size] = part.busbw
    if any(part.wrong for part in parts):
        arm.outcome = "bad"
    elif parts and parts[0].wrong == 0 and not arm.outcome:
        arm.outcome = "ok"


READERS = [TrialReader()]
