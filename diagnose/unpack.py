"""Decompress a stream of unknown origin: bounded memory, and the readable part of a damaged one."""

from __future__ import annotations

import bz2
import importlib
import io
import lzma
import zlib
from typing import BinaryIO, Protocol

from .errors import InputError

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_READ = 1 << 16


def packing(head: bytes) -> str | None:
    """How a file is compressed, by its first bytes."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """`zlib` with the interface that `bz2` and `lzma` share."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))


def _decompressor(kind: str) -> _Decompressor:
    if kind == "gzip":
        return _Gzip()
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    if kind == "xz":
        return lzma.LZMADecompressor(memlimit=256 << 20)
    try:
        return importlib.import_module("compression.zstd").ZstdDecompressor()  # type: ignore[no-any-return]
    except ModuleNotFoundError:
        raise InputError("zstd is not readable with this Python (3.14 can); decompress it first") from None


class Expanded(io.RawIOBase):
    """The decompressed bytes of a stream; ends early, with the reason in `cut`, where it is damaged."""

    def __init__(self, packed: BinaryIO, kind: str) -> None:
        self.packed, self.kind = packed, kind
        self.inner = _decompressor(kind)
        self.cut: str | None = None
        self.done = False
        self.made = 0
        self.left = b""  # read from `packed`, not yet given to the decompressor

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        want = size if size is not None and size >= 0 else 1 << 62
        parts: list[bytes] = []
        while want > 0 and not self.done:
            block = self._more(min(want, 1 << 20))
            parts.append(block)
            want -= len(block)
        return b"".join(parts)

    def _more(self, most: int) -> bytes:
        if self.inner.eof:
            rest = self.inner.unused_data or self.packed.read(_READ)
            if len(rest) < 2:
                rest += self.packed.read(_READ)
            if packing(rest) != self.kind:  # padding or other bytes after the last member
                self.done = True
                return b""
            self.inner, self.left = _decompressor(self.kind), rest
        data, self.left = self.left, b""
        if not data and self.inner.needs_input:
            data = self.packed.read(_READ)
            if not data:
                self.done = True
                self.cut = f"truncated {self.kind}: the first {self.made} bytes are read"
                return b""
        try:
            out = self.inner.decompress(data, most)
        except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as err:
            self.done = True
            self.cut = f"damaged {self.kind} ({str(err)[:80]}): the first {self.made} bytes are read"
            return b""
        self.made += len(out)
        return out


def expand(packed: BinaryIO, kind: str) -> Expanded:
    """The decompressed stream of `packed`.

    Raises:
        InputError: this Python cannot read that kind.
    """
    return Expanded(packed, kind)
