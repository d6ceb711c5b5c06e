"""Open what the user named: files, folders, archives, compressed files, standard input.

Nothing here trusts a name or a size: formats are told by their first bytes, everything is streamed,
expansion is capped, and what cannot be used becomes one line of `InputRef.reason` instead of an error.
Decompressed bytes are kept (in memory while small, else in a temporary file), so that every document
can be read again from any offset.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from .document import Document, printable
from .errors import InputError, ParseError
from .mask import mask
from .models import InputRef
from .safe_json import loads
from .unpack import expand, packing

MAX_UNPACKED = 4 << 30  # decompressed bytes of all inputs together
MAX_RATIO = 200  # of decompressed to compressed size …
RATIO_FROM = 64 << 20  # … for whatever decompresses to more than this
MAX_MEMBERS = 10_000  # of one archive
MAX_FILES = 10_000  # of one call
IN_MEMORY = 16 << 20  # a decompressed document up to this size stays in memory …
IN_MEMORY_ALL = 256 << 20  # … while all of them together stay below this
CASSETTE = "diagnose.cassette/v1"
_CHUNK = 1 << 20
_NOT_EVIDENCE = frozenset([".git", ".hg", ".svn"])
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")

_KINDS = (
    (stat.S_ISFIFO, "a named pipe; pipe its content in and give `-` instead"),
    (stat.S_ISSOCK, "a socket, not a file"),
    (stat.S_ISCHR, "a device, not a file"),
    (stat.S_ISBLK, "a block device, not a file"),
)


Opener = Callable[[], BinaryIO]


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass
class _Source:
    """Stored bytes that may be a document or hold several."""

    name: str
    opener: Opener
    size: int  # as stored
    nested: bool = False
    parents: tuple[str, ...] = ()  # folders above, nearest last, to tell equal names apart


@dataclass
class _Session:
    """What one call has opened so far, and its budgets."""

    documents: list[tuple[Document, tuple[str, ...]]] = field(default_factory=list)
    rejected: list[InputRef] = field(default_factory=list)
    files: int = 0
    unpacked: int = 0
    in_memory: int = 0
    seen: set[tuple[int, int]] = field(default_factory=set)

    def refuse(self, name: str, reason: str) -> None:
        self.rejected.append(InputRef(name=_shown(name), sha256=None, recognised_as=None, reason=reason))

    def add(self, source: _Source, document: Document) -> None:
        self.documents.append((document, source.parents))


def _shown(name: str) -> str:
    """A name as every report may have it: a terminal shows it as it is, and no secret stands in it."""
    return printable(mask(name))


def open_inputs(paths: Sequence[str | Path], stdin: BinaryIO | None = None) -> tuple[list[Document], list[InputRef]]:
    """Documents of all paths, sorted by name, and what was refused with the reason.

    Args:
        paths: files, folders, archives; ``-`` is standard input.
        stdin: binary standard input, read when ``-`` is among the paths.
    """
    session = _Session()
    named: list[tuple[Document, tuple[str, ...]]] = []
    for path in paths:
        session.documents = []
        if str(path) == "-":
            _standard_input(stdin, session)
        else:
            _path(Path(path), session)
        # names are those within one path, so what a cassette does not list is told from what was given beside it
        kept = {id(d) for d in _cassettes([d for d, _ in session.documents], session)}
        named += [pair for pair in session.documents if id(pair[0]) in kept]
    documents = _told_apart(named)
    documents.sort(key=lambda d: (d.name, d.sha256))
    session.rejected.sort(key=lambda r: (r.name, r.reason or ""))
    return documents, session.rejected


# --- the file system -------------------------------------------------------------------------


def _why(err: OSError) -> str:
    """One line for an error of the operating system."""
    if isinstance(err, FileNotFoundError):
        return "no such file or folder"
    if isinstance(err, PermissionError):
        return "permission denied"
    return f"cannot be read ({err.strerror or type(err).__name__})"


def _path(path: Path, session: _Session) -> None:
    name = path.name or path.resolve().name or str(path)
    try:
        info = path.stat()  # before any open: opening a pipe would wait for a writer
    except (OSError, ValueError) as err:
        session.refuse(str(path), _why(err) if isinstance(err, OSError) else "not a usable path")
        return
    if stat.S_ISDIR(info.st_mode):
        _folder(path, session)
    else:
        _file(path, name, info, session, path.absolute().parent.parts)


def _file(path: Path, name: str, info: os.stat_result, session: _Session, parents: tuple[str, ...] = ()) -> None:
    for test, reason in _KINDS:
        if test(info.st_mode):
            session.refuse(name, reason)
            return
    identity = (info.st_dev, info.st_ino)
    if info.st_ino and identity in session.seen:
        return  # named twice
    session.seen.add(identity)
    session.files += 1
    source = _Source(name, _at(path), info.st_size, parents=parents)
    try:
        _open(source, session)
    except OSError as err:
        session.refuse(name, _why(err))


def _folder(root: Path, session: _Session) -> None:
    """All files below a folder in sorted order; links out of it and back up are named, not followed."""
    real_root = root.resolve()
    visited: set[Path] = set()
    stack = [(root, "")]
    anything = False
    while stack:
        folder, prefix = stack.pop()
        real = folder.resolve()
        if real in visited:
            session.refuse(prefix or str(root), "a link to a folder that is already read, not followed")
            continue
        visited.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as err:
            session.refuse(prefix or str(root), _why(err))
            continue
        inner = []
        anything |= bool(entries)
        for entry in entries:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            place = Path(entry.path)
            try:
                if entry.is_symlink() and not place.resolve().is_relative_to(real_root):
                    session.refuse(name, "a link out of the folder, not followed")
                    continue
                info = place.stat()
            except (OSError, RuntimeError) as err:  # RuntimeError: a loop of links, before Python 3.13
                lost = isinstance(err, (FileNotFoundError, PermissionError))
                reason = _why(err) if lost and isinstance(err, OSError) else "a loop of links, not followed"
                session.refuse(name, reason)
                continue
            if stat.S_ISDIR(info.st_mode):
                if entry.name not in _NOT_EVIDENCE:
                    inner.append((place, name))
                continue
            if session.files >= MAX_FILES:
                session.refuse(printable(str(root.name or root)), f"more than {MAX_FILES} files; the rest is not read")
                return
            _file(place, name, info, session, real_root.parts)
        stack.extend(reversed(inner))
    if not anything:
        session.refuse(printable(root.name or str(root)), "a folder without files")


def _standard_input(stdin: BinaryIO | None, session: _Session) -> None:
    if stdin is None:
        session.refuse("-", "nothing is piped into standard input")
        return
    try:
        kept = _keep(stdin, session)
    except OSError as err:
        session.refuse("-", _why(err))
        return
    _open(_Source("-", kept.opener, kept.size), session, kept)


# --- from stored bytes to documents ----------------------------------------------------------


@dataclass
class _Kept:
    """Bytes read once, with what is known of them."""

    opener: Opener
    size: int
    sha256: str
    cut: str | None
    holder: list[str]  # path of a temporary file, removed when the document goes


def _open(source: _Source, session: _Session, known: _Kept | None = None) -> None:
    """Turn a source into one document or, for an archive, several."""
    with source.opener() as stream:
        head = stream.read(512)
    if not head:
        session.refuse(source.name, "empty")
        return
    if head.startswith(_ZIP):
        _archive(source, session, _zip_members)
        return
    kind = packing(head)
    if kind is None and _is_tar(head):
        _archive(source, session, _tar_members)
    elif kind is None and known is not None:
        session.add(source, _document(source.name, known))
    elif kind is None:
        with source.opener() as stream:
            digest = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]
            size = stream.tell()
        session.add(source, Document(_shown(source.name), source.opener, size, digest.hexdigest()))
    else:
        _compressed(source, kind, session)


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _compressed(source: _Source, kind: str, session: _Session) -> None:
    try:
        with source.opener() as packed:
            first = expand(packed, kind).read(512)
    except InputError as err:
        session.refuse(source.name, err.message)
        return
    if _is_tar(first):
        _archive(source, session, partial(_tar_members, kind=kind))
        return
    with source.opener() as packed:
        stream = expand(packed, kind)
        try:
            kept = _keep(stream, session, source.size)
        except InputError as err:
            session.refuse(source.name, err.message)
            return
    if not kept.size:
        session.refuse(source.name, stream.cut or "empty after decompression")
        return
    session.add(source, _document(source.name, kept, stream.cut))


def _document(name: str, kept: _Kept, cut: str | None = None) -> Document:
    document = Document(_shown(name), kept.opener, kept.size, kept.sha256, cut=kept.cut or cut)
    for path in kept.holder:
        weakref.finalize(document, _remove, path)
    return document


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _at(path: str | Path) -> Opener:
    return lambda: open(path, "rb")


def _keep(stream: _Readable, session: _Session, packed: int = 0, made: int = 0) -> _Kept:
    """Read a stream once, within the budgets, into memory or a temporary file.

    Args:
        packed: compressed size it comes from, 0 if it is not compressed.
        made: what the same compressed bytes already expanded to.

    Raises:
        InputError: it expands like a decompression bomb.
    """
    digest, size, cut = hashlib.sha256(), 0, None
    memory = io.BytesIO()
    file: BinaryIO | None = None
    path = ""
    try:
        while block := stream.read(_CHUNK):
            room = MAX_UNPACKED - session.unpacked
            if len(block) > room:
                block = block[:room]
                cut = f"stopped at {MAX_UNPACKED >> 30} GiB of unpacked data, the limit of one call"
            size += len(block)
            session.unpacked += len(block)
            if packed and made + size > RATIO_FROM and made + size > MAX_RATIO * packed:
                raise InputError(f"expands to more than {MAX_RATIO} times its size; refused as a decompression bomb")
            digest.update(block)
            if file is None and (size > IN_MEMORY or session.in_memory + size > IN_MEMORY_ALL):
                handle, path = tempfile.mkstemp(prefix="diagnose-")
                file = os.fdopen(handle, "wb")
                file.write(memory.getvalue())
                memory = io.BytesIO()
            (file or memory).write(block)
            if cut:
                break
    except BaseException:
        if file is not None:
            file.close()
            _remove(path)
        raise
    if file is not None:
        file.close()
        return _Kept(_at(path), size, digest.hexdigest(), cut, [path])
    session.in_memory += size
    return _Kept(partial(io.BytesIO, memory.getvalue()), size, digest.hexdigest(), cut, [])


# --- archives --------------------------------------------------------------------------------

_Member = tuple[str, str | None, Opener | None]  # name, why refused, opener


def _archive(source: _Source, session: _Session, members: Callable[[_Source], Iterator[_Member]]) -> None:
    if source.nested:
        session.refuse(source.name, "an archive inside an archive is not opened; unpack the outer one first")
        return
    made = count = 0
    try:
        for name, refused, opener in members(source):
            count += 1
            full = f"{source.name}!{name}"
            if count > MAX_MEMBERS:
                session.refuse(source.name, f"more than {MAX_MEMBERS} members; the rest is not read")
                break
            if opener is None:
                session.refuse(full, refused or "not a file")
                continue
            made += _member(full, opener, source, session, made)
    except InputError as err:
        session.refuse(source.name, err.message)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as err:
        session.refuse(source.name, f"damaged archive: {count} members read, then {_oneline(err)}")
    if not count:
        session.refuse(source.name, "an archive without members")


def _oneline(err: Exception) -> str:
    return printable(" ".join(str(err).split()))[:120] or type(err).__name__


def _member(full: str, opener: Callable[[], BinaryIO], source: _Source, session: _Session, made: int) -> int:
    """Open one member; returns its unpacked size."""
    with opener() as stream:
        body = _Tolerant(stream)
        kept = _keep(body, session, source.size, made)
    kept.cut = kept.cut or body.cut
    if kept.cut and not kept.size:
        session.refuse(full, kept.cut)
        return 0
    inner = _Source(full, kept.opener, kept.size, nested=True, parents=source.parents)
    _open(inner, session, kept)
    return kept.size


class _Tolerant:
    """A member's stream that ends where the archive is damaged instead of raising."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.cut: str | None = None

    def read(self, size: int = -1, /) -> bytes:
        """Bytes, or nothing once the archive can no longer be read."""
        try:
            return self.stream.read(size)
        except (tarfile.TarError, EOFError, zlib.error, zipfile.BadZipFile) as err:
            self.cut = f"damaged archive ({_oneline(err)}): the first part is read"
            return b""


class _TarBody(io.RawIOBase):
    """A tar member's bytes straight from the stream; `extractfile` would lose the last block of a cut one."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.left = stream, size

    def read(self, size: int = -1, /) -> bytes:
        """Bytes, fewer at the end. Raises tarfile.ReadError where the archive ends inside the member."""
        if not self.left:
            return b""
        block = self.stream.read(min(self.left, size))
        self.left -= len(block)
        if not block:
            raise tarfile.ReadError("unexpected end of data")
        return block


def _unsafe(name: str) -> str | None:
    """Why a member's name is refused, or None."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
        return "its name points out of the archive, refused"
    return None


def _tar_members(source: _Source, kind: str | None = None) -> Iterator[_Member]:
    with source.opener() as packed:
        stream = expand(packed, kind) if kind else packed
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isdir():
                    continue
                reason = _unsafe(member.name)
                if member.issym() or member.islnk():
                    reason = "a link inside an archive, not followed"
                elif not member.isfile() or member.issparse():
                    reason = "not a plain file inside an archive, refused"
                body = cast(BinaryIO, _TarBody(cast(BinaryIO, archive.fileobj), member.size))
                yield member.name, reason, None if reason else lambda body=body: body  # type: ignore[misc]


def _zip_members(source: _Source) -> Iterator[_Member]:
    with source.opener() as packed, zipfile.ZipFile(packed) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            reason = _unsafe(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                reason = "a link inside an archive, not followed"
            elif member.flag_bits & 1:
                reason = "encrypted, cannot be read"
            yield member.filename, reason, None if reason else cast(Opener, partial(archive.open, member))


# --- names and cassettes ---------------------------------------------------------------------


def _told_apart(found: list[tuple[Document, tuple[str, ...]]]) -> list[Document]:
    """Give documents of equal name as many parent folders as it takes to tell them apart."""
    names: dict[str, list[tuple[Document, tuple[str, ...]]]] = {}
    for document, parents in found:
        names.setdefault(document.name, []).append((document, parents))
    for same in names.values():
        depth = 1
        while len(same) > 1 and depth <= max(len(p) for _, p in same):
            longer = [_shown("/".join((*p[-depth:], d.name))) for d, p in same]
            if len(set(longer)) == len(same):
                for (document, _), name in zip(same, longer, strict=True):
                    document.name = name
                break
            depth += 1
        else:
            for n, (document, _) in enumerate(sorted(same, key=lambda s: s[0].sha256)[1:], 2):
                document.name = f"{document.name}#{n}"
    return [document for document, _ in found]


def _cassettes(documents: list[Document], session: _Session) -> list[Document]:
    """Replace the documents of a cassette by the captures that it lists, with their taint."""
    for index in [d for d in documents if d.name.rpartition("/")[2].rpartition("!")[2] == "cassette.json"]:
        try:
            listed = loads(index.data, "cassette") if index.size <= IN_MEMORY else None
        except ParseError:
            continue
        if not isinstance(listed, dict) or listed.get("schema") != CASSETTE:
            continue
        base = index.name[: -len("cassette.json")]
        inside = {d.name[len(base) :]: d for d in documents if d is not index and d.name.startswith(base)}
        kept = []
        for capture in listed.get("captures") or []:
            if isinstance(capture, dict) and (capture.get("parameters") or {}).get("without"):
                continue  # a trial with a setting left out: its figures are not this machine's state
            file = str(capture.get("file", "")) if isinstance(capture, dict) else ""
            document = inside.get(file)
            if document is None:
                session.refuse(base + file, "listed in cassette.json and not there")
            elif capture.get("sha256") not in (None, document.sha256):
                session.refuse(document.name, "does not match its sha256 in cassette.json")
            else:
                taint = {"recorded", *_words(listed.get("taint")), *_words(capture.get("taint"))}
                document.status = tuple(sorted(taint))
                kept.append(document)
        documents = [d for d in documents if d is not index and d not in inside.values()] + kept
    return documents


def _words(value: object) -> list[str]:
    known = ("live", "provided", "recorded", "simulated")
    return [v for v in (value if isinstance(value, list) else [value]) if v in known]
