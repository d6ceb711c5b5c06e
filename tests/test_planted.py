"""Planted secrets: found wherever they stand, never in anything that is written, and logs without one stay readable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from diagnose.evals.planted import KINDS, LEAST, Planted, leaked, masked_in, misses, planted

from diagnose.audit import Options as AuditOptions
from diagnose.audit import Seen, audit
from diagnose.cassette import Cassette
from diagnose.catalogue import catalogue
from diagnose.cli import _run
from diagnose.collect import Capture, NotCaptured
from diagnose.document import Document
from diagnose.engine import report as make_report
from diagnose.gather import gather, number
from diagnose.inputs import open_inputs
from diagnose.llm import Options, shown
from diagnose.llm_client import Endpoint
from diagnose.mask import mask, mask_evidence, mask_words, secrets
from diagnose.mcp_service import Service
from diagnose.models import Report
from diagnose.report_command import render
from diagnose.report_file import load

ROOT = Path(__file__).parents[1]
BAR = 0.99


def test_set_is_large_and_repeatable() -> None:
    items = planted(1)
    assert len(items) >= 300 and len(KINDS) >= 40 and items == planted(1) and items != planted(2)
    assert all(item.secret in item.text for item in items)


@pytest.mark.parametrize("seed", [1, 2])
def test_recall(seed: int) -> None:
    items = planted(seed)
    missed = misses(items)
    assert len(missed) <= (1 - BAR) * len(items), [(m.kind, m.text) for m in missed]


@pytest.mark.parametrize("form", ["utf-16", "crlf", "coloured", "json"])
def test_recall_in_other_forms(form: str) -> None:
    wrong = []
    for item in planted(4, each=1)[::3]:
        if not item.secret.isascii() or "\n" in item.secret or item.kind == "chinese label":
            continue
        line = next(x for x in item.text.split("\n") if item.secret in x)
        if form == "utf-16":
            raw = item.text.encode("utf-16")
            found = [raw[a:b].replace(b"\0", b"").decode("latin-1") for a, b, _ in secrets(raw)]
            left = item.text.replace(item.secret, "") if any(item.secret in f for f in found) else item.text
        elif form == "crlf":
            left = mask(item.text.replace("\n", "\r\n"))
        elif form == "coloured":
            left = mask(item.text.replace(item.secret, f"\x1b[36m{item.secret}\x1b[0m"))
        else:
            left = mask(json.dumps({"log": line + " "}))
        if leaked(item.secret, left):
            wrong.append((item.kind, line))
    assert len(wrong) <= 3, wrong


HARMLESS = """\
GET /v1/models?key=value&code=200 HTTP/1.1
curl -sS --user-agent bench:1.2 http://127.0.0.1:8000/metrics
docker run -p 8000:8000 --gpus all img
mysql: [Warning] Using a password on the command line interface can be insecure.
ipmitool -I lanplus -H 10.0.0.3 -p 623 sensor
pwd=/root/work;ls
session_id=5ed3c7a1-1a2b-3c4d-5e6f-0123456789ab request_id=cmpl-0123456789abcdef0123456789abcdef
输出令牌：512/s 密码错误 密钥已过期 令牌: 4096 tokens
[AUTH] plugin loaded; NCCL AUTH disabled by configuration
client-certificate-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSURBVENDQWVtZ0F3SUJBZ0lC
x-request-id: 5ed3c7a1-1a2b-3c4d-5e6f-0123456789ab traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
commit a29280d0123456789abcdef0123456789abcdef0 vllm-0.11.0+cu129 sha256:0123456789abcdef0123456789abcdef
fe80:0000:0000:0000:0002:c903:000e:0b72 guid=0x0002c903000e0b72 rkey=0x1b2c3d4e5f60718293a4b5c6
Cookie: none
  max_token: 32k
password: 12 ms
""".splitlines()


@pytest.mark.parametrize("line", HARMLESS)
def test_harmless_line_stays(line: str) -> None:
    assert mask(line) == line


def test_no_false_positive_on_captures_of_the_tests() -> None:
    found = {p.name: got for p in sorted((ROOT / "tests/data").rglob("*")) if p.is_file() and p.suffix != ".sqlite"
             if (got := masked_in(p.read_bytes()))}  # fmt: skip
    assert found == {} or set(found) == {"14-json.json"}


def test_words_of_a_command_belong_together() -> None:
    argv = ("vllm", "serve", "--api-key", "tok3n-abcdef-123", "--port", "8000")
    assert mask_words(argv) == ("vllm", "serve", "--api-key", "[masked: credential]", "--port", "8000")


def test_a_config_map_beside_a_secret_stays_readable() -> None:
    text = "kind: ConfigMap\ndata:\n  nccl: NCCL_DEBUG_INFO\n---\nkind: Secret\ndata:\n  hub: aHVudGVyMg==\n"
    assert mask(text) == text.replace("aHVudGVyMg==", "[masked: kubernetes secret]")


# --- nothing that is written holds one

TOKEN = "hf" + "_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3h"
SYMPTOM = f"requests are slow with HF_TOKEN={TOKEN}"


@lru_cache(maxsize=1)
def items() -> list[Planted]:
    """One of each kind that is long enough not to be a word."""
    some = {i.kind: i for i in planted(5, each=1) if len(i.secret) >= 12}
    return [*some.values(), Planted("token", TOKEN, "")]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    texts = [i.text for i in items()]
    (folder / "a.log").write_text("\n".join(texts[::2]) + "\n", "utf-8")
    (folder / "b.log").write_text(
        "\n".join(texts[1::2]) + f"\nNamespace(api_key='{TOKEN}', max_num_seqs=256)\nvllm serve m --api-key {TOKEN}\n",
        "utf-8",
    )
    (folder / f"run-{TOKEN}.log").write_text(f"TTFT p50 120 ms p99 9000 ms\nHF_TOKEN={TOKEN}\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def documents(evidence: Path) -> list[Document]:
    return open_inputs([evidence])[0]


@pytest.fixture(scope="module")
def report(documents: list[Document]) -> Report:
    return make_report(mask(SYMPTOM), documents)


def leaks(text: str) -> Iterator[tuple[str, str]]:
    for item in items():
        if part := leaked(item.secret, text):
            at = text.index(part)
            yield item.kind, text[max(0, at - 60) : at + LEAST + 20]


def test_report(report: Report) -> None:
    assert list(leaks(report.model_dump_json())) == [] and len(report.evidence) > 5


@pytest.mark.parametrize("form", ["html", "md", "sarif", "junit"])
def test_forms_of_a_report(form: str, report: Report, evidence: Path, tmp_path: Path) -> None:
    place = tmp_path / "report.json"
    place.write_text(report.model_dump_json(by_alias=True), "utf-8")
    assert list(leaks(render(load(place), form, tmp_path, [str(evidence)]))) == []


def test_state_of_a_run(documents: list[Document]) -> None:
    kept = mask_evidence(number(gather(documents[:1])), documents)
    assert list(leaks("".join(e.model_dump_json() for e in kept))) == []


def test_audit(documents: list[Document]) -> None:
    assert list(leaks(audit(Seen("x", documents), AuditOptions()).model_dump_json())) == []


def test_what_a_model_would_get(report: Report, documents: list[Document]) -> None:
    at = Options(Endpoint("m", f"http://u:{TOKEN}@127.0.0.1:9/v1"))
    assert list(leaks(shown(report, documents, at))) == []


def test_captures_for_an_agent(documents: list[Document], evidence: Path) -> None:
    service = Service([evidence])
    service.keep(documents)
    text = [service.capture(a) for a in service.captures]
    text += [service.capture(a, n, n + 1) for a in service.captures for n in range(1, 200, 9)]  # a key comes in lines
    assert list(leaks("\n".join(text))) == []


def test_recording(evidence: Path, tmp_path: Path) -> None:
    made = Cassette.create(tmp_path / "c.cassette", SYMPTOM)
    data = (evidence / "a.log").read_bytes()
    made.add(
        [
            Capture("host.env", data, f"HF_TOKEN={TOKEN}", {"command": f"x --token {TOKEN}"},
                    ("x", "--api-key", TOKEN), {"HF_TOKEN": TOKEN}),
            NotCaptured("host.cpu", f"cannot run with {TOKEN}"),
        ]
    )  # fmt: skip
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) == 2
    assert list(leaks("".join(p.name + p.read_text("utf-8") for p in written))) == []


@pytest.mark.parametrize(
    "words",
    [["--evidence", f"/no/{TOKEN}"], ["--window", f"HF_TOKEN={TOKEN}"], ["--slo", TOKEN], [f"--{TOKEN}"],
     ["--endpoint", f"http://u:{TOKEN}@h"]],
)  # fmt: skip
def test_mistakes_on_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _run(["slow", *words, "--no-input", "--dry-run" if "--endpoint" in words else "--offline"])
    got = capsys.readouterr()
    assert list(leaks(got.out + got.err)) == []


def test_catalogue_is_not_taken_for_secrets() -> None:
    texts = [c.definition + c.mechanism + c.fix.text for c in catalogue().causes.values()]
    assert [t for t in texts if mask(t) != t] == []
