"""RDMA tools: ports, devices, GID tables, counters, kernel modules, ethtool, RoCE settings and perftest."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import fact

NIC = (
    r"(?:mlx[45]_(?:bond_)?\d+|mlx5_ib\d+|bnxt_re\w*|irdma\w*|efa_\d+|rdmap\w+|rocep\w+|ibp\w+|hfi1_\d+"
    r"|qedr\d+|rxe\w*|siw\w*|cxi\d+|erdma_\d+|hns_\d+|roce\w*\d|ionic_\d+)"
)
_STATE = {
    "active": "ACTIVE",
    "down": "DOWN",
    "init": "INIT",
    "initializing": "INIT",
    "armed": "ARMED",
    "polling": "POLLING",
}
# Data rates of one lane, Gb/s, by the name that ibstatus and ibv_devinfo print.
_HEAD = regex(rf"(?:^\s*hca_id:\s*|^\s*CA '|Infiniband device '|^\s*link )({NIC})(?:/(\d+))?")
_PORT = regex(r"^\s*(?:Port\s+(\d+):|port:\s+(\d+))|'\s+port\s+(\d+)\s+status")
_FIELD = regex(
    r"^\s*(state|State|phys_state|phys state|Physical state|rate|Rate|link_layer|Link layer|active_mtu|max_mtu"
    r"|active_speed|active_width):\s+(.+?)\s*$"
)
_LINK_LINE = regex(r"\bstate\s+(\w+)\s+physical_state\s+(\w+)(?:\s+netdev\s+(\S+))?")
_BARE_RATE = regex(r"^(?:\s+Rate:\s+(?=\d{2,3}\s*$)|Rate: (?=(?:40|56|100|200|400|800)\s*$))(\d+)")
_SHORT_RATE = regex(rf"\b({NIC})\b\W{{1,16}}(?:port \d\W+)?Rate:\s*(\d+)\b", re.IGNORECASE)
_GID = regex(
    rf"^\s*({NIC})\s+(\d+)\s+(\d+)\s+((?:[0-9a-f]{{4}}:){{7}}[0-9a-f]{{4}})\s+(\d+\.\d+\.\d+\.\d+)?\s*(v1"
    rf"|v2)?\s*(\S+)?"
)
_DEVICE = regex(rf"^\s*({NIC})\s+(?:[→-]\s*)?([0-9a-f]{{16}})\s*$")
_COUNTER_NAMES = (
    "symbol_error", "link_error_recovery", "link_downed", "port_rcv_errors", "port_rcv_remote_physical_errors",
    "port_rcv_switch_relay_errors", "port_xmit_discards", "port_xmit_wait", "local_link_integrity_errors",
    "excessive_buffer_overrun_errors", "VL15_dropped", "out_of_sequence", "packet_seq_err", "local_ack_timeout_err",
    "rnr_nak_retry_err", "implied_nak_seq_err", "duplicate_request", "out_of_buffer", "np_cnp_sent", "rp_cnp_handled",
    "rp_cnp_ignored", "np_ecn_marked_roce_packets", "roce_adp_retrans", "roce_adp_retrans_to", "roce_slow_restart",
    "req_transport_retries_exceeded", "req_cqe_error", "resp_cqe_error", "resp_remote_access_errors",
    "rx_icrc_encapsulated", "rx_discards_phy", "tx_discards_phy", "rx_out_of_buffer", "rx_symbol_err_phy",
    "rx_crc_errors_phy", "rx_pcs_symbol_err_phy", "rx_corrected_bits_phy", "link_down_events_phy", "tx_pause_ctrl_phy",
    "rx_pause_ctrl_phy", "tx_global_pause", "rx_global_pause", "outbound_pci_stalled_wr",
    "outbound_pci_buffer_overflow",
    "rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "tx_timeout", "rx_missed_errors",
)  # fmt: skip
_PERFQUERY = {
    "SymbolErrorCounter": "symbol_error", "LinkErrorRecoveryCounter": "link_error_recovery",
    "LinkDownedCounter": "link_downed", "PortRcvErrors": "port_rcv_errors", "PortXmitDiscards": "port_xmit_discards",
    "PortXmitWait": "port_xmit_wait", "LocalLinkIntegrityErrors": "local_link_integrity_errors",
    "ExcessiveBufferOverrunErrors": "excessive_buffer_overrun_errors",
    "PortRcvRemotePhysicalErrors": "port_rcv_remote_physical_errors",
}  # fmt: skip
_PRIO = r"(?:rx|tx)_prio\d_(?:pause|pause_duration|discards|buf_discard|cong_discard)"
_COUNTER = regex(
    rf"\b({'|'.join(sorted(_COUNTER_NAMES, key=len, reverse=True))}|{_PRIO})\b\s*(?:[:=]|\s|\.\.)\s*\.*\s*(\d+)\b(?! ?(?:min|sec|hours?|s|h)\b)"  # noqa: E501
)
_QUERY = regex(rf"^\s*({'|'.join(_PERFQUERY)})(?::\.*|\s)\s*(\d+)\b")
_SENT = regex(r"^\s*(?:PortXmitData(?::\.*|\s)|port_xmit_data\s*(?:[:=]|\s))\s*(\d+)\s*$")
_ABSENT = regex(
    r"Failed to get IB devices list|No IB devices found|Did not detect devices"
    r"|Unable to find the Infiniband/RoCE device"
    r"|Fatal error:\s+No devices|Failed to open NETLINK_RDMA socket|ls: cannot access '?/sys/class/infiniband"
)
_MODULES = (
    "nvidia_peermem",
    "nv_peer_mem",
    "gdrdrv",
    "ib_core",
    "mlx5_ib",
    "ib_uverbs",
    "nvidia_fs",
    "nvidia",
    "rdma_ucm",
    "efa",
    "knem",
    "xpmem",
)
_LSMOD = regex(rf"^({'|'.join(_MODULES)})\s+\d+\s+-?\d+(?:\s|$)")
_ASKED = regex(r"lsmod\b.*grep\s+(?:-\w+\s+)*(.+)$")
_ETH_SPEED = regex(r"^\s*Speed:\s+(\d+)\s*Mb/s")
_ETH_HEAD = regex(r"^\s*Settings for (\S+?):")
_ETH_LINK = regex(r"^\s*Link detected:\s+(\w+)")
_PERF_HEAD = regex(r"#bytes\s+#iterations\s+(BW peak|t_min|t_avg)")
_PERF_PARAM = regex(
    r"^\s*(Link type|Mtu|GID index|Number of qps|Connection type|Device|Transport type|CQ Moderation"
    r"|Using DDP|PCIe relax order|ibv_wr\* API|TX depth)\s*:\s+(\S+)"
)
_PERF_TEST = regex(r"RDMA_(Write|Read)\s+(?:Bidirectional\s+)?(BW|Latency)|\bSend\s+(?:Bidirectional\s+)?(BW|Latency)")
_JSON = regex(r'"(BW_average|MsgSize|MsgRate|t_typical|t_avg)"\s*:\s*(\d+(?:\.\d+)?)(?!\.?\d)')


def _mtu(text: str) -> float | None:
    hit = re.match(r"(\d{3,5})\b", text)
    return float(hit.group(1)) if hit else None


class PortReader:
    """State, rate, MTU, GIDs and devices of RDMA ports as the usual tools print them."""

    name = "rdma_port"
    needles = (b"hca_id", b"CA '", b"Infiniband device", b"physical_state", b"Rate:", b"node GUID", b"IB devices",
               b"NETLINK_RDMA", b"Infiniband/RoCE", b"No devices", b"sys/class/infiniband",
               b"fe80:", b":ffff:")  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        nic, port = "", ""
        patterns = (_HEAD, _PORT, _LINK_LINE, _SHORT_RATE, _BARE_RATE, _FIELD, _GID, _DEVICE, _ABSENT)
        for line in possible(doc.lines(), *patterns):
            text = line.text
            head = _HEAD.search(text)
            if head:
                nic, port = head.group(1), head.group(2) or ""
            where = _PORT.search(text)
            if where:
                port = next(g for g in where.groups() if g)
            link = _LINK_LINE.search(text)
            if link and nic:
                yield from self._link(doc, line, nic, port, link)
                continue
            named = list(_SHORT_RATE.finditer(text))
            for short in named:
                yield self._fact(doc, line, "rdma.port.rate", float(short.group(2)), "Gb/s", short.group(1), "")
            if named:
                continue
            bare = None if nic else _BARE_RATE.match(text)
            if bare:
                yield fact(doc, line, "rdma.port.rate", float(bare.group(1)), "Gb/s")
            if ":" in text and nic:
                yield from self._field(doc, line, nic, port)
            yield from self._tables(doc, line)
            if _ABSENT.search(text):
                yield fact(doc, line, "rdma.none", text.strip()[:120])

    @staticmethod
    def _fact(
        doc: Document, line: Line, signal: str, value: float | str, unit: str | None, nic: str, port: str
    ) -> Fact:
        subject = Subject(nic=nic, label=f"port {port}" if port else None)
        return Fact(signal, value, unit, subject, (doc.span(line),), status=doc.status)

    def _link(self, doc: Document, line: Line, nic: str, port: str, hit: re.Match[str]) -> Iterator[Fact]:
        yield self._fact(doc, line, "rdma.port.state", hit.group(1).upper(), None, nic, port)
        yield self._fact(doc, line, "rdma.port.phys", hit.group(2).upper(), None, nic, port)
        if hit.group(3):
            yield self._fact(doc, line, "rdma.port.netdev", hit.group(3), None, nic, port)

    def _field(self, doc: Document, line: Line, nic: str, port: str) -> Iterator[Fact]:
        hit = _FIELD.match(line.text)
        if hit is None:
            return
        key, value = hit.group(1).lower().replace(" ", "_"), hit.group(2)
        if key == "state":
            word = re.sub(r"^\d+:\s*|PORT_|\s*\(\d+\)", "", value).strip()
            yield self._fact(doc, line, "rdma.port.state", _STATE.get(word.lower(), word.upper()), None, nic, port)
        elif key in ("physical_state", "phys_state"):
            word = re.sub(r"^\d+:\s*|\s*\(\d+\)", "", value).strip()
            yield self._fact(doc, line, "rdma.port.phys", word.upper(), None, nic, port)
        elif key == "rate" and (number := re.match(r"(\d+(?:\.\d+)?)", value)):
            yield self._fact(doc, line, "rdma.port.rate", float(number.group(1)), "Gb/s", nic, port)
        elif key == "link_layer":
            yield self._fact(doc, line, "rdma.port.layer", value, None, nic, port)
        elif key in ("active_mtu", "max_mtu") and (size := _mtu(value)):
            signal = "rdma.port.mtu" if key == "active_mtu" else "rdma.port.mtu_max"
            yield self._fact(doc, line, signal, size, "B", nic, port)

    def _tables(self, doc: Document, line: Line) -> Iterator[Fact]:
        text = line.text
        gid = _GID.match(text)
        if gid:
            value = " ".join(filter(None, [gid.group(6), gid.group(5) or gid.group(4), gid.group(7)]))
            subject = Subject(nic=gid.group(1), label=f"port {gid.group(2)} index {gid.group(3)}")
            yield Fact("rdma.gid", value, None, subject, (doc.span(line),), status=doc.status)
            return
        device = _DEVICE.match(text)
        if device:
            yield fact(doc, line, "rdma.device", device.group(1), nic=device.group(1))


class CounterReader:
    """Counters of ports that tell errors or congestion, from sysfs, ethtool -S or perfquery; zeros are left out."""

    name = "rdma_counters"
    needles = (*(n.encode() for n in (*_COUNTER_NAMES, *_PERFQUERY)), b"_prio")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document; several readings of one counter stay apart, so that growth can be seen."""
        nic = ""
        kept = 0
        for line in doc.lines():
            text = line.text
            named = re.search(rf"\b({NIC})\b", text)
            if named:
                nic = named.group(1)
            found = [(m.group(1), m.group(2)) for m in _COUNTER.finditer(text)]
            query = _QUERY.match(text)
            if query:
                found.append((_PERFQUERY[query.group(1)], query.group(2)))
            sent = _SENT.match(text)
            if sent is not None and kept < 200:
                spans = (doc.span(line),)
                subject = Subject(nic=nic or None)
                yield Fact("rdma.port.sent", float(sent[1]), "count", subject, spans, status=doc.status)
            for name, value in found:
                if int(value) == 0 or kept >= 200:
                    continue
                kept += 1
                subject = Subject(nic=nic or None, label=name)
                yield Fact("rdma.counter", float(value), "count", subject, (doc.span(line, name),), status=doc.status)


class HostSideReader:
    """`lsmod`, `ethtool`, `mlnx_qos` and `cma_roce_tos`."""

    name = "rdma_host"
    needles = (b"lsmod", b"nvidia_uvm", b"Used by", b"Settings for", b"Link detected", b"PFC", b"cma_roce_tos",
               b"traffic_class", b"nvidia_peermem", b"gdrdrv", b"Priority trust state")  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        nic = ""
        listed: dict[str, Line] = {}
        asked: list[tuple[str, Line]] = []
        whole: Line | None = None
        for line in doc.lines():
            text = line.text
            if re.match(r"^Module\s+Size\s+Used by", text):
                whole = line
            ask = _ASKED.search(text)
            if ask:
                asked.append((ask.group(1), line))
            module = _LSMOD.match(text.strip())
            if module:
                listed.setdefault(module.group(1), line)
            head = _ETH_HEAD.match(text)
            if head:
                nic = head.group(1)
            speed = _ETH_SPEED.match(text)
            got = canonical(float(speed.group(1)), "Mb/s") if speed else None
            if got:
                yield fact(doc, line, "net.speed", got[0], got[1], nic=nic or None)
            link = _ETH_LINK.match(text)
            if link:
                yield fact(doc, line, "net.link", link.group(1), nic=nic or None)
            yield from self._roce(doc, line)
        yield from self._modules(doc, listed, asked, whole)

    @staticmethod
    def _roce(doc: Document, line: Line) -> Iterator[Fact]:
        text = line.text.strip()
        hit = re.match(r"enabled((?:\s+[01]){8})\s*$", text)
        if hit:
            yield fact(doc, line, "rdma.pfc", " ".join(hit.group(1).split()), label="enabled")
        hit = re.match(r"Priority trust state:\s*(\w+)", text)
        if hit:
            yield fact(doc, line, "rdma.pfc", hit.group(1), label="trust")
        hit = re.search(r"(?:cma_roce_tos|traffic_class)\D{0,60}?(\d+)\s*$", text)
        if hit:
            yield fact(doc, line, "rdma.tos", hit.group(1), label="traffic class")

    @staticmethod
    def _modules(
        doc: Document, listed: dict[str, Line], asked: list[tuple[str, Line]], whole: Line | None
    ) -> Iterator[Fact]:
        for name, line in listed.items():
            yield fact(doc, line, "rdma.module", name, label=name)
        peer = {"nvidia_peermem", "nv_peer_mem"} & set(listed)
        # a whole list with the GPU driver, or a grep that would have shown the module
        if whole and "nvidia" in listed and len(listed) > 1 and not peer:
            yield fact(doc, whole, "rdma.module.missing", "nvidia_peermem", label="nvidia_peermem")
        for pattern, line in asked:
            words = re.sub(r"[\"'()]|\\|\|", " ", pattern)
            # `grep nvidia` shows nvidia_peermem too, were it loaded
            if not peer and re.search(r"\b(nvidia|nvidia_peermem|nv_peer_mem|peermem|peer|nv_peer)\b", words):
                spans = (doc.span(line), *(doc.span(found) for found in list(listed.values())[:4]))
                label = "nvidia_peermem asked" if "peer" in words else "nvidia_peermem"
                yield Fact(
                    "rdma.module.missing", "nvidia_peermem", None, Subject(label=label), spans, status=doc.status
                )
            if "gdrdrv" not in listed and re.search(r"\b(gdrdrv|gdr)\b", words):
                yield fact(doc, line, "rdma.module.missing", "gdrdrv", label="gdrdrv")


class PerftestReader:
    """ib_write_bw and its kin: tables in MiB/s, MB/s or Gb/s, latency tables, and their JSON."""

    name = "perftest"
    needles = (b"#bytes", b"BW_average", b"BW average", b"t_typical")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document; only the largest few sizes of a sweep are kept."""
        test, mode, unit = "perftest", "", "MiB/s"
        rows: list[Fact] = []
        size = ""
        pending: tuple[float, Line] | None = None
        for line in doc.lines():
            text = line.text
            named = _PERF_TEST.search(text)
            if named:
                test = " ".join(g for g in named.groups() if g) if named.group(1) else "Send " + (named.group(3) or "")
            param = _PERF_PARAM.match(text)
            if param:
                yield fact(doc, line, "rdma.perftest.param", param.group(2), label=param.group(1))
                continue
            head = _PERF_HEAD.search(text)
            if head:
                mode = "bw" if head.group(1) == "BW peak" else "latency" if head.group(1) == "t_min" else "duration"
                unit = "Gb/s" if "Gb/sec" in text else "MiB/s"
                continue
            row = re.match(r"^\s*(\d+)\s+(\d+)((?:\s+\d+(?:\.\d+)?){2,9})\s*$", text)
            if row and mode:
                numbers = [float(n) for n in row.group(3).split()]
                rows.append(self._row(doc, line, f"{test}|{row.group(1)}", mode, unit, numbers))
            for key, value in _JSON.findall(text):
                if key == "MsgSize":
                    size, pending = value, None
                elif key == "BW_average":
                    pending = (float(value), line)
                elif key != "MsgRate":
                    subject = Subject(label=f"{test}|{size}|{key}")
                    rows.append(
                        Fact("rdma.perftest.latency", float(value), "us", subject, (doc.span(line),), status=doc.status)
                    )
                elif pending and size:
                    rows.append(self._json(doc, pending, f"{test}|{size}", float(size) * float(value) * 1e6))
                    pending = None
        yield from rows[-6:]

    @staticmethod
    def _row(doc: Document, line: Line, label: str, mode: str, unit: str, numbers: list[float]) -> Fact:
        span = (doc.span(line),)
        if mode == "bw":
            value, canon = canonical(numbers[1], unit) or (numbers[1], "GB/s")
            if canon == "Gb/s":
                value = value / 8
            return Fact("rdma.perftest.bw", value, "GB/s", Subject(label=label), span, status=doc.status)
        index = 2 if mode == "latency" and len(numbers) > 2 else 0
        return Fact("rdma.perftest.latency", numbers[index], "us", Subject(label=label), span, status=doc.status)

    @staticmethod
    def _json(doc: Document, got: tuple[float, Line], label: str, rate: float) -> Fact:
        """The JSON does not name its unit; the message rate tells MiB/s from Gb/s."""
        value, line = got
        spelling = "Gb/s" if abs(value * 125e6 - rate) < abs(value * 2**20 - rate) else "MiB/s"
        amount, unit = canonical(value, spelling) or (value, "GB/s")
        if unit == "Gb/s":
            amount /= 8
        return fact(doc, line, "rdma.perftest.bw", amount, "GB/s", label=label)


READERS: list[Reader] = [PortReader(), CounterReader(), HostSideReader(), PerftestReader()]
