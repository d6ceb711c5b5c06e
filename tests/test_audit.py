"""The audit: every check fires on a planted reading and not on its counterpart; healthy machines stay silent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diagnose import audit, checks
from diagnose.audit_models import Audit
from diagnose.catalogue import catalogue, plain_yaml
from diagnose.document import Document
from diagnose.errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_OK, InputError, UsageError
from diagnose.gather import number
from diagnose.predicates import Context

HERE = Path(__file__).parent
DATA = HERE / "data" / "audit"
SHARED = HERE.parents[1] / "shared"
PLANTED: dict[str, Any] = plain_yaml((DATA / "planted.yaml").read_text("utf-8"))
IDLE = HERE / "data" / "cassettes" / "h100x2-idle.cassette"


def decided(check: str, texts: list[str], expect: str = "") -> checks.Result:
    documents = [Document.of(f"text{n}.txt", t.encode()) for n, t in enumerate(texts)]
    item = checks.load()[1][check]
    gathered = audit.facts(documents, checks.signals(item))
    assert not [i.reason for i in gathered.inputs if i.reason], "a reader broke"
    gathered.facts += audit.expected(expect)
    return checks.decide(item, Context(number(gathered), recognised=gathered.recognised))


def links(count: int) -> str:
    rows = "".join(f"\t Link {n}: 26.562 GB/s\n" for n in range(count))
    return f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)\n{rows}"


@pytest.mark.parametrize("check", sorted(checks.load()[1]))
def test_fires_on_a_planted_reading_and_not_on_its_counterpart(check: str) -> None:
    plan = PLANTED["checks"][check]
    beside = [PLANTED["bases"][name] for name in plan.get("with", ())]
    got = decided(check, [*beside, plan["fires"]], plan.get("expect", ""))
    assert got.status == "finding", got
    assert got.used or checks.load()[1][check].when, "a rule's finding names its evidence"
    if "clear_links" in plan:
        assert decided(check, [*beside, links(plan["clear_links"])]).status == "passed"
    if "clear" in plan:
        got = decided(check, [*beside, plan["clear"]], plan.get("expect_clear", ""))
        assert got.status == "passed", got
    if "clear_text" in plan:
        assert decided(check, [PLANTED["bases"]["gpus"], plan["clear_text"]]).status == "passed"
    for status in ("unknown", "not_applicable"):
        if status in plan:
            assert decided(check, [*beside, plan[status]]).status == status


def test_every_planted_reading_belongs_to_a_check() -> None:
    assert set(PLANTED["checks"]) == set(checks.load()[1])


def test_checks_are_sound_and_many() -> None:
    groups, known = checks.load()
    assert checks.faults() == []
    assert len(known) >= 80
    assert {c.group for c in known.values()} == set(groups)


@pytest.mark.parametrize("check", sorted(checks.load()[1]))
def test_unknown_without_readings(check: str) -> None:
    assert decided(check, [""]).status in ("unknown", "not_applicable")


# --- healthy machines


def loud(made: Audit) -> list[str]:
    return [f.check for f in made.findings if f.severity in ("high", "medium")]


@pytest.mark.parametrize("name", sorted(p.stem for p in (DATA / "healthy").glob("*.txt")))
def test_healthy_recordings_stay_silent(name: str) -> None:
    made = audit.audit(audit.opened([str(DATA / "healthy" / f"{name}.txt")]), audit.Options())
    assert made.counts["passed"] > 10
    assert loud(made) == []


def test_recorded_idle_h100_host_is_silent() -> None:
    made = audit.audit(audit.opened([], str(IDLE)), audit.Options())
    assert made.counts["passed"] > 100
    assert [f.check for f in made.findings] == ["platform.virtual"]
    assert any(gap.probe.startswith("pci.acs") for gap in made.unavailable)


@pytest.mark.skipif(not (SHARED / "captures/h100x2/env").is_dir(), reason="needs ../shared")
def test_captured_h100_host_is_silent() -> None:
    made = audit.audit(audit.opened([str(SHARED / "captures/h100x2/env")]), audit.Options())
    assert made.counts["passed"] > 100
    assert loud(made) == []


def test_this_machine_without_a_gpu_is_silent_and_quick(tmp_path: Path) -> None:
    if os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg"):
        pytest.skip("there is a GPU here")
    code = (
        "import sys; from diagnose.cli import _run; code = _run(['audit', '--format', 'json']);"
        "assert not {'torch', 'langgraph', 'psutil', 'httpx'} & set(sys.modules); sys.exit(code)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NCCL_", "UCX_", "CUDA_", "NVIDIA_"))}
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=clean)
    assert got.returncode == EXIT_OK, got.stderr
    made = Audit.model_validate_json(got.stdout)
    assert loud(made) == []
    assert "platform.no_gpu" in [f.check for f in made.findings]
    assert {c.status for c in made.checks if c.group == "gpu"} <= {"not_applicable", "passed"}


# --- selection, expectation, drift, output


def idle(**options: Any) -> Audit:
    return audit.audit(audit.opened([], str(IDLE)), audit.Options(**options))


def test_only_skip_and_profile_choose() -> None:
    assert {c.id for c in idle(only=("gpu.ecc.*",)).checks} == {
        "gpu.ecc.uncorrected", "gpu.ecc.aggregate", "gpu.ecc.corrected", "gpu.ecc.off",
    }  # fmt: skip
    assert {c.group for c in idle(only=("env",), skip=("env.nccl.*",)).checks} == {"env"}
    chosen = {c.id for c in idle(profile="network").checks}
    assert "nvlink.short" in chosen
    assert "env.triton.interpret" not in chosen
    with pytest.raises(UsageError):
        idle(only=("gpu.eccc.*",))
    with pytest.raises(UsageError):
        idle(profile="serving")


def test_expectations_are_findings_where_they_fail() -> None:
    assert loud(idle(expect="gpus=2,driver=580,gpu=H100,torch=2.11")) == []
    got = idle(expect="gpus=8")
    assert [f.check for f in got.findings if f.severity == "high"] == ["expect.gpus"]
    assert audit.status(got, "high") == EXIT_FINDING
    assert audit.status(got, "never") == EXIT_OK
    assert audit.status(idle(only=("clock",)), "high") == EXIT_INCONCLUSIVE
    for wrong in ("gpus", "gpus=many", "=8"):
        with pytest.raises(UsageError):
            audit.expected(wrong)


def test_drift_names_what_changed(tmp_path: Path) -> None:
    before = idle()
    place = tmp_path / "before.json"
    place.write_text(before.model_dump_json(by_alias=True))
    assert idle(baseline=str(place)).drift == []
    seen = audit.opened([], str(IDLE))
    seen.documents = [
        Document.of(
            d.name, d.data.replace(b"580.159.04", b"580.95.05").replace(b"NCCL_NVLS_ENABLE=0", b"NCCL_PROTO=LL")
        )
        for d in seen.documents
    ]
    drift = audit.audit(seen, audit.Options(baseline=str(place))).drift
    assert drift is not None
    changed = {(d.kind, d.what, d.subject): (d.before, d.after) for d in drift}
    assert changed["reading", "version", "label driver"] == ("580.159.04", "580.95.05")
    assert changed["reading", "env.var", "label NCCL_NVLS_ENABLE"] == ("0", None)
    assert changed["reading", "env.var", "label NCCL_PROTO"] == (None, "LL")
    assert changed["check", "env.nccl.proto_forced", ""] == ("passed", "finding")
    with pytest.raises(InputError):
        audit.baseline(str(IDLE))


def test_json_fits_its_schema_and_screens_name_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    forced = DATA / "forced.txt"
    code = audit.run([str(forced)], "", audit.Options(langs=("en", "zh")), format_="json")
    assert code == EXIT_FINDING
    made = json.loads(capsys.readouterr().out)
    jsonschema.validate(made, Audit.model_json_schema(by_alias=True))
    assert made["schema"] == "diagnose.audit/v1"
    lead = made["findings"][0]
    assert lead["check"] == "env.cuda.launch_blocking"
    assert set(lead["title"]) == {"en", "zh"}
    quotes = {e["id"]: e["quote"] for e in made["evidence"]}
    assert quotes[lead["evidence"][0]] == "CUDA_LAUNCH_BLOCKING=1"
    for lang, word in (("en", "fix: Unset CUDA_LAUNCH_BLOCKING"), ("zh", "处理: 取消 CUDA_LAUNCH_BLOCKING")):
        assert audit.run([str(forced)], "", audit.Options(langs=(lang,)), fail_on="never") == EXIT_OK
        out = capsys.readouterr().out
        assert word in out
        assert "forced.txt:1" in out
    audit.run([str(forced)], "", audit.Options(), format_="md")
    assert "| HIGH | `env.cuda.launch_blocking` |" in capsys.readouterr().out


def test_show_lists_without_looking(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist gives its workers 80; a pipe has none
    assert audit.run([], "", audit.Options(only=("gpu.ecc.*",)), show=True) == EXIT_OK
    assert capsys.readouterr().out.count("\n") == 4


def test_every_signal_of_the_audit_is_declared() -> None:
    known = catalogue().signals
    assert [s for s in (*audit.STABLE, *audit.MOMENT) if s not in known] == []
    assert [p for p in audit.PROBES if p not in catalogue().probes] == []


def test_documentation_is_the_checks(capsys: pytest.CaptureFixture[str]) -> None:
    audit.run([], "", audit.Options(), show=True, format_="md")
    assert (HERE.parent / "docs" / "checks.md").read_text("utf-8") == capsys.readouterr().out, (
        "diagnose audit --show --format md > docs/checks.md"
    )


def test_explain_shows_a_check(capsys: pytest.CaptureFixture[str]) -> None:
    from diagnose.catalogue_commands import explain

    explain("gpu.ecc.uncorrected", "both", "text")
    out = capsys.readouterr().out
    assert "found when: signal gpu.ecc.uncorrected" in out
    assert "不可纠正" in out


def test_what_cannot_be_opened_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.run(["/nonexistent/q.txt"], "", audit.Options()) == EXIT_ERROR
    assert "no such file" in capsys.readouterr().out


def test_a_check_says_what_it_lacks() -> None:
    got = decided("gpu.ecc.uncorrected", ["GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)"])
    assert (got.status, got.reason) == ("unknown", "gpu.ecc.uncorrected")
    assert decided("gpu.ecc.uncorrected", [PLANTED["checks"]["platform.no_gpu"]["fires"]]).status == "not_applicable"


@pytest.mark.parametrize(
    ("name", "check", "status"),
    [
        ("driver535-cu128", "driver.cuda_too_new", "passed"),
        ("driver535-cu128", "driver.image_too_new", "passed"),
        ("driver535-cu128", "driver.minor_compatibility", "finding"),
        ("idle-gen1", "pcie.gen_low", "unknown"),
        ("idle-gen1", "pcie.width_low", "unknown"),
        ("idle-gen1", "clocks.locked_low", "unknown"),
        ("vm-two-pcie-gpus", "pcie.acs", "not_applicable"),
        ("vm-two-pcie-gpus", "pcie.iommu", "not_applicable"),
        ("vm-two-pcie-gpus", "nvlink.inactive", "not_applicable"),
        ("container-without-dmesg", "gpu.xid.hardware", "unknown"),
        ("container-without-dmesg", "clocks.locked_low", "passed"),
        ("wsl2", "driver.cuda_too_new", "passed"),
        ("wsl2", "platform.no_gpu", "passed"),
    ],
)  # fmt: skip
def test_healthy_but_odd_is_decided_so(name: str, check: str, status: str) -> None:
    text = (DATA / "healthy" / f"{name}.txt").read_text("utf-8")
    assert decided(check, [text]).status == status
