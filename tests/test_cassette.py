"""Cassettes: written one capture at a time, masked, read back as the same machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diagnose import cassette, record
from diagnose.cassette import Cassette
from diagnose.collect import Capture, NotCaptured
from diagnose.errors import InputError, UsageError
from diagnose.inputs import open_inputs

SECRET = "hf_" + "a1B2c3D4e5" * 4


def made(path: Path) -> Cassette:
    out = Cassette.create(path, f"slow, token {SECRET}")
    out.add(
        [
            Capture("env.dump", f"HF_TOKEN={SECRET}\nNCCL_DEBUG=INFO\n".encode(), argv=("env", f"--token={SECRET}")),
            NotCaptured("nvidia_smi.q", "nvidia-smi is not installed here"),
        ]
    )
    return out


def test_no_secret_reaches_the_disk(tmp_path: Path) -> None:
    made(tmp_path / "a.cassette")
    text = b"".join(p.read_bytes() for p in (tmp_path / "a.cassette").rglob("*") if p.is_file())
    assert SECRET.encode() not in text
    assert b"NCCL_DEBUG=INFO" in text


def test_folder_and_zip_are_the_same_evidence(tmp_path: Path) -> None:
    made(tmp_path / "a.cassette")
    cassette.pack(tmp_path / "a.cassette", tmp_path / "a.zip")
    folder, bad = open_inputs([str(tmp_path / "a.cassette")], None)
    packed, worse = open_inputs([str(tmp_path / "a.zip")], None)
    assert not bad and not worse
    assert [d.sha256 for d in folder] == [d.sha256 for d in packed]
    assert folder[0].status == ("live", "recorded")
    assert cassette.read(tmp_path / "a.zip")["not_captured"][0]["probe"] == "nvidia_smi.q"


def test_the_same_probe_again_replaces_and_resume_goes_on(tmp_path: Path) -> None:
    first = made(tmp_path / "a.cassette")
    first.add([Capture("env.dump", b"NCCL_DEBUG=WARN\n")])
    again = cassette.reopen(tmp_path / "a.cassette")
    assert again.has("env.dump") and not again.has("nvidia_smi.q")
    again.add([Capture("host.cpu", b"x\n", "lscpu")])
    listed = json.loads((tmp_path / "a.cassette" / "cassette.json").read_text())
    assert [c["sequence"] for c in listed["captures"]] == [1, 2]
    assert (tmp_path / "a.cassette" / listed["captures"][0]["file"]).read_bytes() == b"NCCL_DEBUG=WARN\n"


@pytest.mark.parametrize(("source", "target"), [("a.cassette", "b.zip"), ("a.zip", "b.zip"), ("a.zip", "b.cassette")])
def test_redacted_is_the_same_without_the_word(source: str, target: str, tmp_path: Path) -> None:
    first = cassette.Cassette.create(tmp_path / "a.cassette", "Bluebird is slow")
    first.add([
        Capture("serving.args", b"vllm serve bluebird --port 8000\nBluebird\n", "ps", argv=("ps", "Bluebird")),
        NotCaptured("nvidia_smi.q", "no Bluebird here", enable="a driver"),
    ])  # fmt: skip
    cassette.pack(tmp_path / "a.cassette", tmp_path / "a.zip")
    assert record.redact(str(tmp_path / source), ["bluebird", "Bluebird", ""], str(tmp_path / target)) == 0
    listed = cassette.read(tmp_path / target)
    documents, bad = open_inputs([str(tmp_path / target)], None)
    assert not bad and b"vllm serve [redacted] --port 8000\n[redacted]\n" in [d.data for d in documents]
    assert "bluebird" not in json.dumps(listed).lower() and listed["symptom"] == "[redacted] is slow"
    assert listed["not_captured"][0]["reason"] == "no [redacted] here" and listed["taint"] == ["live"]
    with pytest.raises(UsageError):
        record.redact(str(tmp_path / source), [], str(tmp_path / target))


def test_a_listed_capture_lies_in_its_cassette(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    made(tmp_path / "a.cassette")
    index = tmp_path / "a.cassette" / "cassette.json"
    listed = json.loads(index.read_text())
    listed["captures"][0]["file"] = "../secret"
    index.write_text(json.dumps(listed))
    cassette.pack(tmp_path / "a.cassette", tmp_path / "a.zip")
    for name in ("a.cassette", "a.zip"):
        with pytest.raises(InputError, match="cannot be read"):
            cassette.reopen(tmp_path / name)


def test_what_is_no_cassette_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    for path in (tmp_path / "x.zip", tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError):
            cassette.read(path)
