"""Host names, user names and addresses of a recording, replaced by others: one consistent mapping.

Secrets are `diagnose.mask`'s. This module is for what is no secret and still nobody else's business.
A name is replaced only as a whole word where the text shows that it is one (a host called ``vm`` must
not eat ``kvm``); an address keeps its class and two addresses of one subnet stay in one. Versions
(``9.1.0.70`` reads like an address) and PCI ids are never touched.
"""

from __future__ import annotations

import getpass
import ipaddress
import json
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_COMMON_USERS = frozenset(
    ["root", "user", "ubuntu", "admin", "nobody", "daemon", "ray", "vllm", "runner", "shared", "public"]
)
_COMMON_HOSTS = frozenset(["localhost", "host", "node", "server", "ip6-localhost", "local"])
# Where a word is a host: NCCL's `host:pid:tid [`, Open MPI and torchrun prefixes, user@host, `hostname: x`, a URL.
_HOST_AT = re.compile(
    r"(?m)(?:^(?P<nccl>[A-Za-z][\w.-]*)(?=:\d+:\d+ \[)"
    r"|\b[\w.-]+@(?P<at>[A-Za-z][\w.-]*[\w])\b(?=[:\s]|$)"
    r"|\b(?:[Hh]ost ?[Nn]ame|HOSTNAME|[Nn]ode ?[Nn]ame|nodename|SLURMD_NODENAME)\s*[:=]\s*\"?(?P<named>[A-Za-z][\w.-]*)"
    r"|://(?P<url>[A-Za-z][\w-]*(?:\.[\w-]+)*)(?=[:/\s\"']|$))"
)
_USER_AT = re.compile(
    r"(?m)(?:/(?:home|Users)/(?P<home>[A-Za-z_][\w.-]*)|\\Users\\(?P<win>[A-Za-z_][\w.-]*)"
    r"|\b(?:USER|LOGNAME|USERNAME)=(?P<env>[A-Za-z_][\w.-]*)"
    r"|^\s*\d+\s+(?P<top>[a-z_][\w.+-]*)(?=\s+(?:-?\d+|rt)\s+-?\d+\s)"
    r"|(?<![\w.-])(?P<ssh>[a-z_][\w.-]*)(?=@[A-Za-z0-9]))"
)
_V4 = re.compile(r"(?<![\w.+-])(\d{1,3}(?:\.\d{1,3}){3})(?![\w]|\.\d)")
_ADDRESS_BEFORE = re.compile(
    r"(?:inet|addr(?:ess)?|peer|host|server|\bip\b|\bto\b|\bfrom\b|via|bind|listen|connect\w*|src|dst|@|//|:|=|\[|<)\s*[\"'\[(<]?$",
    re.I,
)
_VERSION_BEFORE = re.compile(
    r"(?:version|ver|v|==|>=|<=|~=|release|cudnn|nccl|driver|[a-z]-)\s*[:=]?\s*$", re.IGNORECASE
)
_V6 = re.compile(r"(?<![\w:.])((?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4})(?![\w:.])")


def _own_hosts() -> list[str]:
    name = socket.gethostname()
    return sorted({name, name.partition(".")[0]} - {""}, key=len, reverse=True)


def _own_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user, or no `pwd` module to ask
        return ""


# Of a kernel's command line only what can slow a machine: the rest tells how it boots, from where and by whom.
_BOOT = re.compile(r"((?:[Cc]ommand line|/proc/cmdline):[ \t]*)([^\r\n]+)")
_BOOT_TOLD = re.compile(
    r"(?:(?:intel|amd|arm)_?)?(?:iommu|pstate|idle)\b|iommu\.|mitigations|isolcpus|nohz|rcu_nocbs|irqaffinity|(?:default_)?hugepage"
    r"|transparent_hugepage|numa|nosmt|pcie?\b|pcie?_|nvidia|nouveau|processor\.|cpuidle|cpufreq|idle=|swiotlb|psi=|tsc=|clocksource"
    r"|cgroup|systemd\.unified|maxcpus|mem=|nr_cpus|skew_tick|preempt"
)


def _told_of_boot(hit: re.Match[str]) -> str:
    words = hit[2].split()
    kept = [w for w in words if _BOOT_TOLD.match(w) and "/" not in w]
    return hit[1] + " ".join([*kept, *(["[masked]"] if len(kept) < len(words) else [])])


@dataclass
class Mapper:
    """One mapping of names and addresses, grown as text is masked.

    Attributes:
        names: what each host, user or subnet became.
        hosts, user: this machine's own names.
    """

    names: dict[str, str] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=_own_hosts)
    user: str = field(default_factory=_own_user)

    def mask(self, text: str) -> str:
        """`text` with names and addresses replaced."""
        text = _BOOT.sub(_told_of_boot, text)
        text = self._words(_HOST_AT, text, self._host)
        text = self._words(_USER_AT, text, self._user)
        for name in self.hosts:
            if _tells(name):
                text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", lambda hit: self._host(hit.group()), text)
        return _V6.sub(self._v6, _V4.sub(self._v4, text))

    def _words(self, pattern: re.Pattern[str], text: str, rename: Callable[[str], str]) -> str:
        def change(hit: re.Match[str]) -> str:
            name = hit.lastgroup
            if name is None:
                return hit.group()
            low, high = hit.span(name)
            whole = hit.group()
            return whole[: low - hit.start()] + rename(hit.group(name)) + whole[high - hit.start() :]

        return pattern.sub(change, text)

    def _new(self, kind: str, name: str, form: Callable[[int], str]) -> str:
        key = f"{kind}:{name}"
        if key not in self.names:
            self.names[key] = form(1 + sum(k.startswith(f"{kind}:") for k in self.names))
        return self.names[key]

    def _host(self, name: str) -> str:
        short = name.partition(".")[0]
        if name.lower() in _COMMON_HOSTS or re.fullmatch(r"host\d+|masked", name):
            return name
        return self._new("host", short, lambda n: f"host{n}")

    def _user(self, name: str) -> str:
        return (
            name
            if name in _COMMON_USERS or re.fullmatch(r"user\d+", name)
            else self._new("user", name, lambda n: f"user{n}")
        )

    def _v4(self, hit: re.Match[str]) -> str:
        try:
            address = ipaddress.IPv4Address(hit.group(1))
        except ValueError:
            return hit.group()
        before = hit.string[max(0, hit.start() - 24) : hit.start()]
        octets = hit.group(1).split(".")
        keep = (
            address.is_loopback
            or address.is_unspecified
            or address.is_multicast
            or octets[0] == "255"
            or octets[0] == "0"
        )
        if keep or _VERSION_BEFORE.search(before):
            return hit.group()
        private = address.is_private or (octets[0] == "100" and 64 <= int(octets[1]) < 128)
        after = hit.string[hit.end() : hit.end() + 1]
        if not private and not (_ADDRESS_BEFORE.search(before) or after in (":", "/", "<")):
            return hit.group()
        subnet, last = ".".join(octets[:3]), octets[3]
        if last not in ("0", "255"):
            last = self._new(f"in {subnet}", last, str)
        return f"{self._subnet(address, subnet)}.{last}"

    def _subnet(self, address: ipaddress.IPv4Address, subnet: str) -> str:
        first = subnet.partition(".")[0]
        if address.is_link_local:
            return self._new("link", subnet, lambda n: f"169.254.{n}")
        if first == "192" and address.is_private:
            return self._new("net192", subnet, lambda n: f"192.168.{n}")
        if first == "172" and subnet.startswith("172.17"):
            return subnet  # Docker's own default bridge: a class of its own, the same everywhere
        if first == "172" and address.is_private:
            return self._new("net172", subnet, lambda n: f"172.{20 + n // 256}.{n % 256}")
        if first == "10":
            return self._new("net10", subnet, lambda n: f"10.{n // 256}.{n % 256}")
        if first == "100" and not address.is_global:
            return self._new("net100", subnet, lambda n: f"100.{64 + n // 256}.{n % 256}")
        return self._new("public", subnet, lambda n: f"203.{n // 256}.{n % 256}")

    def _v6(self, hit: re.Match[str]) -> str:
        text = hit.group(1)
        if "::" not in text and text.count(":") != 7:
            return hit.group()
        try:
            address = ipaddress.IPv6Address(text)
        except ValueError:
            return hit.group()
        if address.is_loopback or address.is_unspecified or address.is_multicast or address.ipv4_mapped:
            return hit.group()
        if not int(address) & ((1 << 64) - 1):
            return hit.group()  # a prefix without an interface: an empty GID entry, a route
        words = address.exploded.split(":")
        prefix = (
            "fe80:0000:0000:0000"
            if address.is_link_local
            else "2001:0db8:0000:" + self._new("net6", ":".join(words[:4]), lambda n: f"{n:04x}")
        )
        made = ipaddress.IPv6Address(
            prefix + ":0000:0000:0000:" + self._new("id6", ":".join(words[4:]), lambda n: f"{n:04x}")
        )
        return made.exploded if text.count(":") == 7 and len(text) == 39 else made.compressed

    def save(self, path: Path) -> None:
        """Keep the mapping beside a run, readable by its owner alone."""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            json.dump(self.names, stream, indent=1)

    @classmethod
    def load(cls, path: Path) -> Mapper:
        """The mapping of an earlier run, or a new one."""
        try:
            names = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            names = {}
        return cls({str(k): str(v) for k, v in names.items()} if isinstance(names, dict) else {})


def _tells(name: str) -> bool:
    """Is this host name so much a name that it is one wherever it stands alone?"""
    return len(name) >= 6 and (any(c.isdigit() for c in name) or "-" in name)
