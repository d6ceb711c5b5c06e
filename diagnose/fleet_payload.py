"""What runs on a node, and what comes back: one POSIX script on standard input, one framed text on standard output.

Where `diagnose` is installed the script lets it record the node (masked there) and sends the cassette as an
archive; elsewhere it runs the read probes' own commands, and what they print is masked here before it is kept.
No name of a host ever stands in the script.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import shlex
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .cassette import FOLDER, INDEX, SCHEMA, SUFFIX, Cassette, pack
from .collect import Capture
from .errors import InputError
from .masking import Mapper

FRAME = "diagnose-fleet"
CAP = 64 << 20  # bytes that a node may send …
MOST_UNPACKED = 256 << 20  # … unpack to …
MOST_FILES = 2_000  # … in so many files
_PROBE = re.compile(rb"^### ([a-z0-9_]+(?:\.[a-z0-9_]+)+)(?:: (.*))?$")

_SCRIPT = """\
LC_ALL=C; export LC_ALL
umask 077
plain() {{
{plain}
:
}}
main() {{
  echo "{frame} begin ${{SLURMD_NODENAME:-$(uname -n)}}"
  d=$(mktemp -d "${{TMPDIR:-/tmp}}/diagnose.XXXXXX") || {{ echo "{frame} end no folder for temporary files"; return; }}
  if command -v diagnose >/dev/null 2>&1 && command -v tar >/dev/null 2>&1 && command -v base64 >/dev/null 2>&1; then
    ( {command} ) >"$d/answer.json" 2>"$d/problem"
  fi
  if [ -s "$d/node{suffix}/{index}" ]; then
    echo "{frame} archive"
    ( cd "$d" && tar cf - node{suffix} answer.json | gzip -c | base64 )
  else
    [ -s "$d/problem" ] && echo "{frame} note $(tail -n 1 "$d/problem" | tr -c '[:print:]\\n' '?' | cut -c 1-200)"
    echo "{frame} text"
    plain 2>&1
  fi
  echo
  echo "{frame} end"
}}
( sleep {limit} & s=$!; trap 'kill $s; exit' TERM; wait $s; kill -TERM 0 ) </dev/null >/dev/null 2>&1 &
guard=$!
trap 'rm -rf "$d"; echo; echo "{frame} late"; exit 143' TERM INT HUP
main </dev/null
rm -rf "$d"
kill $guard 2>/dev/null
exit 0
"""


def script(command: Sequence[str], plain: str, limit: float) -> str:
    """The script for every node.

    Args:
        command: words after ``diagnose`` that record into ``node.cassette``; its standard output is kept beside it.
        plain: what to run where `diagnose` is not installed.
        limit: seconds after which the node ends its own part, with all that it started.
    """
    words = " ".join(f'"$d/node{SUFFIX}"' if w == "{cassette}" else shlex.quote(w) for w in command)
    return _SCRIPT.format(
        frame=FRAME, plain=plain, command=f"diagnose {words}", suffix=SUFFIX, index=INDEX, limit=max(1, round(limit))
    )


@dataclass(frozen=True)
class Answer:
    """What a node sent.

    Attributes:
        name: as the node calls itself. kind: archive or text. body: between the frames.
    """

    name: str
    kind: str
    body: bytes


def answer(output: bytes) -> Answer:
    """Take the frame off. Raises InputError where the node did not finish."""
    lines = output.split(b"\n")
    frames = [(n, line.decode("utf-8", "replace").split(" ", 2)) for n, line in enumerate(lines)
              if line.startswith(FRAME.encode() + b" ")]  # fmt: skip
    begin = next((f for f in frames if f[1][1] == "begin"), None)
    if begin is None:
        last = next((t for line in reversed(lines) if (t := line.decode("utf-8", "replace").strip())), "")
        raise InputError(f"the script did not start{f': {last[:160]}' if last else ''}")
    end = next((f for f in reversed(frames) if f[1][1] == "end"), None)
    kind = next((f for f in frames if f[1][1] in ("archive", "text")), None)
    if end is None:
        where = next((hit[1].decode() for line in reversed(lines) if (hit := _PROBE.match(line))), "")
        late = any(f[1][1] == "late" for f in frames)
        said = "did not finish within its limit" if late else "stopped before its end"
        raise InputError(f"{said}{f', in {where}' if where else ''}")
    if kind is None:
        raise InputError(" ".join(end[1][2:]) or "sent nothing")
    return Answer(" ".join(begin[1][2:]), kind[1][1], b"\n".join(lines[kind[0] + 1 : end[0]]))


def cassette_path(folder: Path, node: str) -> Path:
    """Where a node's cassette is kept."""
    return folder / f"{node}{SUFFIX}.zip"


def store(node: str, got: Answer, folder: Path, symptom: str = "") -> tuple[Path, dict[str, Any] | None]:
    """Keep a node's answer as ``NODE.cassette.zip``; returns it, and what the node's own `diagnose` printed.

    Raises:
        InputError: the archive is damaged, unsafe or too large.
    """
    target = cassette_path(folder, node)
    with tempfile.TemporaryDirectory(prefix="diagnose-") as spare:
        made = Path(spare) / f"{node}{SUFFIX}"
        said = None
        if got.kind == "archive":
            said = _unpacked(got.body, made)
        else:
            short = node.partition(".")[0]
            cassette = Cassette.create(made, symptom)
            cassette.host = {"system": "Linux"}
            cassette.mapper = Mapper(hosts=sorted({node, short, got.name} - {""}, key=len, reverse=True), user="")
            cassette.add(captures(got.body))
        _named(made, node)
        part = target.with_name(target.name + ".part")
        pack(made, part)
        shutil.move(part, target)
    return target, said


def _named(cassette: Path, node: str) -> None:
    """Write into the index which node it is."""
    index = cassette / INDEX
    try:
        listed = json.loads(index.read_bytes())
    except (OSError, ValueError) as err:
        raise InputError("sent an archive without a readable cassette") from err
    if not isinstance(listed, dict) or listed.get("schema") != SCHEMA:
        raise InputError(f"sent an archive that is no {SCHEMA}")
    index.write_text(json.dumps({**listed, "node": node}, indent=1, ensure_ascii=False) + "\n", "utf-8")


def captures(text: bytes) -> Iterator[Capture]:
    """The output of the plain script, one capture a probe and command."""
    probe, part, lines = "", "", list[bytes]()
    count: dict[tuple[str, str], int] = {}

    def made() -> Iterator[Capture]:
        data = b"\n".join(lines).strip(b"\n")
        if probe and data:
            count[probe, part] = count.get((probe, part), 0) + 1
            again = f"{part} {count[probe, part]}" if count[probe, part] > 1 else part
            argv = tuple(shlex.split(part)) if part.count("'") % 2 == 0 and part.count('"') % 2 == 0 else (part,)
            yield Capture(probe, data + b"\n", again, argv=argv if part else ())

    for line in text.split(b"\n"):
        if hit := _PROBE.match(line):
            yield from made()
            probe, part, lines = hit[1].decode(), (hit[2] or b"").decode("utf-8", "replace"), []
        else:
            lines.append(line)
    yield from made()


def _unpacked(body: bytes, target: Path) -> dict[str, Any] | None:
    """The cassette of an archive into `target`; what is no plain file of a cassette is refused."""
    said = None
    size = files = 0
    (target / FOLDER).mkdir(parents=True)
    try:
        packed = base64.b64decode(b"".join(body.split()), validate=True)
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r|gz") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                size, files = size + member.size, files + 1
                if size > MOST_UNPACKED or files > MOST_FILES:
                    raise InputError("sent an archive that unpacks to too much; refused")
                inside = path.parts[0] == f"node{SUFFIX}" if path.parts else False
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or ".." in path.parts:
                    continue
                if path.parts == ("answer.json",):
                    said = _json(stream.read())
                elif inside and (path.parts[1:] == (INDEX,) or (len(path.parts) == 3 and path.parts[1] == FOLDER)):
                    (target / Path(*path.parts[1:])).write_bytes(stream.read())
    except (tarfile.TarError, binascii.Error, zlib.error, EOFError, OSError) as err:
        raise InputError(f"sent a damaged archive: {err}"[:200]) from err
    return said


def _json(raw: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
