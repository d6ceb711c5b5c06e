"""UCX: `ucx_info`, its log, protocol tables of 1.13 to 1.22, `ucx_perftest`, and UCX variables wherever set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from diagnose.document import Document, Line, Span
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import divided, fact

# Variables people set often. A name that is not one of UCX's and lies one or two letters from one of these is a typo.
COMMON = (
    "UCX_TLS", "UCX_NET_DEVICES", "UCX_RNDV_THRESH", "UCX_RNDV_SCHEME", "UCX_IB_GID_INDEX", "UCX_MEMTYPE_CACHE",
    "UCX_LOG_LEVEL", "UCX_PROTO_INFO", "UCX_PROTO_ENABLE", "UCX_MAX_RNDV_RAILS", "UCX_MAX_EAGER_RAILS",
    "UCX_ZCOPY_THRESH", "UCX_IB_GPU_DIRECT_RDMA", "UCX_IB_TRAFFIC_CLASS", "UCX_IB_SL", "UCX_IB_PKEY",
    "UCX_SOCKADDR_TLS_PRIORITY", "UCX_MODULE_DIR", "UCX_CUDA_COPY_MAX_REG_RATIO", "UCX_RC_TIMEOUT",
    "UCX_RC_RETRY_COUNT", "UCX_CUDA_IPC_CACHE", "UCX_WARN_UNUSED_ENV_VARS", "UCX_SOCKADDR_CM_ENABLE",
    "UCX_MAX_RMA_RAILS", "UCX_CUDA_COPY_DMABUF", "UCX_IB_NUM_PATHS", "UCX_RNDV_FRAG_MEM_TYPES", "UCX_RCACHE_ENABLE",
    "UCX_TCP_BRIDGE_ENABLE", "UCX_IB_REG_METHODS", "UCX_IB_ROCE_LOCAL_SUBNET", "UCX_IB_MLX5_DEVX", "UCX_IB_PATH_MTU",
    "UCX_IB_PCI_RELAXED_ORDERING", "UCX_ERROR_SIGNALS", "UCX_HANDLE_ERRORS", "UCX_TCP_CM_REUSEADDR",
    "UCX_IB_ADDR_TYPE", "UCX_KEEPALIVE_INTERVAL", "UCX_RCACHE_MAX_UNRELEASED", "UCX_MEM_EVENTS",
)  # fmt: skip
# Real names that happen to lie close to a common one.
ALIKE = {"UCX_TCP", "UCX_IB_TM", "UCX_UD_TIMEOUT", "UCX_DC_TIMEOUT", "UCX_DC_RETRY_COUNT", "UCX_BCOPY_THRESH",
         "UCX_PROTOS", "UCX_IB_PKEY_MASK", "UCX_SELF_NET_DEVICES", "UCX_MODULES", "UCX_MEM_EVENT",
         "UCX_RNDV_FRAG_MEM_TYPE"}  # fmt: skip
# Defaults as `ucx_info -c` prints them: no override. Spellings of all versions read.
DEFAULTS = {
    "UCX_TLS": {"all"}, "UCX_NET_DEVICES": {"all"}, "UCX_RNDV_THRESH": {"auto", "host:auto", "intra:auto,inter:auto"},
    "UCX_RNDV_SCHEME": {"auto"}, "UCX_IB_GPU_DIRECT_RDMA": {"try"}, "UCX_MEM_EVENTS": {"try", "y", "yes"},
    "UCX_MEMTYPE_CACHE": {"try", "y", "n", "yes", "no"}, "UCX_IB_GID_INDEX": {"auto"},
}  # fmt: skip
# Names that UCX_TLS takes, of all versions and vendors.
TRANSPORTS = frozenset((
    "all", "self", "tcp", "rc", "rc_x", "rc_v", "rc_mlx5", "rc_verbs", "ud", "ud_x", "ud_v", "ud_mlx5",
    "ud_verbs", "dc", "dc_x", "dc_mlx5", "ib", "sm", "shm", "mm", "sysv", "posix", "cma", "knem", "xpmem",
    "cuda", "cuda_copy", "cuda_ipc", "gdr_copy", "rocm", "rocm_copy", "rocm_ipc", "rocm_gdr", "ze", "ze_copy",
    "ze_ipc", "ze_gdr", "ugni", "srd", "ud_srd", "gga", "gga_mlx5", "rdmacm", "sockcm", "cuda_host",
    "gaudi_gdr", "tcp_sockcm", "ib_srd", "gpu",
))  # fmt: skip
_DUMP_LINES = 25  # this many settings in a row are `ucx_info -c`, not an environment

_SETTING = regex(r"""\b(UCX_[A-Z][A-Z0-9_]*)["'\]]*\s*(?:=|:\s)\s*["']?([^\s"'`;|)}\]]+)""")
_NAME = regex(r"""name:\s*["']?(UCX_[A-Z0-9_]+)""")
_VALUE = regex(r"""value:\s*["']?([^\s"']+)""")
_LANE = regex(r"\b(tag|rma|rma_am|amo|amo_am|am|stream|ka|device)\(((?:[a-z][a-z_0-9]*/[\w:.\-]+ ?)+)\)")
_LANE_LINE = regex(r"\blane\[\d+\]:\s+\d+:([a-z]\w*/[\w:\-]+?)\.\d+\b(.*)")
_SCOPE = regex(r"\b(intra-node|inter-node|self)\b")
_ROW = regex(r"\|\s*(\d+)\.\.(inf|\d+)\s*\|\s*(\S[^|]*?)\s*\|\s*(\S[^|]*?)\s*\|")
_TITLE = regex(
    r"\|\s*((?:tagged message|active message|remote memory (?:read|write)|rendezvous|stream message|atomic)[^|]*?)\s*\|"
)
_VERSION = regex(
    r"#?\s*(?:Library version:|UC[TXP] version[=:]|Version|UCX library version)\s*v?(\d+\.\d+(?:\.\d+)?)(?:\S*)"
    r"(?:\s+\(loaded from ([^,)]+))?"
)
_HEADERS = regex(r"API headers version:\s*(\d+\.\d+(?:\.\d+)?)")
_CONFIGURE = regex(r"(?i)configured with:|configure(?:-release|-opt)?\b.*--|^\s*--(?:with|enable|prefix)")
_TRANSPORT = regex(r"#?\s*Transport:\s+([a-z][\w]*)\s*$")
_DOMAIN = regex(r"#\s*Memory domain:\s+(\S+)")
_MEMORY = regex(r"#\s*memory types:\s*(.*\S)?\s*$")
_TEST = regex(r"\|\s*Test:\s+(.*?)\s*\|")
_MEMORY_TEST = regex(r"\|\s*(Send|Recv) memory:\s+(\S+)")
_MESSAGE_SIZE = regex(r"\|\s*Message size:\s+(\d+)")
_FINAL = regex(r"^Final:\s+(\d+)\s+" + r"\s+".join([r"(\d+(?:\.\d+)?)"] * 7))
_UNAVAILABLE = regex(r"(?:transport|transports) '([^']+)'.* not available, please use one or more of: (.+)")


def distance(a: str, b: str, most: int = 2) -> int:
    """Edit distance with transpositions, given up above `most`."""
    if abs(len(a) - len(b)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(row[-1] + 1, last[j] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return last[-1]


def resembles(name: str) -> str | None:
    """The common variable that `name` is a slip of the pen for, or None."""
    # what every RDMA transport has under its own prefix
    family = re.sub(r"^UCX_(?:RC|DC|UD|GGA|SRD)_(?:MLX5_|VERBS_)?", "UCX_IB_", name)
    if name in COMMON or name in ALIKE or family in COMMON:
        return None
    for known in COMMON:
        # short names are close to many things: allow one slip only
        if 0 < distance(name, known) <= (1 if len(known) < 12 else 2):
            return known
    return None


@dataclass
class _State:
    """What is being put together over several lines."""

    settings: list[tuple[str, str, tuple[Line, ...]]] = field(default_factory=list)  # value first, then its name
    pending: tuple[str, Line] | None = None
    lanes: dict[tuple[str, str, str], tuple[Line, set[str]]] = field(default_factory=dict)
    title: str = ""
    rows: dict[str, tuple[int, str, str, Line]] = field(default_factory=dict)
    emulated: dict[tuple[str, str], Line] = field(default_factory=dict)
    transports: dict[str, Span] = field(default_factory=dict)
    domain: str = ""
    test: list[str] = field(default_factory=list)
    size: str = ""
    versions: set[tuple[str, str]] = field(default_factory=set)


class UcxReader:
    """All UCX texts in one pass; each pattern is tried only on lines that hold its key word."""

    name = "ucx"
    needles = (b"UCX", b"ucx", b"ucp_", b"uct_", b"Transport:", b"cfg#", b"rc_mlx5", b"software emulation",
               b"ep_cfg[", b"rma(", b"rma_am(", b"lane[", b"Library version", b"Configured with",
               b"--with-verbs", b"--with-cuda", b"--with-gdrcopy", b"Final: ")  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        state = _State()
        for line in doc.lines():
            text = line.text
            if "UCX_" in text or state.pending:
                self._settings(text, line, state)
            if "/" in text and ("(" in text or "lane[" in text):
                self._lanes(text, line, state)
            if "|" in text:
                self._table(text, line, state)
            if "ersion" in text:
                yield from self._version(doc, text, line, state)
            if "--" in text:
                yield from self._configure(doc, text, line)
            if ":" in text:
                yield from self._listing(doc, text, line, state)
            if text.startswith("Final:"):
                yield from self._perftest(doc, text, line, state)
        yield from self._close(doc, state)

    def _settings(self, text: str, line: Line, state: _State) -> None:
        if state.pending is not None:
            hit = _VALUE.search(text)
            if hit:
                state.settings.append((state.pending[0], hit.group(1), (line, state.pending[1])))
            state.pending = None
        for hit in _SETTING.finditer(text):
            name, value = hit.groups()
            if "to suppress" in text and name == "UCX_WARN_UNUSED_ENV_VARS":
                continue
            state.settings.append((name, value.rstrip(",.\\"), (line,)))
        named = _NAME.search(text)
        if named and not _SETTING.search(text):
            inline = _VALUE.search(text)
            if inline:
                state.settings.append((named.group(1), inline.group(1), (line,)))
            else:
                state.pending = (named.group(1), line)

    def _lanes(self, text: str, line: Line, state: _State) -> None:
        scope = _SCOPE.search(text)
        process = re.search(r"\[([\w.-]+:\d+)", text)
        single = _LANE_LINE.search(text)
        # a lane that serves connection set-up only says nothing about the data
        if single and re.search(r"\b(?:am|am_bw|rma|rma_bw|tag)\b", single.group(2)):
            key = ("lanes", scope.group(1) if scope else "", single.group(1))
            state.lanes.setdefault(key, (line, set()))[1].add(process.group(1) if process else str(line.number))
        for hit in _LANE.finditer(text):
            for resource in hit.group(2).split():
                key = (hit.group(1), scope.group(1) if scope else "", resource)
                found = state.lanes.setdefault(key, (line, set()))
                found[1].add(process.group(1) if process else str(line.number))

    def _table(self, text: str, line: Line, state: _State) -> None:
        title = _TITLE.search(text)
        if title:
            state.title = title.group(1)
            return
        row = _ROW.search(text)
        if row is None:
            return
        start, what, config = int(row.group(1)), row.group(3).strip(), row.group(4).strip()
        if "software emulation" in what:
            state.emulated.setdefault((state.title, config), line)
        if row.group(2) == "inf":
            state.rows[state.title] = (start, what, config, line)

    def _version(self, doc: Document, text: str, line: Line, state: _State) -> Iterator[Fact]:
        hit = _HEADERS.search(text)
        if hit:
            yield fact(doc, line, "ucx.headers", hit.group(1))
            return
        hit = _VERSION.search(text)
        if hit is None or not ("UCX" in text or "UCT" in text or "UCP" in text or "# " in text):
            return
        number, path = hit.group(1), hit.group(2) or ""
        if (number, path) in state.versions:
            return
        state.versions.add((number, path))
        yield fact(doc, line, "version", number, around=number, label="ucx")
        if path:
            yield fact(doc, line, "ucx.library", path, around=path, label=number)

    def _configure(self, doc: Document, text: str, line: Line) -> Iterator[Fact]:
        if not _CONFIGURE.search(text) or "--with-ucx" in text or "nccl" in text.lower():
            return
        if not re.search(
            r"--(?:with|without)-(?:cuda|verbs|gdrcopy|rdmacm|knem|xpmem|mlx5)|--enable-(?:mt|cma)\b", text
        ):
            return
        cut = "[...]" in text or "..." in text
        for name in ("cuda", "verbs", "gdrcopy"):
            if re.search(rf"--without-{name}\b|--with-{name}=no\b", text):
                value = "without"
            elif re.search(rf"--with-{name}\b", text):
                value = "with"
            elif "onfigured with" in text and not cut and len(text) < 2000:
                value = "unmentioned"
            else:
                continue
            around = f"-{name}" if value != "unmentioned" else None
            yield fact(doc, line, "ucx.build", value, around=around, label=name)

    def _listing(self, doc: Document, text: str, line: Line, state: _State) -> Iterator[Fact]:
        hit = _TRANSPORT.search(text)
        if hit:
            state.transports.setdefault(hit.group(1), doc.span(line))
            return
        hit = _DOMAIN.search(text)
        if hit:
            state.domain = hit.group(1)
            return
        hit = _MEMORY.search(text)
        if hit and state.domain:
            value = hit.group(1) or "none"
            yield fact(doc, line, "ucx.md.memory", value[:200], label=state.domain)
            state.domain = ""
            return
        if "not available, please use" in text:
            yield from self._unavailable(doc, text, line)
        test = _TEST.search(text) or _MEMORY_TEST.search(text)
        if test:
            state.test.append(" ".join(test.groups()))
        elif (size := _MESSAGE_SIZE.search(text)) is not None:
            state.size = f"{size.group(1)} B"

    def _unavailable(self, doc: Document, text: str, line: Line) -> Iterator[Fact]:
        hit = _UNAVAILABLE.search(text)
        if hit is None:
            return
        known = {k.strip(" '") for k in hit.group(2).split(",")}
        for wrong in re.split(r"[,']+\s*'?", hit.group(1)):
            near = [k for k in known if 0 < distance(wrong, k) <= (1 if len(wrong) < 6 else 2)]
            # two-letter names are all alike: `rc` is no slip for `cm`
            if len(wrong) > 4 and near and wrong not in known:
                yield fact(doc, line, "ucx.tls.typo", wrong, label=sorted(near)[0])

    def _perftest(self, doc: Document, text: str, line: Line, state: _State) -> Iterator[Fact]:
        hit = _FINAL.match(text)
        if hit is None:
            doc.lines_skipped += 1
            return
        median, average, overall, _, rate = (float(hit.group(i)) for i in (2, 3, 4, 5, 6))
        test = ", ".join(filter(None, [*dict.fromkeys(state.test[-3:]), state.size])) or "ucx_perftest"
        span = (doc.span(line),)

        def latency(value: float, kind: str) -> Fact:
            return Fact("ucx.perftest.latency", value, "us", Subject(label=f"{test}|{kind}"), span, status=doc.status)

        middle, mean = latency(median, "median"), latency(overall, "overall")
        yield middle
        if average != overall:
            yield latency(average, "average")
        yield mean
        got = canonical(rate, "MiB/s")
        if got and rate > 0:
            yield Fact("ucx.perftest.bw", got[0], got[1], Subject(label=test), span, status=doc.status)
        # of a bandwidth test the median is the posting time only, so it says nothing beside the mean
        if median > 0 and overall / median > 3 and rate < 50:
            yield divided("ucx.perftest.mean_over_median", (mean, middle))

    @staticmethod
    def _slips(doc: Document, value: str, line: Line) -> Iterator[Fact]:
        """Transports in UCX_TLS that no UCX has and that resemble one that exists."""
        for name in value.strip("^\\'\"").lower().split(","):
            name = name.strip("\\ ").split(":")[0]
            if len(name) < 4 or name in TRANSPORTS or not re.fullmatch(r"[a-z][a-z0-9_-]+", name):
                continue
            near = sorted(k for k in TRANSPORTS if len(k) > 3 and distance(name, k) <= (1 if len(name) < 7 else 2))
            if near:
                yield fact(doc, line, "ucx.tls.typo", name, around=name, label=near[0])

    def _close(self, doc: Document, state: _State) -> Iterator[Fact]:
        yield from self._close_settings(doc, state.settings)
        for (kind, scope, resource), (line, users) in state.lanes.items():
            yield Fact(
                "ucx.lane", resource, None, Subject(label=f"{kind}|{scope}"), (doc.span(line, resource),),
                count=len(users), status=doc.status,
            )  # fmt: skip
        for title, (_, what, config, line) in state.rows.items():
            yield fact(doc, line, "ucx.proto", f"{what} | {config}", label=title)
        for (title, config), line in state.emulated.items():
            yield fact(doc, line, "ucx.proto.emulated", config, label=title)
        if state.transports:
            names = ",".join(sorted(state.transports))
            yield Fact(
                "ucx.transports", names, None, Subject(), tuple(state.transports.values())[:12], status=doc.status
            )

    def _close_settings(self, doc: Document, settings: Iterable[tuple[str, str, tuple[Line, ...]]]) -> Iterator[Fact]:
        settings = list(settings)
        dump = len({name for name, _, _ in settings}) > _DUMP_LINES
        seen: set[tuple[str, str]] = set()
        for name, value, lines in settings:
            if (name, value) in seen:
                continue
            seen.add((name, value))
            if dump and (name not in DEFAULTS or value in DEFAULTS[name]):
                continue
            span = tuple(doc.span(line, name) for line in lines)
            yield from () if dump or name != "UCX_TLS" else self._slips(doc, value, lines[0])
            meant = None if dump else resembles(name)
            if meant:
                yield Fact("ucx.env.typo", name, None, Subject(label=meant), span, status=doc.status)
            yield Fact("ucx.env", value, None, Subject(label=name), span, status=doc.status)


READERS: list[Reader] = [UcxReader()]
