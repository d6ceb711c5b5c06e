"""Coverage-guided fuzzing of the readers: ``python -m diagnose.evals.fuzz [READER…] --seconds 60 --out FOLDER``.

Needs `atheris` (``pip install atheris``). Each reader runs in a process of its own, seeded with the captures that hold
one of its needles; what `properties` finds wrong, and every exception but `ParseError`, is kept once a kind with the
input that shows it, and the run goes on. Exit status 1 when anything was found.
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MOST = 20_000  # bytes of an input
SLOW = 1.5  # CPU seconds for one input
WORDS = (
    b"nan", b"inf", b"1.2.3", b"...", b"1e999", b"-0.0", b"0x", b"1,,2", b"99999999999999999999", b"%", b" GB/s", b" ms",
    b" GiB", b"\x1b[31m", b"\r\n", b"\xef\xbb\xbf", b"rank", b"GPU", b"[rank0]: ", b"node0: ", b"{", b"}", b'":', b"| ",
)  # fmt: skip
# what differs between two faults of one kind
_VARYING = re.compile(r" = .*?: (?=[^:]*: ['\"])|-?\d[\d.e+-]*|: ['\"].*", re.DOTALL)


def seeds(needles: Iterable[bytes]) -> list[bytes]:
    """Texts of the shipped cases and captures beside the checkout that hold one of the needles."""
    from .case import own_cases

    wanted = tuple(needles)
    data = Path(__file__).parents[1] / "tests" / "data"
    texts = [text.encode() for case in own_cases() for _, text in case.texts]
    texts += [p.read_bytes()[:MOST] for p in sorted(data.rglob("*")) if p.is_file()]
    return [t for t in texts if len(t) <= MOST and any(n in t for n in wanted)]


def _kind(err: BaseException) -> str:
    place = traceback.extract_tb(err.__traceback__)[-1]
    return f"{type(err).__name__} at {Path(place.filename).name}:{place.lineno}"


def _one(name: str, seconds: int, out: Path) -> None:
    """Fuzz one reader in this process, which atheris ends."""
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=["diagnose.probes"]):
        from diagnose.plugin import readers

        reader = next(r for r in readers()[0] if r.name == name)
    from .properties import faults

    folder = out / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    for text in seeds(reader.needles):
        (corpus / hashlib.sha256(text).hexdigest()[:16]).write_bytes(text)
    words = {*WORDS, *reader.needles}
    entries = ["".join(f"\\x{b:02x}" for b in w) for w in words if w]
    (folder / "words.dict").write_text("\n".join(f'"{e}"' for e in sorted(entries)) + "\n")

    def keep(kind: str, said: str, data: bytes) -> None:
        if kind not in found and len(found) < 50:
            found[kind] = said
            place = folder / f"found-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
            place.write_bytes(data)
            place.with_suffix(".json").write_text(json.dumps({"reader": name, "kind": kind, "says": said}))

    def target(data: bytes) -> None:
        start = time.process_time()
        try:
            for wrong in faults(reader, data):
                keep(
                    _VARYING.sub(" ", wrong)[:120],
                    wrong[:600],
                    data,
                )
        except Exception as err:
            keep(_kind(err), f"{type(err).__name__}: {err}"[:300], data)
        if (spent := time.process_time() - start) > SLOW:
            keep("slow", f"{spent:.1f} CPU s for {len(data)} bytes", data)

    words_at, most = f"-dict={folder / 'words.dict'}", f"-max_len={MOST}"
    limit = f"-max_total_time={seconds}"
    others = ("-timeout=60", "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={folder}/")
    atheris.Setup([name, str(corpus), words_at, most, limit, *others], target)
    atheris.Fuzz()


def main(argv: list[str] | None = None) -> int:
    """Fuzz the named readers, or all, one after the other; print what was found."""
    parser = argparse.ArgumentParser(prog="diagnose.evals.fuzz", description=__doc__)
    parser.add_argument("reader", nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.alone:
        _one(chosen.reader[0], chosen.seconds, chosen.out)
        return 0
    if find_spec("atheris") is None:
        print("this needs atheris: pip install atheris", file=sys.stderr)
        return 3
    from diagnose.plugin import readers

    worst = 0
    for name in chosen.reader or [r.name for r in readers()[0]]:
        command = [sys.executable, "-m", __spec__.name, name, "--alone",
                   "--seconds", str(chosen.seconds), "--out", str(chosen.out)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (this module)
        execs = next((x.split()[-1] for x in done.stderr.splitlines() if "number_of_executed_units" in x), "?")
        kinds: list[dict[str, Any]] = [json.loads(p.read_text()) for p in (chosen.out / name).glob("found-*.json")]
        crashed = [] if done.returncode == 0 else [done.stderr.strip().splitlines()[-1:]]
        print(f"{name}: {execs} inputs, {len(kinds)} kinds of fault", *crashed, flush=True)
        for item in kinds:
            print(f"  {item['kind']}: {item['says'][:200]!r}", flush=True)
        worst |= bool(kinds or crashed)
    return worst


if __name__ == "__main__":
    sys.exit(main())
