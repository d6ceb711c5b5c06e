"""Reports as pages, SARIF and JUnit: valid by their own tools, nothing from a log acts, cited lines are there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from diagnose.cli import _run
from diagnose.document import Document
from diagnose.engine import report as triaged
from diagnose.inputs import open_inputs
from diagnose.junit import junit
from diagnose.models import Report
from diagnose.pictures.plot import ticks
from diagnose.pictures.report import bandwidth, edges, latency, topology
from diagnose.report_excerpts import excerpts
from diagnose.report_file import Loaded, of
from diagnose.report_page import MAX_BYTES, page
from diagnose.sarif import sarif

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "evals/samples/nccl-p2p-disabled"
SCHEMA = json.loads((ROOT / "tests/data/sarif/sarif-schema-2.1.0.json").read_text())
HOSTILE = (
    "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{7*7}} \x1b[31mred\x1b[0m \u202egpj.exe\u2069"
)


@cache
def sample() -> tuple[dict[str, Any], tuple[Document, ...]]:
    docs, refused = open_inputs([str(SAMPLE)])
    made = triaged("all-reduce between my two GPUs is slow", docs, refused, ("en", "zh"))
    return made.model_dump(mode="json", by_alias=True), tuple(docs)


def loaded(change: Any = None) -> Loaded:
    data = json.loads(json.dumps(sample()[0]))
    if change:
        change(data)
    return of(data)


def hostile(data: dict[str, Any]) -> None:
    """Every text that comes from a log or a name says something nasty; ids and enumerations stay what they are."""
    for item in data["evidence"]:
        item["statement"] = item["quote"] = HOSTILE
        for span in item["spans"]:
            span["quote"] = span["capture"] = HOSTILE
        if item["capture"]:
            item["capture"]["name"] = HOSTILE
        if item["signal"] == "topo.link":
            item["value"] = HOSTILE
    for item in data["inputs"]:
        item["name"] = item["reason"] = HOSTILE
    data["symptom"] = HOSTILE
    for finding in data["findings"]:
        finding["summary"] = HOSTILE
    data["findings"][0]["cause"] = HOSTILE
    for item in data["limits"]:
        item["what"] = HOSTILE
    for probe in data["next_probes"]:
        probe["command"] = HOSTILE
    for answer in data["answer"].values():
        answer["verdict"] = answer["short"] = HOSTILE


class Elements(HTMLParser):
    """Start tags, with where each id and link points; unbalanced tags are found by `open`."""

    VOID = frozenset(["meta", "br", "hr", "img", "link", "input"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.wrong.append(tag)


def test_page_is_one_file_that_fetches_nothing() -> None:
    text = page(loaded(), sample()[1])
    seen = Elements(text)
    assert not seen.wrong and not seen.stack
    assert len(text.encode()) < MAX_BYTES
    assert not {t for t, _ in seen.tags} & {"link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attrs in seen.tags:
        assert not [a for a in attrs if a.startswith("on") or a in ("src", "srcset", "style", "xlink:href")]
        assert (attrs.get("href") or "#").startswith("#")
    css = "".join((ROOT / "diagnose/templates" / name).read_text() for name in ("report.css", "picture.css"))
    assert "url(" not in css and "@import" not in css and "prefers-color-scheme: dark" in css and "@media print" in css


def test_every_link_leads_somewhere_and_ids_are_unique() -> None:
    seen = Elements(page(loaded(), sample()[1]))
    ids = [a["id"] for _, a in seen.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    links = [str(a["href"])[1:] for t, a in seen.tags if t == "a"]
    assert not [x for x in links if x not in ids]
    named = [x for _, a in seen.tags for x in str(a.get("aria-labelledby") or "").split()]
    assert not [x for x in named if x not in ids]


def test_evidence_opens_the_capture_at_its_line() -> None:
    text = page(loaded(), sample()[1])
    hit = re.search(r'<a href="#(c\d+-L34)">nccl\.log:34</a>', text)
    assert hit
    row = re.search(rf'id="{hit[1]}">(.*?)</div>', text)
    assert row and "NCCL_P2P_DISABLE set by environment to 1" in row[1]
    assert "Init START" not in re.sub(r'<script type="application/json".*?</script>', "", text)  # a line nobody cites


def test_verdict_comes_first_and_both_languages_are_marked() -> None:
    text = page(loaded(), sample()[1])
    assert text.index("CAUSE FOUND") < text.index("<h1>") < text.index('id="findings"') < text.index('id="captures"')
    assert '<html lang="en">' in text and '<div lang="zh">' in text and "30 秒版" in text
    zh = page(loaded(lambda d: d.update(answer={"zh": d["answer"]["zh"]}, lang="zh")))
    assert '<html lang="zh">' in zh and "已找到原因" in zh


def test_nothing_hostile_acts() -> None:
    plain, text = Elements(page(loaded())), page(loaded(hostile))
    seen = Elements(text)
    assert not seen.wrong and not seen.stack
    assert [t for t, _ in seen.tags].count("script") == [t for t, _ in plain.tags].count("script") == 2
    assert not [t for t, _ in seen.tags if t == "img"]
    assert "\x1b" not in text and "\u202e" not in text and "\u2069" not in text
    assert "{{7*7}}" in text and "[31m" not in text.split('id="data"')[0]
    assert json.loads(embedded(text))["symptom"] == HOSTILE


def embedded(text: str) -> str:
    hit = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert hit
    return hit[1]


def test_policy_allows_just_this_style_and_script() -> None:
    import base64
    import hashlib

    text = page(loaded())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy and "default-src &#39;none&#39;" in policy[1]
    for tag in ("style", "script"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert body
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy[1].replace("&#43;", "+")


def test_json_is_embedded_and_the_page_stays_small() -> None:
    text = page(loaded(), sample()[1])
    assert json.loads(embedded(text)) == sample()[0]

    def bloated(data: dict[str, Any]) -> None:
        data["evidence"] += [
            data["evidence"][0] | {"id": f"X{n}", "statement": "y" * 900, "inputs": []} for n in range(1500)
        ]

    text = page(loaded(bloated), sample()[1])
    assert len(text.encode()) < MAX_BYTES
    assert len(json.loads(embedded(text))["evidence"]) < 1500 and "only the evidence that is cited" in text


def test_capture_that_changed_or_is_away_gives_its_quotes_only() -> None:
    name = sample()[1][0].name
    changed = [Document.of(name, b"something else\n")]
    for docs, note in ((changed, "has changed"), ([], "not at hand")):
        text = page(loaded(), docs)
        assert note in text and "NCCL_P2P_DISABLE set by environment to 1" in text
        assert "something else" not in text


def test_excerpts_mask_what_nobody_cited() -> None:
    key = "sk-ant-" + "api03abcdefghijklmnop"
    raw = f"one\nexport ANTHROPIC_API_KEY={key}\nbad line\n\x1b[31mred\x1b[0m {key}\n".encode()
    doc = Document.of("x.log", raw)
    made = triaged("slow", [doc])
    item = sample_evidence(made, doc, line=3, quote="bad line")
    got = excerpts([item], made.inputs, [doc])[0]
    assert [r.number for r in got.rows] == [1, 2, 3, 4]
    assert key not in str(got) and "[masked:" in got.rows[1].text
    assert got.rows[3].text.startswith("red ") and got.rows[2].ids == ("E9",)


def sample_evidence(made: Report, doc: Document, line: int, quote: str) -> Any:
    from diagnose.models import Evidence, SpanRef

    span = SpanRef(capture=doc.name, bytes=(0, len(quote)), line=line, quote=quote)
    return Evidence(id="E9", kind="observed", signal="text.error", spans=[span])


def test_long_capture_is_cut_to_its_budget() -> None:
    doc = Document.of("x.log", b"".join(b"line %d %s\n" % (n, b"z" * 300) for n in range(3000)))
    made = triaged("slow", [doc])
    cited = [sample_evidence(made, doc, line=n, quote=f"line {n - 1}") for n in range(10, 2900, 9)]
    got = excerpts(cited, made.inputs, [doc], budget=20_000)[0]
    assert sum(len(r.text) for r in got.rows) <= 20_000 and all(r.ids for r in got.rows) and "left out" in got.note


def test_bandwidth_plot_has_its_ceiling() -> None:
    report = loaded().report
    assert report
    plot = bandwidth(report)
    assert plot and "limit 370.8 GB/s" in (text := plot.svg.inline()) and "512 MiB: 27.56 GB/s" in text
    assert "band of healthy runs" in text and text.index('class="usual"') < text.index("<polyline")
    assert text.count("<polyline") == 2 and "limit is 370.8 GB/s" in plot.svg.desc
    assert all(row[-1].startswith("E") for row in plot.rows)
    zh = bandwidth(report, "zh")
    assert zh and "上限 370.8 GB/s" in zh.svg.inline()


def test_bad_edge_of_the_topology() -> None:
    report = loaded().report
    assert report
    assert [(e.kind, e.bad, e.style) for _, e, _ in edges(report)[1]] == [("NV18", "SHM/direct/direct", "badedge")]
    got = topology(report)
    assert got and "NV18, used: SHM/direct/direct" in got.svg.inline() and "a finding rests on it" in got.svg.inline()


def test_drawn_evidence_opens_its_line() -> None:
    text = page(loaded(), sample()[1])
    report = loaded().report
    assert report
    drawn = bandwidth(report)
    assert drawn
    ident = drawn.rows[-1][-1]
    hit = re.search(rf'<td><a href="#(ev\d+)">{ident}</a>', text)
    assert hit and re.search(rf'<li id="{hit[1]}">.*?<a href="#c\d+-L\d+">', text)


def matrix(gpus: int) -> bytes:
    names = [f"GPU{g}" for g in range(gpus)]
    kinds = [["X" if a == b else ("PIX" if a // 4 == b // 4 else "SYS") for b in range(gpus)] for a in range(gpus)]
    lines = ["\t" + "\t".join([*names, "CPU Affinity", "NUMA Affinity"])]
    lines += ["\t".join([names[a], *kinds[a], "0-31", "0"]) for a in range(gpus)]
    return ("$ nvidia-smi topo -m\n" + "\n".join(lines) + "\n").encode()


def test_topology_of_eight_gpus() -> None:
    made = triaged("all-reduce is slow", [Document.of("topo.txt", matrix(8))])
    places, found = edges(made)
    assert len(places) == 8 and len(found) == 28 and {e.style for _, e, _ in found} == {"pcie", "far"}
    assert not Elements(page(of(made.model_dump(mode="json", by_alias=True)))).wrong


def run_of(rate: float, ttft: float) -> bytes:
    return json.dumps(
        {"backend": "vllm", "num_prompts": 64, "request_rate": rate, "duration": 20.0, "completed": 64,
         "total_input_tokens": 65536, "total_output_tokens": 8192, "request_throughput": rate * 0.98,
         "output_throughput": 400.0, "total_token_throughput": 3600.0, "mean_ttft_ms": ttft * 1.1,
         "median_ttft_ms": ttft, "p99_ttft_ms": ttft * 4, "mean_tpot_ms": 9.0, "median_tpot_ms": 9.0,
         "p99_tpot_ms": 12.0}, indent=1
    ).encode()  # fmt: skip


def test_latency_over_rate_needs_several_runs() -> None:
    docs = [Document.of(f"run{r}.json", run_of(r, 40 * r)) for r in (1.0, 2.0, 4.0)]
    plot = latency(triaged("TTFT rises with load", docs))
    assert plot and [text in plot.svg.inline() for text in ("1 req/s: 40 ms", "2 req/s: 80 ms", "4 req/s: 640 ms")]
    assert plot.svg.inline().count("<circle") == 4 and len(plot.rows) == 6  # three points and the one of the legend
    assert latency(triaged("TTFT rises with load", docs[:1])) is None


@pytest.mark.parametrize("top", [0.0, 0.003, 1.0, 27.56, 370.8, 1e6])
def test_ticks_reach_the_top(top: float) -> None:
    got = ticks(top)
    assert got[0] == 0 and got[-1] >= top * 0.999 and len(got) <= 12


# --- SARIF and JUnit


def audit_data() -> dict[str, Any]:
    from diagnose.audit_models import Audit

    evidence = dict(sample()[0]["evidence"][0], id="E1")
    made = Audit.model_validate(
        {
            "tool": {"version": "1", "catalogue": "c"}, "machine": "node1",
            "findings": [
                {"check": "host.shm.small", "group": "host", "severity": "medium", "title": {"en": "Small /dev/shm"},
                 "because": "NCCL keeps buffers there.", "evidence": ["E1"],
                 "fix": {"text": {"en": "Mount more."}}},
            ],
            "checks": [
                {"id": "host.shm.small", "group": "host", "severity": "medium", "status": "finding",
                 "evidence": ["E1"]},
                {"id": "gpu.ecc", "group": "gpu", "severity": "high", "status": "unknown", "reason": "no nvidia-smi"},
                {"id": "host.clock", "group": "host", "severity": "low", "status": "passed"},
            ],
            "evidence": [evidence], "inputs": sample()[0]["inputs"],
        }
    )  # fmt: skip
    return made.model_dump(mode="json", by_alias=True)


def nothing(verdict: str) -> Any:
    return lambda d: d.update(verdict=verdict, findings=[], chain=[])


def fleet_data() -> dict[str, Any]:
    """Three nodes: one with a finding and its line, one without GPUs to compare, one that failed."""
    line = {"capture": "n1/host.limits.txt", "bytes": [0, 12], "line": 3, "quote": "memlock \x1b[31m64 <kB>"}
    return {
        "schema": "diagnose.fleet/v1", "tool": {"version": "1", "catalogue": "c"},
        "nodes": [{"name": "n1", "hardware": "no GPU", "worst": "high"}, {"name": "n2", "hardware": "no GPU"}],
        "checks": [
            {"check": "host.memlock", "severity": "high", "title": {"en": "Memory cannot be locked"},
             "fix": {"en": "Raise it."}, "nodes": ["n1", "n2"], "where": {"n1": line}},
            {"check": "platform.no_gpu", "severity": "info", "title": {"en": "No GPU"}, "fix": {"en": ""},
             "nodes": ["n2"]},
        ],
        "outliers": [{"node": "n2", "hardware": "no GPU", "signal": "gpu.clock.sm", "subject": "gpu 1", "value": 900,
                      "unit": "MHz", "median": 1980, "deviations": None, "compared": 8, "slow": True}],
        "mixed": [{"hardware": None, "signal": "version", "subject": "label driver", "usual": "580.1", "nodes": 2,
                   "others": {"570.2": ["n1"]}}],
        "slow": ["n2"], "missing": ["n4"], "failed": [{"name": "n3", "reason": "no answer within 5 s"}],
    }  # fmt: skip


CASES = {
    "fleet": lambda: of(fleet_data()),
    "cause": lambda: loaded(), "hostile": lambda: loaded(hostile), "healthy": lambda: loaded(nothing("healthy")),
    "open": lambda: loaded(nothing("inconclusive")), "audit": lambda: of(audit_data()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_sarif_is_valid_by_the_official_schema(case: str) -> None:
    log = sarif(CASES[case]())
    validator = jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
    assert not [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(log)]
    assert "\x1b" not in json.dumps(log, ensure_ascii=False)


def test_sarif_says_rule_level_and_line() -> None:
    run = sarif(loaded())["runs"][0]
    assert [r["ruleId"] for r in run["results"]] == ["nccl.env_override", "nccl.p2p_disabled"]
    assert [r["level"] for r in run["results"]] == ["error", "warning"]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "nccl.log" and place["region"]["startLine"] == 34
    assert run["artifacts"][place["artifactLocation"]["index"]]["location"]["uri"] == "nccl.log"
    assert run["tool"]["driver"]["rules"][1]["id"] == "nccl.p2p_disabled"
    healthy = sarif(loaded(nothing("healthy")))["runs"][0]
    assert healthy["results"] == [] and healthy["invocations"][0]["toolExecutionNotifications"][0]["level"] == "note"


def test_a_withdrawn_finding_is_no_result() -> None:
    got = loaded(lambda d: d["findings"][0].update(status="withdrawn"))
    assert [r["ruleId"] for r in sarif(got)["runs"][0]["results"]] == ["nccl.p2p_disabled"]
    assert "withdrawn after an experiment" in page(got)


_COUNTED = {"name", "tests", "failures", "errors", "time"}
ALLOWED = {"testsuites": _COUNTED, "testsuite": _COUNTED | {"skipped"}, "testcase": {"name", "classname", "time"},
           "failure": {"message", "type"}, "error": {"message", "type"}, "skipped": {"message", "type"},
           "system-out": set()}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_junit_is_read_by_an_independent_library(case: str) -> None:
    from junitparser import Error, Failure, JUnitXml, Skipped

    got = CASES[case]()
    for element in ElementTree.fromstring(junit(got)).iter():  # what the schema of Jenkins' xUnit plugin allows
        assert set(element.attrib) <= ALLOWED[element.tag]
    xml = JUnitXml.fromstring(junit(got).encode())
    suite = next(iter(xml))
    cases = list(suite)
    kinds = [type(c.result[0]) if c.result else None for c in cases]
    assert kinds.count(Failure) == suite.failures == sum(i.severity != "info" for i in got.single)
    assert kinds.count(Error) == suite.errors == sum(i.sha256 is None for i in got.inputs)
    assert kinds.count(Skipped) == suite.skipped and len(cases) == suite.tests
    if case == "audit":
        assert {c.name: k for c, k in zip(cases, kinds, strict=True)} == {
            "host.shm.small": Failure, "gpu.ecc": Skipped, "host.clock": None,
        }  # fmt: skip
    if case == "open":
        assert cases[0].name == "verdict" and kinds[0] is Skipped


def test_a_fleet_in_every_form(tmp_path: Path) -> None:
    run = sarif(of(fleet_data()))["runs"][0]
    assert [(r["ruleId"], r["locations"][0]["logicalLocations"][0]["name"]) for r in run["results"]] == [
        ("fleet.missing", "n4"), ("host.memlock", "n1"), ("host.memlock", "n2"), ("platform.no_gpu", "n2"),
        ("fleet.apart.gpu.clock.sm", "n2"), ("fleet.mixed.version.driver", "n1"),
    ]  # fmt: skip
    place = run["results"][1]["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("n1/host.limits.txt", 3)
    assert "no answer within 5 s" in json.dumps(run["invocations"])
    text = junit(of(fleet_data()))
    assert 'errors="1"' in text and 'classname="diagnose.fleet.n1"' in text and "900 MHz, median 1980" in text
    shown = page(of(fleet_data()))
    seen = Elements(shown)
    assert not seen.wrong and not seen.stack and "n1, n2" in shown and "no answer within 5 s" in shown
    source = tmp_path / "fleet.json"
    source.write_text(json.dumps(fleet_data()))
    assert _run(["report", str(source), "--format", "md", "-o", str(tmp_path / "f.md")]) == 0
    assert "## nodes that could not be read" in (tmp_path / "f.md").read_text()


def test_audit_as_a_page() -> None:
    text = page(of(audit_data()), sample()[1])
    seen = Elements(text)
    assert not seen.wrong and not seen.stack
    assert "host.shm.small" in text and "Mount more." in text and "gpu.ecc" in text and "no nvidia-smi" in text


# --- the command


def test_command_writes_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "r.json"
    source.write_text(json.dumps(sample()[0]))
    shutil.copy(SAMPLE / "nccl.log", tmp_path)
    for name, start in (("html", "<!doctype html>"), ("md", "## "), ("sarif", "{"), ("junit", "<?xml")):
        out = tmp_path / f"out.{name}"
        assert _run(["report", str(source), "--format", name, "-o", str(out)]) == 0
        assert out.read_text("utf-8").startswith(start)
    assert "dlvsym" in (tmp_path / "out.html").read_text("utf-8")  # found beside the report, a line that is not cited
    capsys.readouterr()
    assert _run(["report", str(source), "-f", "junit"]) == 0
    assert capsys.readouterr().out.startswith("<?xml")


def test_mistakes_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, no_report = tmp_path / "bad.json", tmp_path / "x.json"
    bad.write_text("{")
    no_report.write_text('{"schema": "other"}')
    good = tmp_path / "good.json"
    good.write_text(json.dumps(sample()[0]))
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(sample()[0] | {"verdict": "maybe"}))
    for argv in (["report", str(bad)], ["report", str(no_report)], ["report", str(tmp_path / "none.json")],
                 ["report", str(wrong)], ["report", str(good), "-f", "pdf"], ["report", str(good), "-o", str(good)],
                 ["report", str(good), "-f", "junit", "-o", str(tmp_path / "no" / "x.xml")]):  # fmt: skip
        assert _run(argv) == 3
        said = capsys.readouterr().err
        assert said.startswith("diagnose: ") and "defect" not in said and "Traceback" not in said
    assert json.loads(good.read_text()) == sample()[0]


def test_report_names_open_nothing_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.log").write_text("outside\n" * 50)
    data = json.loads(json.dumps(sample()[0]).replace("nccl.log", "../secret.log"))
    source = tmp_path / "inner" / "r.json"
    source.write_text(json.dumps(data))
    assert _run(["report", str(source)]) == 0
    assert "outside" not in capsys.readouterr().out


def test_without_jinja2_one_clear_line(tmp_path: Path) -> None:
    source = tmp_path / "r.json"
    source.write_text(json.dumps(sample()[0]))
    code = "import sys; sys.modules['jinja2'] = None; from diagnose.cli import main; main(['report', sys.argv[1]])"
    got = subprocess.run([sys.executable, "-c", code, str(source)], capture_output=True, text=True, cwd=tmp_path)
    assert got.returncode == 3 and got.stderr.splitlines()[0] == "diagnose: the HTML report needs jinja2"
    assert "gpu-diagnose[report]" in got.stderr


@pytest.mark.skipif(not shutil.which("chromium-headless-shell"), reason="no headless browser here")
def test_browser_runs_the_page_and_not_what_is_in_it(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text(page(loaded(hostile)), "utf-8")
    argv = [str(shutil.which("chromium-headless-shell")), "--no-sandbox", "--disable-gpu", "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}", target.as_uri()]  # fmt: skip
    got = subprocess.run(argv, capture_output=True, text=True, timeout=90, env=dict(os.environ, LC_ALL="C.UTF-8"))
    assert "<button" in got.stdout  # our own script ran under its policy
    assert "<img" not in got.stdout and "Content Security Policy" not in got.stderr


def test_audit_says_how_bad_its_worst_finding_is() -> None:
    assert '<span class="chip medium">WORST FINDING: medium</span>' in page(of(audit_data()))
    clean = audit_data() | {"findings": [], "lang": "zh"}
    assert '<span class="chip healthy">没有发现问题</span>' in page(of(clean))


@pytest.mark.parametrize("case", CASES)
def test_page_is_valid_html5_by_an_independent_parser(case: str) -> None:
    import html5lib

    parser = html5lib.HTMLParser()
    parser.parse(page(CASES[case](), sample()[1]))
    assert not [(where, what) for where, what, _ in parser.errors]
