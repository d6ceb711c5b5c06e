"""The same thing in two states or places: a link at rest and at work, files near and far, a card alone and shared."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, computed, excerpt, fact

_SMALL = 1 << 15
_LINES = 300

# ---------------------------------------------------------------- a link at rest and at work

_QUERY = regex(r"--query-gpu=(?P<c>[\w.,]+)")
_REST = regex(
    r"\bidl\w+|at rest|no (?:load|job|work)|nothing (?:runs|running)|desktop|\bP[58]\b|\bP12\b|空闲|闲置|静止|桌面|待机|没(?:有)?跑",  # noqa: E501
    re.I,
)
_WORK = regex(
    r"\b(?:during|under|while|with) (?:\w+ ){0,3}(?:load|test|bench\w*|run\w*|copy|copies|copying|training|work|inference|render\w*|stress\w*|burn)\b"  # noqa: E501
    r"|\b(?:busy|loaded|running|rendering|training|stress\w*|burn(?:-?in)?|gaming|inference|full load|copying)\b|跑|负载|运行|压测|满载|训练|推理中",  # noqa: E501
    re.I,
)  # fmt: skip
_GPUZ = regex(r"PCIe? ?x(?P<wm>\d{1,2}) (?P<top>[1-6])\.\d @ x(?P<w>\d{1,2}) (?P<now>[1-6])\.\d", re.I)
_GTS = regex(
    r"(?:LnkSta:?\s.*?Speed|(?<!max )(?<!cap )link speed|current speed)\W{0,6}(?P<s>2\.5|5|8|16|32|64)(?:\.0)? ?GT/s",
    re.I,
)
_MAX_GTS = regex(r"\bmax\w*\W{0,3}(?P<s>2\.5|5|8|16|32|64)(?:\.0)? ?GT/s", re.I)
_CAP = regex(r"LnkCap:?\s.*?Speed (?P<s>2\.5|5|8|16|32|64)(?:\.0)? ?GT/s", re.I)
_NAMED = regex(r"(?:pcie\.link\.gen\.(?:gpu)?current|\bgen(?:eration)?)\W{0,3}(?P<now>[1-6])\b(?!\.?\d*@)", re.I)
_GEN_HEAD = regex(r"\b(?:pcie?|link)[ ._]?gen\w*|\bgen(?:eration)?\b", re.I)
_DIGIT = regex(r"(?<![\w.])\d+(?!\w)")
_UTIL = regex(r"(?:util\w*(?:\.gpu)?|sm|load|占用|利用率)\W{0,3}(?P<n>\d{1,3}) ?%|(?P<m>\d{1,3}) ?%", re.I)
_GENERATION = {"2.5": 1, "5": 2, "8": 3, "16": 4, "32": 5, "64": 6}


class LinkStateReader:
    """`link.gen` of a PCIe link, labelled ``rest`` or ``work``, and the highest it can be as ``top``."""

    name = "link_states"
    needles: tuple[bytes, ...] = (b"LnkSta", b"GT/s", b"gen.", b"PCIe x", b"Gen", b"gen", b"GEN")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """By the use in the same row, by words in it, or by the heading above it."""
        columns: list[str] = []
        table: list[str] = []
        heading = ""
        seen: set[tuple[str, int]] = set()
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if hit := _QUERY.search(text):
                columns = hit["c"].split(",")
                continue
            named = "rest" if _REST.search(text) else "work" if _WORK.search(text) else ""
            if _GEN_HEAD.search(text) and not _DIGIT.search(text):
                table = [c.strip().lower() for c in re.split(r"\s{2,}|\t|\|", text.strip(" |"))]
                continue
            now, top = self._gens(text, columns)
            if now is None and table:
                cells = [c.strip() for c in re.split(r"\s{2,}|\t|\|", text.strip(" |"))]
                at = next((i for i, c in enumerate(table) if "gen" in c), 0)
                now = int(cells[at]) if len(cells) == len(table) and re.fullmatch("[1-6]", cells[at]) else None
            if now is None and top is None:
                heading = named or ("" if not text.strip() else heading)
                continue
            state = self._use(text, columns) or named or heading
            for label, value in ((state, now), ("top", top)):
                if value is not None and label and (label, value) not in seen:
                    seen.add((label, value))
                    yield computed(doc, line, "link.gen", float(value), "count", self.name, label=label)

    @staticmethod
    def _gens(text: str, columns: list[str]) -> tuple[int | None, int | None]:
        if hit := _GPUZ.search(text):
            return int(hit["now"]), int(hit["top"])
        if hit := _GTS.search(text):
            most = _MAX_GTS.search(text)
            return _GENERATION[hit["s"]], _GENERATION[most["s"]] if most else None
        if hit := _CAP.search(text):
            return None, _GENERATION[hit["s"]]
        cells = [c.strip() for c in text.split(",")]
        if columns and len(cells) == len(columns):
            row = dict(zip(columns, cells, strict=True))
            found = [
                int(v) if (v := row.get(k, "")).isdecimal() else None for k in ("pcie.link.gen.current", "pcie.link.gen.max")  # noqa: E501
            ]  # fmt: skip
            return found[0] or (int(v) if (v := row.get("pcie.link.gen.gpucurrent", "")).isdecimal() else None), found[
                1
            ]
        hit = _NAMED.search(text)
        return (int(hit["now"]), None) if hit else (None, None)

    @staticmethod
    def _use(text: str, columns: list[str]) -> str:
        cells = [c.strip() for c in text.split(",")]
        if columns and len(cells) == len(columns) and "utilization.gpu" in columns:
            share = cells[columns.index("utilization.gpu")].rstrip(" %")
            hit = re.fullmatch(r"\d{1,3}", share)
            number = int(share) if hit else -1
        else:
            found = _UTIL.search(text)
            number = int(found["n"] or found["m"]) if found else -1
        return "rest" if 0 <= number <= 5 else "work" if number >= 30 else ""


# ---------------------------------------------------------------- files far and near

_FAR = regex(
    r"(?<![\w-])(?:nfs\d?|lustre|ceph\w*|gpfs|weka|efs|fsx|beegfs|juicefs|gluster\w*|smb|cifs|samba|9p|drvfs|sshfs|filer|nas|s3|gcs|oss|minio|hdfs|fuse|gcsfuse|goofys|azure ?blob|blob(?:fuse)?|object store|shared (?:storage|drive)|network (?:drive|volume|disk|share)|usb|hdd|spinning disk)(?![\w-])|/mnt/[a-z](?=/|\s|$)|/nfs\b|/lustre\b|s3://|gs://|网络(?:盘|存储)|共享(?:盘|存储)|对象存储|机械(?:硬)?盘",  # noqa: E501
    re.I,
)
_NEAR = regex(
    r"(?<![\w-])(?:local(?:ly)?|nvme\w*|ssd|tmpfs|ramdisk|scratch|page cache|ext4|xfs)(?![\w-])|/tmp\b|/local\b|/dev/shm\b|/scratch\b|~/|本地|固态",  # noqa: E501
    re.I,
)
_TIMED = regex(
    r"(?P<before>[^\d\n,，;；:：|]{0,24}?)(?:[:：=~≈]\s*|\s+|\b)?(?<![\w.])(?P<v>\d[\d,]*(?:\.\d+)?) ?(?P<u>minutes?|min|seconds?|secs?|ms|s|m|分钟|秒)(?![\w/])(?! ?/)",  # noqa: E501
    re.I,
)
_SECONDS = {
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "secs": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "秒": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "分钟": 60.0,
}
_RATE = regex(
    r"(?<![\w.])(?P<v>\d[\d,]*(?:\.\d+)?) ?(?P<u>[KMG]i?B/s|im(?:g|ages?)/s|samples?/s|files?/s|rows/s|it/s|IOPS|records/s|张/s|条/s)",  # noqa: E501
    re.I,
)
_SCALE = {"k": 1e-3, "m": 1.0, "g": 1e3}
_BARE = regex(r"(?<![\w./-])(?P<v>\d[\d,]*(?:\.\d+)?)(?![\w./%-])(?! ?(?:GB|GiB|MB|TB|%|x\b))")
_RATED_HEAD = regex(r"(?P<u>[KMG]i?B/s|im(?:g|ages?)/s|samples?/s|files?/s|tokens?/s|rows/s|it/s)", re.I)
_COPIED = regex(r"\b(?:cp|copy|copied|copying|rsync|stage|staged|first)\b|拷|复制", re.I)


class StoragePairReader:
    """`storage.gain`: how many times faster the same files come from a local disk than over the network."""

    name = "storage_pair"
    needles: tuple[bytes, ...] = tuple(
        w.encode() for w in ("nfs", "NFS", "lustre", "Lustre", "eph", "gpfs", "GPFS", "EFS", "efs", "s3", "S3", "filer", "NAS", "9p", "/mnt/", "use", "网络", "共享", "对象", "SMB", "smb", "HDD", "FSx", "fsx", "juice", "Juice", "机械", "gs:", "eegfs", "eeGFS", "olume")  # noqa: E501
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The first pair of lines that are several times apart."""
        far: list[tuple[Line, str, str]] = []
        near: list[tuple[Line, str, str]] = []
        head = ""
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            rated = _RATED_HEAD.search(text)
            if rated and not _RATE.search(text):
                head = rated["u"]
            if _NEAR.search(text) and not (_FAR.search(text) and not _COPIED.search(text)):
                near.append((line, text, head))
            elif _FAR.search(text):
                far.append((line, text, head))
        for slow in far[:8]:
            for fast in near[:8]:
                got = self._gain(slow, fast)
                if got is not None:
                    yield Fact(
                        "storage.gain", round(got, 3), "count", Subject(label=_FAR.search(slow[1])[0][:24]),  # type: ignore[index]
                        (doc.span(slow[0]), doc.span(fast[0])), kind="derived", formula="reader:storage_pair",
                        status=doc.status,
                    )  # fmt: skip
                    return

    @staticmethod
    def _gain(slow: tuple[Line, str, str], fast: tuple[Line, str, str]) -> float | None:
        late, soon = _times(slow[1]), _times(fast[1])
        if late and soon:
            common = [k for k in late if k and k in soon]
            if common:
                return max(late[k] / soon[k] for k in common if soon[k] > 0)
            least = min(soon.values())
            return max(late.values()) / least if least > 0 else None
        low, high = _rates(slow), _rates(fast)
        if low and high and low[1] == high[1] and low[0] > 0:
            return high[0] / low[0]
        return None


def _times(text: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for hit in _TIMED.finditer(text):
        words = re.findall(r"[a-z_]{2,}|[\u4e00-\u9fff]{2,}", hit["before"].lower())
        if words and _COPIED.fullmatch(words[-1]):
            continue  # bringing the files near is not reading them there
        out.setdefault(words[-1] if words else "", amount(hit["v"]) * _SECONDS[hit["u"].lower()])
    return out


def _rates(row: tuple[Line, str, str]) -> tuple[float, str] | None:
    hit = _RATE.search(row[1])
    if hit:
        unit = hit["u"].lower()
        scale = _SCALE.get(unit[0], 1.0) if unit.endswith("b/s") else 1.0
        return amount(hit["v"]) * scale, "bytes" if unit.endswith("b/s") else unit[:3]
    bare = list(_BARE.finditer(row[1])) if row[2] else []
    return (amount(bare[0]["v"]), row[2].lower()[:3]) if bare else None


# ---------------------------------------------------------------- who computes on a card

_APPS = regex(r"--query-compute-apps=(?P<c>[\w.,]+)")
_NVITOP = regex(
    r"^\W*(?P<gpu>\d{1,2})\s+(?P<pid>\d{3,8})\s+C(?:\+G)?\s+(?P<user>[\w.-]+)\s+(?P<m>\d+(?:\.\d+)?)(?P<mu>[GM]i?B)\s+(?P<sm>\d{1,3})\b"
)
_GPUSTAT = regex(r"\[(?P<gpu>\d{1,2})\] [^|]+\|[^|]+\|[^|]+\|(?P<users>.+)$")
_USER = regex(r"(?P<user>[\w.-]+?)(?::[\w.+-]+(?:/\d+)?)?\((?P<m>\d+)M\)")


class CardUserReader:
    """Processes of `nvitop`, and users of `gpustat`, with what they hold and compute."""

    name = "card_users"
    needles: tuple[bytes, ...] = (b"compute-apps", b"iB ", b"M)")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.process*` as of the other tools; `gpu.users` of a line, those that hold a GiB or more."""
        columns: list[str] = []
        for line in excerpt(doc, 1 << 18, 4000):
            text = line.prefix + line.text
            if hit := _APPS.search(text):
                columns = hit["c"].split(",")
            elif re.match(r"\W*(?:pid|gpu_uuid|process_name|name),", text):
                columns = []  # with its head the table is read elsewhere
            elif columns and len(cells := [c.strip() for c in text.split(",")]) == len(columns):
                named = dict(zip(columns, cells, strict=True))
                pid, size = (
                    named.get("pid", ""),
                    re.match(r"(\d+) MiB", named.get("used_memory") or named.get("used_gpu_memory") or ""),
                )
                if pid.isdecimal() and size:
                    yield fact(doc, line, "gpu.process.memory", float(size[1]) / 1024, "GiB", label=f"{pid} C")
            if hit := _NVITOP.match(text):
                label, gpu = f"{hit['pid']} C", int(hit["gpu"])
                scale = 1.0 if hit["mu"].startswith("G") else 1 / 1024
                yield fact(doc, line, "gpu.process.memory", float(hit["m"]) * scale, "GiB", gpu=gpu, label=label)
                yield fact(doc, line, "gpu.process.sm", float(hit["sm"]) / 100, "fraction", gpu=gpu, label=label)
            elif row := _GPUSTAT.search(text):
                held = [u for u in _USER.finditer(row["users"]) if int(u["m"]) >= 1000]
                if held:
                    yield computed(doc, line, "gpu.users", float(len(held)), "count", self.name, gpu=int(row["gpu"]))


READERS: list[Reader] = [LinkStateReader(), StoragePairReader(), CardUserReader()]
