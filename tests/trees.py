"""Simulated sysfs trees from a few lines of YAML: what the kernel would show, file by file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diagnose.catalogue import plain_yaml

RATES = {400: "400 Gb/sec (4X NDR)", 200: "200 Gb/sec (4X HDR)", 100: "100 Gb/sec (4X EDR)", 25: "25 Gb/sec (1X EDR)"}
EMPTY = "0000:0000:0000:0000:0000:0000:0000:0000"
SPECS: dict[str, Any] = plain_yaml((Path(__file__).parent / "data" / "rdma" / "trees.yaml").read_text("utf-8"))


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", "utf-8")


def link(root: Path, name: str, real: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (root / real).mkdir(parents=True, exist_ok=True)
    path.symlink_to(Path(*[".."] * (len(path.relative_to(root).parts) - 1)) / real)


def merged(spec: dict[str, Any]) -> dict[str, Any]:
    """A tree's spec over the one it is `like`, device by device."""
    if "like" not in spec:
        return spec
    base = merged(SPECS[spec["like"]])
    out = {**base, **{k: v for k, v in spec.items() if k not in ("like", "nics")}}
    changed = spec.get("nics", {})
    out["nics"] = {
        name: {**nic, **changed.get("all", {}), **changed.get(name, {})} for name, nic in base["nics"].items()
    }
    return out


def _nic(root: Path, name: str, nic: dict[str, Any]) -> None:
    real = f"sys/devices/{nic['pci']}"
    write(root, f"{real}/numa_node", str(nic["numa"]))
    write(root, f"{real}/vendor", "0x15b3")
    write(root, f"{real}/class", "0x020000" if nic["layer"] == "Ethernet" else "0x020700")
    link(root, f"sys/class/infiniband/{name}/device", real)
    link(root, f"sys/bus/pci/devices/{nic['pci'].rpartition('/')[2]}", real)
    port = f"sys/class/infiniband/{name}/ports/1"
    up = nic.get("state", "ACTIVE") == "ACTIVE"
    write(root, f"{port}/state", "4: ACTIVE" if up else "1: DOWN")
    write(root, f"{port}/phys_state", "5: LinkUp" if up else nic.get("phys", "2: Polling"))
    write(root, f"{port}/rate", RATES[nic["rate"]] if up else "2.5 Gb/sec (1X SDR)")
    write(root, f"{port}/link_layer", nic["layer"])
    gids = nic["gids"] if up else []
    for index in range(8):
        gid, kind, netdev = gids[index] if index < len(gids) else (EMPTY, "", "")
        write(root, f"{port}/gids/{index}", gid)
        if kind:
            write(root, f"{port}/gid_attrs/types/{index}", kind)
        if netdev:
            write(root, f"{port}/gid_attrs/ndevs/{index}", netdev)
    if nic["layer"] == "Ethernet":
        write(root, f"sys/class/net/{nic['netdev']}/mtu", str(nic["mtu"]))
        write(root, f"sys/class/net/{nic['netdev']}/operstate", "up" if up else "down")


def _counters(root: Path, name: str, values: dict[str, int]) -> None:
    for counter, value in values.items():
        folder = "counters" if counter.startswith(("port_", "symbol", "link_")) else "hw_counters"
        write(root, f"sys/class/infiniband/{name}/ports/1/{folder}/{counter}", str(value))


def tree(root: Path, name: str) -> Path:
    """Write the named tree below `root`; returns the folder for --sysfs-root."""
    spec = merged(SPECS[name])
    snapshots = [root / "t0", root / "t1"] if spec.get("grown") else [root]
    for number, top in enumerate(snapshots):
        top.mkdir(parents=True, exist_ok=True)
        for nic_name, nic in spec["nics"].items():
            _nic(top, nic_name, nic)
            grown = spec.get("grown", {}).get(nic_name, {}) if number else {}
            values = {**SPECS["counters"], **nic.get("counters", {})}
            _counters(top, nic_name, {k: v + grown.get(k, 0) for k, v in values.items()})
        for gpu in spec["gpus"]:
            real = f"sys/devices/{gpu['pci']}"
            write(top, f"{real}/vendor", "0x10de")
            write(top, f"{real}/class", "0x030200")
            write(top, f"{real}/numa_node", str(gpu["numa"]))
            link(top, f"sys/bus/pci/devices/{gpu['pci'].rpartition('/')[2]}", real)
        for node in spec["dev"]:
            write(top, f"dev/{node}", "")
        (top / "dev").mkdir(exist_ok=True)
        write(top, "proc/modules", "\n".join(f"{m} 65536 0 - Live 0x0000000000000000" for m in spec["modules"]))
        write(top, "proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX {spec['driver']}")
        write(top, "proc/version", "Linux version 5.15.0-100-generic (builder) (gcc) #110-Ubuntu SMP")
        limit = spec["memlock"]
        head = f"{'Limit':<26}{'Soft Limit':<21}{'Hard Limit':<21}Units"
        write(top, "proc/self/limits", f"{head}\n{'Max locked memory':<26}{limit:<21}{limit:<21}bytes")
        write(top, "proc/self/status", f"Name:\tpython\nCapEff:\t{spec.get('caps', '0000000000000000')}")
        write(top, "proc/uptime", f"{1000 + 10 * number}.00 2000.00")
        if "environ" in spec:
            (top / "proc/self/environ").write_bytes("\0".join(spec["environ"]).encode() + b"\0")
    (root / ".simulated").touch()
    return root
