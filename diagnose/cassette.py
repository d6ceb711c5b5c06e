"""Cassettes (contract 2, `diagnose.cassette/v1`): a machine's recorded state, as a folder or its zip.

`cassette.json` lists the captures with their provenance and, in `not_captured`, what could not be
had and why; the bytes lie under `captures/`. Every capture is masked before it is written. Written
one capture at a time, each time as a whole file that replaces the old one, so that a run which is
interrupted leaves a readable cassette.
"""

from __future__ import annotations

import json
import os
import platform
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import __version__
from .catalogue import catalogue
from .collect import Capture, Collected, Collector, NotCaptured
from .errors import InputError
from .mask import mask, mask_words
from .masking import Mapper

SCHEMA = "diagnose.cassette/v1"
INDEX = "cassette.json"
FOLDER = "captures"
SUFFIX = ".cassette"
MOST_CAPTURE = 256 << 20  # bytes of one that is unpacked


def key(probe: str, params: Mapping[str, str], part: str) -> tuple[str, str, str]:
    """What makes a capture the same one again."""
    return probe, json.dumps(dict(params), sort_keys=True), part


@dataclass
class Cassette:
    """A cassette being written, or read back.

    Attributes:
        path: the folder. mapper: the masking of names and addresses; it stays on this machine.
    """

    path: Path
    symptom: str = ""
    taint: tuple[str, ...] = ("live",)
    host: dict[str, Any] = field(default_factory=dict)
    captures: dict[tuple[str, str, str], tuple[Capture, int]] = field(default_factory=dict)
    missing: dict[tuple[str, str, str], NotCaptured] = field(default_factory=dict)
    mapper: Mapper = field(default_factory=Mapper)

    @classmethod
    def create(cls, path: Path, symptom: str, taint: tuple[str, ...] = ("live",)) -> Cassette:
        """Start one at `path`.

        Raises:
            InputError: the folder cannot be made, or holds something else.
        """
        try:
            (path / FOLDER).mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InputError(f"{path}: {err.strerror}", "name another place with -o") from err
        if any(path.glob(f"{FOLDER}/*")) and not (path / INDEX).exists():
            raise InputError(f"{path} is in use and no cassette", "name another place with -o")
        made = cls(path, mask(symptom), taint, facts())
        made.write()
        return made

    def has(self, probe: str) -> bool:
        """Did this probe run already, whatever came of it?"""
        return any(k[0] == probe for k in (*self.captures, *self.missing))

    def add(self, items: Iterable[Collected]) -> list[Capture]:
        """Mask, store and list; the same probe, parameters and part replace the earlier ones. Returns what was kept."""
        kept: list[Capture] = []
        for item in items:
            if isinstance(item, NotCaptured):
                self.missing[key(item.probe, {}, item.part)] = replace(item, reason=mask(item.reason))
                continue
            masked = self.masked(item)
            ident = key(item.probe, item.params, item.part)
            order = self.captures[ident][1] if ident in self.captures else len(self.captures) + 1
            self.captures[ident] = (masked, order)
            _replace(self.path / FOLDER / masked.name, masked.data)
            kept.append(masked)
        self.write()
        return kept

    def masked(self, item: Capture) -> Capture:
        """The capture without secrets, user and host names; addresses keep their class and subnet."""
        clean = b"".join(self._masked(part) for part in _parts(item.data))
        argv = tuple(self.mapper.mask(a) for a in mask_words(item.argv))
        env = {name: mask(f"{name}={value}").partition("=")[2] for name, value in item.env.items()}
        params = {name: self.mapper.mask(mask(value)) for name, value in item.params.items()}
        return replace(item, data=clean, part=mask(item.part), argv=argv, env=env, params=params)

    def _masked(self, data: bytes) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        return self.mapper.mask(mask(text)).encode("utf-8", "surrogateescape")

    def write(self) -> None:
        """Write the index."""
        _replace(self.path / INDEX, (json.dumps(self.index(), indent=1, ensure_ascii=False) + "\n").encode())

    def index(self) -> dict[str, Any]:
        """`cassette.json` as data."""
        return {
            "schema": SCHEMA,
            "symptom": self.symptom,
            "tool": {"version": __version__},
            "host": self.host,
            "taint": list(self.taint),
            "captures": [_listed(c, n) for c, n in sorted(self.captures.values(), key=lambda pair: pair[1])],
            "not_captured": [
                {"probe": m.probe, "part": m.part, "reason": m.reason, "enable": m.enable}
                for _, m in sorted(self.missing.items())
            ],
        }


def _parts(data: bytes, size: int = 4 << 20) -> Iterator[bytes]:
    """Large output in pieces of whole lines, so that masking needs little memory."""
    start = 0
    while start < len(data):
        end = len(data) if len(data) - start <= size else data.find(b"\n", start + size) + 1 or len(data)
        yield data[start:end]
        start = end


def _listed(capture: Capture, order: int) -> dict[str, Any]:
    return {
        "probe": capture.probe, "part": capture.part, "parameters": capture.params, "sequence": order,
        "argv": list(capture.argv), "env": capture.env, "started": round(capture.started, 3),
        "seconds": round(capture.seconds, 3), "exit": capture.status, "cut": capture.cut,
        "taint": sorted(capture.taint), "sha256": capture.sha256, "file": f"{FOLDER}/{capture.name}",
    }  # fmt: skip


def _replace(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    spare = path.with_name(path.name + ".part")
    spare.unlink(missing_ok=True)
    with spare.open("xb") as stream:  # never through a link that somebody left there
        stream.write(data)
    os.replace(spare, path)


def facts() -> dict[str, Any]:
    """What is said of the host: kind and software, never its name."""
    return {
        "system": platform.system(), "release": platform.release(), "machine": platform.machine(),
        "python": platform.python_version(), "cpus": os.cpu_count(), "recorded": int(time.time()),
    }  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """The index of a cassette, folder or zip.

    Raises:
        InputError: there is none, or it is no cassette.
    """
    try:
        if path.is_dir():
            raw = (path / INDEX).read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                name = next((n for n in archive.namelist() if n.rpartition("/")[2] == INDEX), None)
                if name is None:
                    raise InputError(
                        f"{path.name} holds no {INDEX}", "give a cassette: a folder or zip made by `record`"
                    )
                raw = archive.read(name)
        listed = json.loads(raw)
    except (OSError, zipfile.BadZipFile, ValueError) as err:
        raise InputError(
            f"{path.name} is no cassette: {err}", "give a folder or zip made by `diagnose record`"
        ) from err
    if not isinstance(listed, dict) or listed.get("schema") != SCHEMA:
        raise InputError(f"{path.name} is no {SCHEMA}", "give a folder or zip made by `diagnose record`")
    return listed


def reopen(path: Path) -> Cassette:
    """A cassette to go on with (`resume`): what ran stays, what is missing may be tried again.

    Raises:
        InputError: it is none, or a listed capture is not in it (the list may name nothing outside of the cassette).
    """
    listed = read(path)
    made = Cassette(
        path, str(listed.get("symptom", "")), tuple(listed.get("taint") or ("live",)), listed.get("host") or {}
    )
    for item in listed.get("captures") or []:
        try:
            data = _capture(path, str(item["file"]))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as err:
            raise InputError(f"{path.name}: a listed capture cannot be read: {err}") from err
        capture = Capture(
            str(item["probe"]), data, str(item.get("part", "")), dict(item.get("parameters") or {}),
            tuple(item.get("argv") or ()), dict(item.get("env") or {}), float(item.get("started") or 0),
            float(item.get("seconds") or 0), item.get("exit"), item.get("cut"), tuple(item.get("taint") or ("live",)),
        )  # fmt: skip
        made.captures[key(capture.probe, capture.params, capture.part)] = (capture, int(item.get("sequence") or 0))
    return made


def _capture(path: Path, name: str) -> bytes:
    """A listed capture of a folder or a zip. Raises what reading does, ValueError for one outside of the cassette."""
    if path.is_dir():
        file = (path / name).resolve()
        if not file.is_relative_to(path.resolve()):
            raise ValueError(f"{name} lies outside of it")
        return file.read_bytes()
    with zipfile.ZipFile(path) as archive:
        index = next(n for n in archive.namelist() if n.rpartition("/")[2] == INDEX)
        info = archive.getinfo(index.removesuffix(INDEX) + name)
        if info.file_size > MOST_CAPTURE:
            raise ValueError(f"{name} is larger than {MOST_CAPTURE >> 20} MiB")
        return archive.read(info)


def not_captured(path: Path) -> Iterator[NotCaptured]:
    """What a cassette says that it lacks, and why."""
    for item in read(path).get("not_captured") or []:
        yield NotCaptured(
            str(item.get("probe", "")), str(item.get("reason", "")), str(item.get("part", "")),
            str(item.get("enable") or ""),
        )  # fmt: skip


def played(path: Path) -> dict[str, Collector]:
    """The probes of a recorded machine as collectors: each gives what was captured then, at the cost it had.

    Replay matches probe and parameters; what was not captured says so, with the recorded reason.
    """
    old = reopen(path)
    why = {str(m.get("probe")): str(m.get("reason", "")) for m in read(path).get("not_captured") or []}
    by: dict[str, list[Capture]] = {}
    for capture, _ in sorted(old.captures.values(), key=lambda pair: pair[1]):
        if "without" not in capture.params:  # a trial with a setting left out is not this machine's state
            by.setdefault(capture.probe, []).append(capture)

    def one(name: str) -> Collector:
        mine = by.get(name, [])
        reason = None if mine else why.get(name, "not captured in this recording")
        spent = sum(c.seconds for c in mine)
        return Collector(name, lambda host: reason, lambda host: mine, seconds=lambda host: spent)

    return {name: one(name) for name in {*by, *why} & set(catalogue().probes)}


def pack(folder: Path, target: Path) -> None:
    """The zip of a cassette folder, with fixed times so that equal cassettes give equal bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".part")):
            info = zipfile.ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, file.read_bytes())
