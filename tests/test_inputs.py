"""Opening what users name: every kind of good and bad input gives documents or one clear line."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import socket
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from diagnose import inputs
from diagnose.document import Document
from diagnose.inputs import open_inputs
from diagnose.models import InputRef

TEXT = b"NCCL INFO Channel 00/02 : 0 1\nline two\n"


def opened(*paths: str | Path, stdin: bytes | None = None) -> tuple[dict[str, Document], dict[str, str]]:
    docs, refused = open_inputs(paths, None if stdin is None else io.BytesIO(stdin))
    for ref in refused:
        assert isinstance(ref, InputRef)
        assert ref.sha256 is None and ref.recognised_as is None
        assert ref.reason and "\n" not in ref.reason and ref.reason.isprintable()
        assert ref.name.isprintable()
    return {d.name: d for d in docs}, {r.name: r.reason or "" for r in refused}


def write(path: Path, data: bytes = TEXT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_file_is_named_by_its_base_name_and_hashed(tmp_path: Path) -> None:
    docs, refused = opened(write(tmp_path / "a" / "x.log"))
    assert not refused
    assert docs["x.log"].sha256 == hashlib.sha256(TEXT).hexdigest()
    assert docs["x.log"].size == len(TEXT) and docs["x.log"].data == TEXT


def test_folder_is_read_in_order_with_relative_names(tmp_path: Path) -> None:
    for name in ("b/z.txt", "b/a.txt", "a.txt", ".git/config"):
        write(tmp_path / name)
    docs, refused = opened(tmp_path)
    assert list(docs) == ["a.txt", "b/a.txt", "b/z.txt"] and not refused


def test_same_name_twice_is_told_apart_whatever_the_order(tmp_path: Path) -> None:
    one, two = write(tmp_path / "run1/server.log", b"one\n"), write(tmp_path / "run2/server.log", b"two\n")
    forward, _ = opened(one, two)
    backward, _ = opened(two, one)
    assert list(forward) == list(backward) == ["run1/server.log", "run2/server.log"]
    assert forward["run1/server.log"].data == backward["run1/server.log"].data == b"one\n"


def test_same_file_named_twice_counts_once(tmp_path: Path) -> None:
    place = write(tmp_path / "x.log")
    docs, refused = opened(place, str(place), tmp_path)
    assert list(docs) == ["x.log"] and not refused


def test_gzip_is_told_by_content_not_name(tmp_path: Path) -> None:
    docs, refused = opened(write(tmp_path / "plain.txt", gzip.compress(TEXT)), write(tmp_path / "fake.gz", TEXT))
    assert not refused
    assert docs["plain.txt"].data == docs["fake.gz"].data == TEXT
    assert docs["plain.txt"].sha256 == docs["fake.gz"].sha256


def test_gzip_of_several_members_and_padding(tmp_path: Path) -> None:
    docs, _ = opened(write(tmp_path / "x", gzip.compress(b"one\n") + gzip.compress(b"two\n") + b"\0" * 64))
    assert docs["x"].data == b"one\ntwo\n" and docs["x"].cut is None


def test_truncated_gzip_keeps_the_readable_part(tmp_path: Path) -> None:
    body = os.urandom(200_000)
    packed = gzip.compress(body)
    docs, refused = opened(write(tmp_path / "x.gz", packed[: len(packed) // 2]))
    document = docs["x.gz"]
    assert not refused and document.cut is not None and "truncated" in document.cut
    assert 0 < document.size < len(body) and body.startswith(document.data)
    assert document.read(5, 15) == body[5:15]


def test_damaged_gzip_is_one_line(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(os.urandom(1000)))
    packed[20:30] = b"\0" * 10
    docs, refused = opened(write(tmp_path / "x.gz", bytes(packed)), write(tmp_path / "y.gz", b"\x1f\x8b\x08"))
    lines = [*refused.values(), *(d.cut for d in docs.values() if d.cut)]
    assert len(lines) == 2 and all("gzip" in line for line in lines)


def test_xz(tmp_path: Path) -> None:
    docs, _ = opened(write(tmp_path / "x", lzma.compress(TEXT)))
    assert docs["x"].data == TEXT


def test_gzip_bomb_is_refused_without_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "RATIO_FROM", 1 << 20)
    docs, refused = opened(write(tmp_path / "b.gz", gzip.compress(b"\0" * (8 << 20))))
    assert not docs and "decompression bomb" in refused["b.gz"]


def test_well_compressed_log_is_no_bomb(tmp_path: Path) -> None:
    body = b"GPU 0 idle\n" * 500_000
    docs, refused = opened(write(tmp_path / "x.gz", gzip.compress(body)))
    assert not refused and docs["x.gz"].size == len(body) and docs["x.gz"].cut is None


def test_total_of_unpacked_data_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_UNPACKED", 3 << 20)
    docs, _ = opened(write(tmp_path / "x.gz", gzip.compress(os.urandom(4 << 20))))
    assert docs["x.gz"].size == 3 << 20
    assert "limit" in (docs["x.gz"].cut or "")


def test_large_member_spills_to_a_temporary_file_and_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "IN_MEMORY", 1000)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    body = os.urandom(50_000)
    docs, _ = opened(write(tmp_path / "x.gz", gzip.compress(body)))
    assert docs["x.gz"].read(40_000, 40_010) == body[40_000:40_010]
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    docs.clear()
    assert not list((tmp_path / "tmp").iterdir())


def test_zip_and_tar_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.bin", "w") as box:
        box.writestr("logs/a.log", TEXT)
        box.writestr("b.gz", gzip.compress(TEXT))
    with tarfile.open(tmp_path / "t.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("logs/c.log")
        info.size = len(TEXT)
        tar.addfile(info, io.BytesIO(TEXT))
    docs, refused = opened(tmp_path / "z.bin", tmp_path / "t.tgz")
    assert not refused
    assert sorted(docs) == ["t.tgz!logs/c.log", "z.bin!b.gz", "z.bin!logs/a.log"]
    assert {d.data for d in docs.values()} == {TEXT}


def test_traversal_links_and_devices_in_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("../../etc/passwd", "/etc/shadow", "ok.log"):
            info = tarfile.TarInfo(name)
            info.size = len(TEXT)
            tar.addfile(info, io.BytesIO(TEXT))
        kinds = {"s": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "d": tarfile.CHRTYPE, "f": tarfile.FIFOTYPE}
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as box:
        box.writestr("..\\up.txt", TEXT)
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        box.writestr(link, "/etc/passwd")
    docs, refused = opened(tmp_path / "t.tar", tmp_path / "z.zip")
    assert list(docs) == ["t.tar!ok.log"]
    assert len(refused) == 8
    assert "points out" in refused["t.tar!../../etc/passwd"] and "link" in refused["t.tar!s"]
    assert "link" in refused["z.zip!link"]


def test_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as box:
        box.writestr("a", TEXT)
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as box:
        box.writestr("i.zip", inner.getvalue())
    docs, refused = opened(tmp_path / "o.zip")
    assert not docs and "inside an archive" in refused["o.zip!i.zip"]


def test_member_count_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_MEMBERS", 5)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as box:
        for n in range(9):
            box.writestr(f"{n}", TEXT + bytes([65 + n]))
    docs, refused = opened(tmp_path / "z.zip")
    assert len(docs) == 5 and "more than 5 members" in refused["z.zip"]


def test_zip_bomb_of_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "RATIO_FROM", 1 << 20)
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as box:
        for n in range(20):
            box.writestr(f"{n}", b"\0" * (1 << 20))
    docs, refused = opened(tmp_path / "z.zip")
    assert len(docs) < 20 and "decompression bomb" in refused["z.zip"]


def test_truncated_archives_keep_what_is_readable(tmp_path: Path) -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as tar:
        for n in range(3):
            info = tarfile.TarInfo(f"{n}.log")
            info.size = 50_000
            tar.addfile(info, io.BytesIO(os.urandom(50_000)))
    data = body.getvalue()
    write(tmp_path / "t.tgz", data[: len(data) // 2])
    docs, refused = opened(tmp_path / "t.tgz", write(tmp_path / "z.zip", b"PK\x03\x04junk"))
    assert "t.tgz!0.log" in docs and docs["t.tgz!0.log"].cut is None
    assert docs["t.tgz!1.log"].cut is not None
    assert "damaged" in refused["z.zip"]


def test_links_out_of_a_folder_and_loops(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "a" / "x.log")
    write(tmp_path / "secret.txt")
    (root / "a" / "loop").symlink_to(root, target_is_directory=True)
    (root / "out").symlink_to(tmp_path / "secret.txt")
    (root / "dead").symlink_to(root / "nowhere")
    (root / "self").symlink_to(root / "self")
    docs, refused = opened(root)
    assert list(docs) == ["a/x.log"]
    assert sorted(refused) == ["a/loop", "dead", "out", "self"]
    assert "out of the folder" in refused["out"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_device_socket_missing_and_empty_never_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(tmp_path / "sock"))
    write(tmp_path / "e", b"")
    docs, refused = opened(tmp_path / "pipe", "/dev/zero", tmp_path / "sock", tmp_path / "no", tmp_path / "e")
    server.close()
    assert not docs
    assert "pipe" in refused["pipe"] and "device" in refused["zero"] and "socket" in refused["sock"]
    assert refused["e"] == "empty"
    assert "no such file" in refused[str(tmp_path / "no")]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    place = write(tmp_path / "x.log")
    place.chmod(0)
    _, refused = opened(place)
    assert refused["x.log"] == "permission denied"


def test_file_count_of_a_folder_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_FILES", 3)
    for n in range(6):
        write(tmp_path / "d" / f"{n}.txt")
    docs, refused = opened(tmp_path / "d")
    assert len(docs) == 3 and "more than 3 files" in refused["d"]


def test_standard_input(tmp_path: Path) -> None:
    docs, _ = opened("-", stdin=TEXT)
    assert docs["-"].data == TEXT
    docs, _ = opened("-", stdin=gzip.compress(TEXT))
    assert docs["-"].data == TEXT
    _, refused = opened("-")
    assert "-" in refused
    _, refused = opened("-", stdin=b"")
    assert refused["-"] == "empty"


def test_name_that_would_move_the_cursor(tmp_path: Path) -> None:
    docs, _ = opened(write(tmp_path / "a\x1b[2Jb\nc"))
    assert all(name.isprintable() for name in docs)


def test_sparse_file_is_streamed(tmp_path: Path) -> None:
    place = tmp_path / "big.log"
    with place.open("wb") as out:
        out.write(b"first\n")
        out.truncate(300 << 20)
    docs, _ = opened(place)
    document = docs["big.log"]
    assert document.size == 300 << 20 and document.read(0, 5) == b"first" and "data" not in vars(document)


def test_cassette_lists_its_captures_with_their_taint(tmp_path: Path) -> None:
    write(tmp_path / "c.cassette/captures/1.txt")
    write(tmp_path / "c.cassette/captures/2.txt", b"changed\n")
    write(tmp_path / "c.cassette/captures/stray.txt", b"not listed\n")
    captures = [
        {"file": "captures/1.txt", "sha256": hashlib.sha256(TEXT).hexdigest()},
        {"file": "captures/2.txt", "sha256": "0" * 64},
        {"file": "captures/3.txt"},
    ]
    index = {"schema": "diagnose.cassette/v1", "taint": ["simulated"], "captures": captures}
    write(tmp_path / "c.cassette/cassette.json", json.dumps(index).encode())
    docs, refused = opened(tmp_path / "c.cassette")
    assert list(docs) == ["captures/1.txt"]
    assert docs["captures/1.txt"].status == ("recorded", "simulated")
    assert "sha256" in refused["captures/2.txt"] and "not there" in refused["captures/3.txt"]


def test_what_is_given_beside_a_cassette_stays(tmp_path: Path) -> None:
    """A cassette drops what its own folder holds unlisted, not another input, and not another cassette."""
    for name in ("a", "b"):
        write(tmp_path / f"{name}.cassette/captures/1.txt", f"{name}\n".encode())
        index = {"schema": "diagnose.cassette/v1", "taint": ["live"], "captures": [{"file": "captures/1.txt"}]}
        write(tmp_path / f"{name}.cassette/cassette.json", json.dumps(index).encode())
    docs, refused = opened(tmp_path / "a.cassette", write(tmp_path / "env.txt", b"A=1\n"), tmp_path / "b.cassette")
    assert sorted(d.data for d in docs.values()) == [b"A=1\n", b"a\n", b"b\n"] and not refused
    assert docs["env.txt"].status == ("provided",)


def test_json_that_is_no_cassette_is_evidence(tmp_path: Path) -> None:
    docs, refused = opened(write(tmp_path / "cassette.json", b'{"schema": "other"}'), write(tmp_path / "i.json", b"{}"))
    assert sorted(docs) == ["cassette.json", "i.json"] and not refused
