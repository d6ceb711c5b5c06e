"""Pictures: every figure in them is one of the report, nothing is drawn without data, and nothing in them acts."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from xml.etree import ElementTree

import pytest
from diagnose.probes.nccl_rings import RingReader
from diagnose.probes.timeline import COMM, COMPUTE, HOST_COPY, Timeline
from diagnose.probes.timeline_steps import steps

from diagnose.boundary import examine
from diagnose.boundary_pictures import PICTURES, write
from diagnose.document import Document
from diagnose.engine import report as triaged
from diagnose.errors import InputError
from diagnose.host import Host
from diagnose.inputs import open_inputs
from diagnose.models import Report, Stage
from diagnose.pictures import words
from diagnose.pictures.flow import Hop, chain, draw
from diagnose.pictures.plot import figure, ticks
from diagnose.pictures.report import drawings
from diagnose.pictures.svg import Drawing, Svg, style, wide, wrap

from .trees import tree

HERE = Path(__file__).parent
CASES = {
    "nccl": ("all-reduce between my two GPUs is slow", HERE.parent / "evals/samples/nccl-p2p-disabled"),
    "kineto": ("training step is slow", HERE / "data/kineto/input_bound_4steps.json"),
    "serving": ("TTFT is high", HERE / "data/serving"),
    "microbench": ("my kernel is slow", HERE / "data/microbench/h100.json"),
}
_NUMBER = re.compile(r"(?<![\w.#-])\d+(?:\.\d+)?(?:e-?\d+)?")
_SVG = "{http://www.w3.org/2000/svg}"


@cache
def made(case: str) -> Report:
    symptom, path = CASES[case]
    docs, refused = open_inputs([str(path)])
    return triaged(symptom, docs, refused, ("en",))


def said(drawing: Drawing) -> list[str]:
    """Texts of a picture without the marks of its axes."""
    root = ElementTree.fromstring(drawing.svg.file())
    texts = [t for t in root.iter() if t.tag in (f"{_SVG}text", f"{_SVG}title", f"{_SVG}desc")]
    return [t.text or "" for t in texts if t.get("class") != "tick"]


def known(report: Report) -> set[str]:
    """Every figure of a report, from its values and texts, as it may be written: rounded, in %, in ms for s."""
    texts = [f"{e.value} {e.statement} {e.subject.label} {e.quote}" for e in report.evidence]
    texts += [f"{x.what} {x.measured} {x.limit}" for x in report.limits]
    texts += [f"{s.seconds} {s.share} {s.floor}" for s in report.stages]
    whole = [sum(s.seconds for s in report.stages if s.metric == m) for m in ("ttft", "tpot", "e2e")]
    found = {float(n) for n in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", " ".join(texts))} | set(whole)
    return {figure(v * scale) for v in found for scale in (1, 100, 1e3, 1e-3)} | {f"{v:.3g}" for v in found}


@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_one_of_the_report(case: str) -> None:
    report = made(case)
    values = known(report)
    sizes = {2.0**n for n in range(11)}  # 8 B to 512 MiB name message sizes
    drawn = drawings(report)
    assert drawn
    for drawing in drawn:
        counts = {float(len(drawing.rows)), 1.0, 2.0}
        for text in said(drawing):
            for number in map(float, _NUMBER.findall(text)):
                assert number in counts | sizes or figure(number) in values, (drawing.name, text, number)


@pytest.mark.parametrize(("case", "names"), [
    ("nccl", {"bandwidth", "topology", "ring"}), ("kineto", {"gpu-time", "steps", "timeline-0"}),
    ("serving", {"stages-ttft", "request"}), ("microbench", {"memory"}),
])  # fmt: skip
def test_what_is_drawn_of_which_report(case: str, names: set[str]) -> None:
    assert {d.name for d in drawings(made(case))} == names


@pytest.mark.parametrize(("case", "lang"), list(product(CASES, ("en", "zh"))))
def test_pictures_are_wellformed_named_and_stay_the_same(case: str, lang: str) -> None:
    for drawing, again in zip(drawings(made(case), lang), drawings(made(case), lang), strict=True):
        text = drawing.svg.file()
        assert text == again.svg.file()
        root = ElementTree.fromstring(text)
        ids = {e.get("id") for e in root.iter() if e.get("id")}
        assert root.get("role") == "img" and set((root.get("aria-labelledby") or "").split()) <= ids
        assert root[0].text and root[1].text and (root[0].tag, root[1].tag) == (f"{_SVG}title", f"{_SVG}desc")
        assert set(re.findall(r"url\(#([^)]+)\)", text)) <= ids and "http" not in text.replace("http://www.w3.org", "")
        _inside(root, drawing)


def _inside(root: ElementTree.Element, drawing: Drawing) -> None:
    """No text runs over the edge, or into another one on its line."""
    rows: dict[str, list[tuple[float, float, str]]] = {}
    for item in (t for t in root.iter(f"{_SVG}text") if t.get("y")):
        text, x = item.text or "", float(item.get("x") or 0)
        size = wide(text) * 0.88  # `wide` is generous
        low = x - {"end": size, "middle": size / 2}.get(item.get("text-anchor") or "", 0.0)
        assert low >= -1 and low + size <= drawing.svg.width + 1, (drawing.name, text)
        rows.setdefault(item.get("y") or "", []).append((low, low + size, text))
    for row in rows.values():
        row.sort()
        for (_, end, text), (start, _, other) in pairwise(row):
            assert start >= end - 1, (drawing.name, text, other)


def test_no_data_no_picture() -> None:
    assert drawings(triaged("everything is slow", [])) == []
    assert drawings(triaged("all-reduce is slow", [Document.of("x.log", b"NCCL INFO Channel 00/02 :    0\n")])) == []
    assert draw("x", chain("x", [])) is None


def test_texts_are_escaped_and_shown_whole() -> None:
    svg = Svg("x", "<b>", 'a "quote" & more', 100, 50)
    svg.add("text", "</text><script>alert(1)</script>\x1b[31m\u202e", hint="]]><x>", class_='"><x y="')
    root = ElementTree.fromstring(svg.file())
    assert not [e for e in root.iter() if e.tag.endswith(("script", "}x", "}b"))]
    assert "\x1b" not in svg.file() and "\u202e" not in svg.inline()
    assert wrap("one two three four", wide("one two"), 2) == ["one two", "three…"]
    assert all(wide(row) <= 60 for row in wrap("数据并行训练里的通信没有被计算掩盖" * 3, 60, 9))


def test_words_are_in_both_languages() -> None:
    assert set(words._EN) == set(words._ZH)
    assert all(words._EN[k].count("{}") >= words._ZH[k].count("{}") for k in words._EN)


@pytest.mark.parametrize("top", [0.0, 0.003, 1.0, 27.56, 370.8, 1e6])
def test_ticks_reach_the_top(top: float) -> None:
    got = ticks(top)
    assert got[0] == 0 and got[-1] >= top * 0.999 and len(got) <= 12


def test_figures_have_no_exponent_where_one_can_do_without() -> None:
    assert [figure(x) for x in (0.0, 0.08022, 98.748, 12345.6)] == ["0", "0.08022", "98.75", "12346"]


# --- steps of a trace


def timeline() -> Timeline:
    """Three steps of 1,000 us on the host; on the GPU 100 us later a copy, compute, communication half covered."""
    line = Timeline()
    for n in range(3):
        at = n * 1000.0
        line.steps.append((at, at + 990))
        for kind, start, end in ((HOST_COPY, 100, 150), (COMPUTE, 150, 500), (COMM, 400, 700)):
            line.gpu_start.append(at + start)
            line.gpu_end.append(at + end)
            line.gpu_kind.append(kind)
            line.gpu_launch.append(at + 5)
    return line


def test_parts_of_a_step_add_up() -> None:
    got = steps(timeline())
    assert [s.name for s in got] == ["2", "3"]
    parts = got[0].parts
    assert math.isclose(parts["span"], 1.0) and math.isclose(parts["busy"], 0.6)
    assert math.isclose(parts["comm_exposed"], 0.2) and math.isclose(parts["copy_exposed"], 0.05)
    for step in got:
        idle = sum(step.parts[k] for k in ("launch", "sync", "input", "host", "device"))
        assert math.isclose(step.parts["busy"] + idle, step.parts["span"], abs_tol=1e-6)
    lanes = next(s.lanes for s in got if s.lanes)
    assert [(round(a, 3), round(b, 3)) for a, b in lanes["exposed"]] == [(0.4, 0.6)]
    assert [(round(a, 3), round(b, 3)) for a, b in lanes["comm"]] == [(0.3, 0.6)]


def test_a_trace_without_steps_is_one_window() -> None:
    line = timeline()
    line.steps = []
    got = steps(line)
    assert [s.name for s in got] == ["window"] and math.isclose(got[0].parts["span"], 2.6)


# --- paths of a machine


def test_ring_of_a_log_and_its_picture() -> None:
    log = b"".join(b"h:1:1 [0] NCCL INFO Channel 0%d/02 :    0   2   1   3\n" % n for n in range(2))
    assert [f.value for f in RingReader().parse(Document.of("x", log))] == ["0 2 1 3"]
    ring = next(d for d in drawings(triaged("all-reduce is slow", [Document.of("x.log", log)])) if d.name == "ring")
    assert [t for t in said(ring) if t.startswith("rank ")] == ["rank 0", "rank 2", "rank 1", "rank 3"]
    assert ring.svg.inline().count("<polygon") == 4


def test_all_pictures_of_a_machine(tmp_path: Path) -> None:
    data = examine(Host.at({}, tree(tmp_path / "tree", "gdr_off")))
    log = tmp_path / "nccl.log"
    log.write_text("h:1:1 [0] NCCL INFO Channel 00/02 :    0   1\n")
    lines = write(tmp_path / "out", data, str(log), "zh")
    assert [x for x in lines if "没有图" in x] == [x for x in lines if x.startswith("memory")]
    assert {p.stem for p in (tmp_path / "out").glob("*.svg")} == set(PICTURES) - {"memory"}
    text = (tmp_path / "out/gpudirect.svg").read_text("utf-8")
    assert "400 Gb/s" in text and "✗ 无" in text and "✓ 有" in text and "模拟数据" in text
    assert (tmp_path / "out/gpudirect.mmd").read_text("utf-8").startswith("flowchart")
    with pytest.raises(InputError):
        write(log, data)


def test_paths_of_a_report_say_only_what_was_read(tmp_path: Path) -> None:
    log = b"UCX transfers\n$ ibv_devinfo\nNo IB devices found\n"
    report = triaged("UCX transfers are slow", [Document.of("x.txt", log)])
    assert not [d for d in drawings(report) if d.name in ("tcp", "rdma", "kv")]  # one reading makes no picture
    hop = draw("x", chain("x", [Hop("a", None, ""), Hop("b", False, "not there", "7 GB/s")]))
    assert hop and hop.rows == [("a", "unknown", "", ""), ("b", "absent", "7 GB/s", "not there")]


def test_a_stage_without_its_time_is_not_drawn() -> None:
    report = triaged("TTFT is high", [])
    report.stages = [Stage(metric="ttft", stage="queue", seconds=0.0, share=0.0)]
    assert drawings(report) == []


def test_json_of_a_step_is_text_that_reads_back() -> None:
    items = [e for e in made("kineto").evidence if e.signal == "trace.step_parts"]
    assert len(items) == 3 and all(re.fullmatch(r"(?:[a-z_]+ [\d.e-]+ ?)+", str(e.value)) for e in items)
    assert json.loads(made("kineto").model_dump_json())["evidence"]


def test_texts_stand_out_from_what_is_behind_them() -> None:
    css = style()
    light, dark = css.split("@media", 1)

    def colours(text: str, kind: str) -> dict[str, str]:
        return {m[1]: m[2] for m in re.finditer(rf"\.pic ((?:text)?\.?\w*) \{{ {kind}: (#\w+)", text)}

    for text in (light, dark):
        found = colours(text, "fill")
        words_ = [found[k] for k in ("text", "text.soft", "text.good", "text.bad")]
        behind = [found[k] for k in (".ground", ".node", ".present", ".absent", ".unknown", ".longest")]
        assert min(contrast(a, b) for a in words_ for b in behind) >= 4.5


def contrast(a: str, b: str) -> float:
    """By WCAG 2."""

    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
        parts = (int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4))
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
