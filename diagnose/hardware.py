"""What the hardware can do at most, with a source for every figure.

Exact names only: a product that is not in the table has no number, and a name that several
products share has none either (`unknown` says why). All tensor peaks are dense, with FP32
accumulation; the doubled figures of data sheets count zeros that nobody multiplies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

Form = Literal["SXM", "PCIe", "superchip", "workstation", "GeForce"]
P2P = Literal["pcie", "nvlink", "none"]
Kind = Literal["HBM2", "HBM2e", "HBM3", "HBM3e", "GDDR6", "GDDR6X", "GDDR7", "LPDDR5X"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One product.

    Attributes:
        name: as nvidia-smi prints it, without a leading ``NVIDIA``.
        cc: compute capability. form: how it is built in.
        tensor16, fp8: dense TFLOP/s with FP32 accumulation; None where not known or not there.
        memory: GB/s. memory_gb: size in the product's own GB. kind: of the memory. power: default limit, W.
        nvlink, links: generation and links of the product (0: none); bridged cards need the bridge.
        pcie, width: generation and lanes. c2c: the CPU is behind NVLink-C2C, not behind PCIe.
        p2p: peer access that the stock driver allows: over PCIe too, over NVLink only, or none.
    """

    name: str
    cc: float
    form: Form
    tensor16: float | None
    fp8: float | None
    memory: float
    memory_gb: int
    power: int
    nvlink: int
    links: int
    pcie: int
    width: int
    p2p: P2P
    source: str
    kind: Kind
    c2c: bool = False
    dense: bool = True

    @property
    def bf16(self) -> float | None:
        """Dense BF16 peak: the FP16 figure from Ampere on, none before."""
        return self.tensor16 if self.cc >= 8.0 else None

    def source_of(self) -> str:
        """The source of the figures, and the second one that they were compared with."""
        second = SECOND.get(self.name)
        return f"{self.source}; compared with {second}" if second else self.source

    @property
    def switched(self) -> bool:
        """NVLink goes to a switch or a full mesh on the board, so that every peer has the same number of links."""
        return self.form in ("SXM", "superchip") and self.cc >= 8.0


# name | cc | form | tensor16 | fp8 | memory GB/s | GB | W | NVLink generation x links | PCIe generation x lanes
#  | peer access | source. Sparse data-sheet figures are halved.
_TABLE = """
Tesla P100-SXM2-16GB | 6 | SXM | 21.2 | - | 732 | 16 | 300 | 1x4 | 3x16 | pcie | P100 sheet
Tesla P100-PCIE-16GB | 6 | PCIe | 18.7 | - | 732 | 16 | 250 | 0x0 | 3x16 | pcie | P100 sheet
Tesla V100-SXM2-16GB | 7 | SXM | 125 | - | 900 | 16 | 300 | 2x6 | 3x16 | pcie | V100 sheet
Tesla V100-SXM2-32GB | 7 | SXM | 125 | - | 900 | 32 | 300 | 2x6 | 3x16 | pcie | V100 sheet
Tesla V100-PCIE-16GB | 7 | PCIe | 112 | - | 900 | 16 | 250 | 0x0 | 3x16 | pcie | V100 sheet
Tesla V100-PCIE-32GB | 7 | PCIe | 112 | - | 900 | 32 | 250 | 0x0 | 3x16 | pcie | V100 sheet
Tesla T4 | 7.5 | PCIe | 65 | - | 320 | 16 | 70 | 0x0 | 3x16 | pcie | T4 product brief PB-09256
GeForce RTX 2080 Ti | 7.5 | GeForce | 53.8 | - | 616 | 11 | 250 | 2x2 | 3x16 | nvlink | Turing whitepaper
TITAN RTX | 7.5 | workstation | 130.5 | - | 672 | 24 | 280 | 2x2 | 3x16 | nvlink | Turing whitepaper
Quadro RTX 8000 | 7.5 | workstation | 130.5 | - | 672 | 48 | 260 | 2x2 | 3x16 | pcie | Turing whitepaper
Quadro RTX 6000 | 7.5 | workstation | 130.5 | - | 672 | 24 | 260 | 2x2 | 3x16 | pcie | Turing whitepaper
A100-SXM4-40GB | 8 | SXM | 312 | - | 1555 | 40 | 400 | 3x12 | 4x16 | pcie | A100 sheet
A100-SXM4-80GB | 8 | SXM | 312 | - | 2039 | 80 | 400 | 3x12 | 4x16 | pcie | A100 sheet
A100-PCIE-40GB | 8 | PCIe | 312 | - | 1555 | 40 | 250 | 3x12 | 4x16 | pcie | A100 sheet
A100 80GB PCIe | 8 | PCIe | 312 | - | 1935 | 80 | 300 | 3x12 | 4x16 | pcie | A100 sheet
A800-SXM4-80GB | 8 | SXM | 312 | - | 2039 | 80 | 400 | 3x8 | 4x16 | pcie | A800 sheet
A800 80GB PCIe | 8 | PCIe | 312 | - | 1935 | 80 | 300 | 3x8 | 4x16 | pcie | A800 sheet
A30 | 8 | PCIe | 165 | - | 933 | 24 | 165 | 3x4 | 4x16 | pcie | A30 sheet
A40 | 8.6 | PCIe | 149.7 | - | 696 | 48 | 300 | 3x4 | 4x16 | pcie | A40 sheet
A10 | 8.6 | PCIe | 125 | - | 600 | 24 | 150 | 0x0 | 4x16 | pcie | A10 sheet
A10G | 8.6 | PCIe | 70 | - | 600 | 24 | 300 | 0x0 | 4x16 | pcie | A10G sheet (AWS G5)
A2 | 8.6 | PCIe | 18 | - | 200 | 16 | 60 | 0x0 | 4x8 | pcie | A2 sheet
RTX A6000 | 8.6 | workstation | 154.8 | - | 768 | 48 | 300 | 3x4 | 4x16 | pcie | GA102 whitepaper
RTX A5000 | 8.6 | workstation | 111.1 | - | 768 | 24 | 230 | 3x4 | 4x16 | pcie | GA102 whitepaper
RTX A4000 | 8.6 | workstation | 76.7 | - | 448 | 16 | 140 | 0x0 | 4x16 | pcie | RTX A4000 sheet
GeForce RTX 3090 | 8.6 | GeForce | 71 | - | 936 | 24 | 350 | 3x4 | 4x16 | nvlink | GA102 whitepaper
GeForce RTX 3090 Ti | 8.6 | GeForce | 80 | - | 1008 | 24 | 450 | 3x4 | 4x16 | nvlink | GA102 whitepaper
GeForce RTX 3080 | 8.6 | GeForce | 59.5 | - | 760 | 10 | 320 | 0x0 | 4x16 | none | GA102 whitepaper
GeForce RTX 3070 | 8.6 | GeForce | 40.6 | - | 448 | 8 | 220 | 0x0 | 4x16 | none | GA102 whitepaper
GeForce RTX 3060 | 8.6 | GeForce | - | - | 360 | 12 | 170 | 0x0 | 4x16 | none | product page
L4 | 8.9 | PCIe | 121 | 242.5 | 300 | 24 | 72 | 0x0 | 4x16 | pcie | L4 sheet
L40 | 8.9 | PCIe | 181.05 | 362 | 864 | 48 | 300 | 0x0 | 4x16 | pcie | L40 sheet
L40S | 8.9 | PCIe | 362.05 | 733 | 864 | 48 | 350 | 0x0 | 4x16 | pcie | L40S sheet
L20 | 8.9 | PCIe | 119.5 | 239 | 864 | 48 | 275 | 0x0 | 4x16 | pcie | L20 sheet
RTX 6000 Ada Generation | 8.9 | workstation | 364.2 | 728.5 | 960 | 48 | 300 | 0x0 | 4x16 | pcie | Ada whitepaper
RTX 5000 Ada Generation | 8.9 | workstation | - | - | 576 | 32 | 250 | 0x0 | 4x16 | pcie | product page
GeForce RTX 4090 | 8.9 | GeForce | 165.2 | 330.3 | 1008 | 24 | 450 | 0x0 | 4x16 | none | Ada whitepaper
GeForce RTX 4080 | 8.9 | GeForce | 97.5 | 194.9 | 716.8 | 16 | 320 | 0x0 | 4x16 | none | Ada whitepaper
GeForce RTX 4080 SUPER | 8.9 | GeForce | - | - | 736 | 16 | 320 | 0x0 | 4x16 | none | product page
GeForce RTX 4070 Ti | 8.9 | GeForce | - | - | 504 | 12 | 285 | 0x0 | 4x16 | none | product page
GeForce RTX 4060 Ti | 8.9 | GeForce | - | - | 288 | 16 | 165 | 0x0 | 4x8 | none | product page
H100 80GB HBM3 | 9 | SXM | 989.4 | 1978.9 | 3350 | 80 | 700 | 4x18 | 5x16 | pcie | H100 whitepaper
H100 PCIe | 9 | PCIe | 756 | 1513 | 2000 | 80 | 350 | 4x12 | 5x16 | pcie | H100 PCIe brief PB-11133
H100 NVL | 9 | PCIe | 835 | 1671 | 3938 | 94 | 400 | 4x12 | 5x16 | pcie | H100 sheet
H800 | 9 | SXM | 989.4 | 1978.9 | 3350 | 80 | 700 | 4x8 | 5x16 | pcie | H800 sheet
H800 PCIe | 9 | PCIe | 756 | 1513 | 2000 | 80 | 350 | 4x8 | 5x16 | pcie | H800 sheet
H20 | 9 | SXM | 148 | 296 | 4000 | 96 | 500 | 4x18 | 5x16 | pcie | H20 sheet
H20-3e | 9 | SXM | 148 | 296 | 4800 | 141 | 500 | 4x18 | 5x16 | pcie | H20 sheet
H200 | 9 | SXM | 989.4 | 1978.9 | 4800 | 141 | 700 | 4x18 | 5x16 | pcie | H200 sheet
H200 NVL | 9 | PCIe | 835 | 1671 | 4800 | 141 | 600 | 4x18 | 5x16 | pcie | H200 sheet
GH200 480GB | 9 | superchip | 989.4 | 1978.9 | 4000 | 96 | 900 | 4x18 | 5x16 | pcie | GH200 sheet
GH200 144G HBM3e | 9 | superchip | 989.4 | 1978.9 | 4900 | 144 | 900 | 4x18 | 5x16 | pcie | GH200 sheet
B200 | 10 | SXM | 2250 | 4500 | 8000 | 180 | 1000 | 5x18 | 5x16 | pcie | HGX B200 sheet
GB200 | 10 | superchip | 2500 | 5000 | 8000 | 186 | 1200 | 5x18 | 5x16 | pcie | GB200 NVL72 sheet
B300 SXM6 AC | 10.3 | SXM | 2250 | 4500 | 8000 | 270 | 1100 | 5x18 | 6x16 | pcie | HGX B300 sheet
GB300 | 10.3 | superchip | 2500 | 5000 | 8000 | 279 | 1400 | 5x18 | 6x16 | pcie | GB300 NVL72 sheet
GeForce RTX 5090 | 12 | GeForce | 209.5 | 419 | 1792 | 32 | 575 | 0x0 | 5x16 | none | RTX Blackwell whitepaper
GeForce RTX 5080 | 12 | GeForce | 112.6 | 225.1 | 960 | 16 | 360 | 0x0 | 5x16 | none | RTX Blackwell whitepaper
GeForce RTX 5070 Ti | 12 | GeForce | 87.9 | 175.8 | 896 | 16 | 300 | 0x0 | 5x16 | none | RTX Blackwell whitepaper
RTX PRO 6000 Blackwell Workstation Edition | 12 | workstation | 503.8 | - | 1792 | 96 | 600 | 0x0 | 5x16 | pcie | sheet
RTX PRO 6000 Blackwell Max-Q Workstation Edition | 12 | workstation | - | - | 1792 | 96 | 300 |0x0|5x16| pcie | sheet
RTX PRO 6000 Blackwell Server Edition | 12 | PCIe | - | - | 1597 | 96 | 600 | 0x0 | 5x16 | pcie | PRO sheet
GB10 | 12.1 | superchip | - | - | 273 | 128 | 140 | 0x0 | 5x4 | none | DGX Spark sheet
"""
_C2C = frozenset(["GH200 480GB", "GH200 144G HBM3e", "GB200", "GB300", "GB10"])


# What kind of memory, by the same sheets and whitepapers as the figures.
_KINDS: dict[Kind, str] = {
    "HBM2": "Tesla P100-SXM2-16GB, Tesla P100-PCIE-16GB, Tesla V100-SXM2-16GB, Tesla V100-SXM2-32GB, A30, "
    "Tesla V100-PCIE-16GB, Tesla V100-PCIE-32GB, A100-SXM4-40GB, A100-PCIE-40GB",
    "HBM2e": "A100-SXM4-80GB, A100 80GB PCIe, A800-SXM4-80GB, A800 80GB PCIe, H100 PCIe, H800 PCIe",
    "HBM3": "H100 80GB HBM3, H100 NVL, H800, H20, GH200 480GB",
    "HBM3e": "H20-3e, H200, H200 NVL, GH200 144G HBM3e, B200, GB200, B300 SXM6 AC, GB300",
    "GDDR6": "Tesla T4, GeForce RTX 2080 Ti, TITAN RTX, Quadro RTX 8000, Quadro RTX 6000, A40, A10, A10G, A2, "
    "RTX A6000, RTX A5000, RTX A4000, GeForce RTX 3070, GeForce RTX 3060, L4, L40, L40S, L20, RTX 6000 Ada Generation, "
    "RTX 5000 Ada Generation, GeForce RTX 4060 Ti",
    "GDDR6X": "GeForce RTX 3090, GeForce RTX 3090 Ti, GeForce RTX 3080, GeForce RTX 4090, GeForce RTX 4080, "
    "GeForce RTX 4080 SUPER, GeForce RTX 4070 Ti",
    "GDDR7": "GeForce RTX 5090, GeForce RTX 5080, GeForce RTX 5070 Ti, RTX PRO 6000 Blackwell Workstation Edition, "
    "RTX PRO 6000 Blackwell Max-Q Workstation Edition, RTX PRO 6000 Blackwell Server Edition",
    "LPDDR5X": "GB10",
}
_KIND = {name: kind for kind, names in _KINDS.items() for name in names.split(", ")}

# A second source that the figures were compared with, and where it differs. Products without an entry have one source.
_GARDEN = "glennklockwood.com/garden/processors"
SECOND: dict[str, str] = {
    "H100 80GB HBM3": f"{_GARDEN}/h100 (989.4, 1978.9, 3.35 TB/s)",
    "H100 PCIe": "torchtitan tools/utils.py (756) and a copy of PB-11133 (memory above 2,000 GB/s)",
    "H100 NVL": "torchtitan tools/utils.py (835); other lists print 3.9 and 4.8 TB/s",
    "H200": "torchtitan tools/utils.py (989) and press tables (4.8 TB/s)",
    "H800": "public data sheet tables (1979 with zeros, 3.35 TB/s)",
    "H20": "public tables of inference simulators (148, 296, 4.0 TB/s; one prints 4,022 GB/s)",
    "L20": "public tables of inference simulators (119.5, 239, 864 GB/s)",
    "A100-SXM4-80GB": "HPC make files (2,039 GB/s) and data sheet tables (312)",
    "A100-SXM4-40GB": "data sheet tables (312, 1.55 TB/s)",
    "A100 80GB PCIe": "data sheet tables (312, 1.94 TB/s)",
    "A10": "data sheet tables (125, 600 GB/s)",
    "A40": "data sheet tables (149.7, 696 GB/s)",
    "L4": "data sheet tables (121 and 242 dense)",
    "L40": "resellers' copies of the sheet (181.05, 362, 864 GB/s)",
    "L40S": "resellers' copies of the sheet (362.05, 733); half of its own 733 is 366.4",
    "Tesla V100-SXM2-16GB": "public tables (125, 900 GB/s)", "Tesla V100-SXM2-32GB": "public tables (125, 900 GB/s)",
    "Tesla V100-PCIE-16GB": "public tables (112, 900 GB/s)", "Tesla V100-PCIE-32GB": "public tables (112, 900 GB/s)",
    "Tesla P100-PCIE-16GB": "public tables (18.7, 732 GB/s)", "Tesla T4": "public tables (65)",
    "B200": f"{_GARDEN}/B200 (2250, 4500, 8 TB/s); the Blackwell brief is quoted with 7.7 TB/s for HGX",
    "GB200": f"{_GARDEN}/B200 (2500, 5000, 8 TB/s)",
    "B300 SXM6 AC": f"{_GARDEN}/B300 (2250, 4500, 8 TB/s)",
}  # fmt: skip


def _row(line: str) -> Gpu:
    cell = [c.strip() for c in line.split("|")]
    (nvlink, links), (pcie, width) = (map(int, c.split("x")) for c in cell[8:10])
    form, p2p = cast(Form, cell[2]), cast(P2P, cell[10])
    peak16, peak8 = (None if c == "-" else float(c) for c in cell[3:5])
    return Gpu(
        cell[0], float(cell[1]), form, peak16, peak8, float(cell[5]), int(cell[6]), int(cell[7]),
        nvlink, links, pcie, width, p2p, f"NVIDIA {cell[11]}",
        _KIND[cell[0]], cell[0] in _C2C,
    )  # fmt: skip


GPUS: dict[str, Gpu] = {g.name.lower(): g for g in map(_row, _TABLE.strip().splitlines())}

# Other spellings that mean exactly one product: older drivers, marketing, vendors' tables.
ALIASES: dict[str, str] = {
    "h100 sxm5": "h100 80gb hbm3", "h100 sxm": "h100 80gb hbm3", "h100-sxm5-80gb": "h100 80gb hbm3",
    "h100-sxm": "h100 80gb hbm3", "h100 sxm5 80gb": "h100 80gb hbm3", "h100 sxm 80gb": "h100 80gb hbm3",
    "h100-80gb-hbm3": "h100 80gb hbm3", "h100-pcie": "h100 pcie", "h100 pcie 80gb": "h100 pcie",
    "h100 80gb pcie": "h100 pcie", "h100-nvl": "h100 nvl", "h100 nvl 94gb": "h100 nvl",
    "h200 sxm": "h200", "h200 sxm5": "h200", "h200 141gb hbm3e": "h200", "h200-141gb": "h200",
    "a100 sxm4 80gb": "a100-sxm4-80gb", "a100 sxm4 40gb": "a100-sxm4-40gb", "a100-sxm-80gb": "a100-sxm4-80gb",
    "a100-sxm-40gb": "a100-sxm4-40gb", "a100 80gb sxm": "a100-sxm4-80gb", "a100 40gb sxm": "a100-sxm4-40gb",
    "a100 sxm 80gb": "a100-sxm4-80gb", "a100 sxm 40gb": "a100-sxm4-40gb", "a100-pcie-80gb": "a100 80gb pcie",
    "a100 pcie 80gb": "a100 80gb pcie", "a100 pcie 40gb": "a100-pcie-40gb", "a100 40gb pcie": "a100-pcie-40gb",
    "v100-sxm2-16gb": "tesla v100-sxm2-16gb", "v100-sxm2-32gb": "tesla v100-sxm2-32gb",
    "v100-pcie-16gb": "tesla v100-pcie-16gb", "v100-pcie-32gb": "tesla v100-pcie-32gb", "t4": "tesla t4",
    "rtx 4090": "geforce rtx 4090", "rtx4090": "geforce rtx 4090", "4090": "geforce rtx 4090",
    "rtx 4090 24gb": "geforce rtx 4090", "rtx 5090": "geforce rtx 5090", "rtx5090": "geforce rtx 5090",
    "5090": "geforce rtx 5090", "rtx 3090": "geforce rtx 3090", "rtx3090": "geforce rtx 3090",
    "3090": "geforce rtx 3090", "rtx 3090 ti": "geforce rtx 3090 ti", "rtx 2080 ti": "geforce rtx 2080 ti",
    "rtx 4080": "geforce rtx 4080", "rtx 5080": "geforce rtx 5080", "a6000": "rtx a6000",
    "rtx 6000 ada": "rtx 6000 ada generation", "b200 sxm": "b200", "hgx b200": "b200",
    "rtx pro 6000 blackwell workstation": "rtx pro 6000 blackwell workstation edition",
    "rtx pro 6000 blackwell server": "rtx pro 6000 blackwell server edition", "l40s 48gb": "l40s", "l4 24gb": "l4",
}  # fmt: skip

# Names that several products share: no figure for them.
AMBIGUOUS: dict[str, str] = {
    "h100": "SXM5, PCIe and NVL differ in every figure",
    "a100": "SXM4 and PCIe, 40 and 80 GB differ",
    "a800": "SXM4 and PCIe differ", "v100": "SXM2 and PCIe differ", "tesla v100": "SXM2 and PCIe differ",
    "rtx 6000": "Turing, Ada and Blackwell products share it", "rtx pro 6000": "three editions differ",
    "gh200": "two memory sizes differ", "b300": "several forms differ", "h100 80gb": "SXM5 and PCIe differ",
    "rtx pro 6000 blackwell": "three editions differ", "a100 80gb": "SXM4 and PCIe differ",
    "a100 40gb": "SXM4 and PCIe differ",
}  # fmt: skip

# What people mean by such a name when *they* type it: said aloud wherever it is used, never read into evidence.
MEANT: dict[str, str] = {
    "h100": "h100 80gb hbm3", "h100 80gb": "h100 80gb hbm3", "a100": "a100-sxm4-80gb", "a100 80gb": "a100-sxm4-80gb",
    "a100 40gb": "a100-sxm4-40gb", "a800": "a800-sxm4-80gb", "v100": "tesla v100-sxm2-32gb",
    "gh200": "gh200 144g hbm3e", "b300": "b300 sxm6 ac",
}  # fmt: skip


def _key(name: str) -> str:
    text = re.sub(r"\s+", " ", name.strip().lower())
    text = re.sub(r"^\d+ ?[x×] ?", "", text)
    return text.removeprefix("nvidia ").removeprefix("tesla nvidia ").strip()


def gpu(name: str) -> Gpu | None:
    """The product with exactly this name, or None."""
    key = _key(name)
    key = ALIASES.get(key, key)
    return GPUS.get(key) or GPUS.get(f"tesla {key}")


def meant(name: str) -> tuple[Gpu | None, str]:
    """The product that somebody means who types `name`, and what was assumed where the name is not exact."""
    exact = gpu(name)
    usual = MEANT.get(_key(name), "")
    if exact is not None or not usual:
        return exact, ""
    found = GPUS[usual]
    return found, f"'{name.strip()}' taken as {found.name}: {AMBIGUOUS[_key(name)]}"


def unknown(name: str) -> str:
    """Why `gpu` has no entry for a name."""
    key = _key(name)
    if key in AMBIGUOUS:
        return f"'{name.strip()}' does not name one product: {AMBIGUOUS[key]}"
    if " mig " in f" {key} ":
        return f"'{name.strip()}' is a MIG slice: its share of the chip decides"
    return f"no entry for '{name.strip()}' in the hardware table"


# NVLink, GB/s per link and direction as advertised, by generation.
NVLINK_RAW: dict[int, float] = {1: 20.0, 2: 25.0, 3: 25.0, 4: 25.0, 5: 50.0}
_NCCL_TOPO_H = "NCCL src/graph/topo.h"
# What NCCL counts on per link: protocol overhead is gone. By compute capability, newest first.
_NVLINK_COLLECTIVE: tuple[tuple[float, float, str], ...] = (
    (10.0, 40.1, "SM100_NVLINK_BW"),
    (9.0, 20.6, "SM90_NVLINK_BW"),
    (8.6, 12.0, "SM86_NVLINK_BW"),
    (8.0, 20.0, "SM80_NVLINK_BW"),
    (7.0, 20.0, "SM70_NVLINK_BW"),
    (6.0, 18.0, "SM60_NVLINK_BW"),
)
ARCHITECTURE = {6: "Pascal", 7: "Volta or Turing", 8: "Ampere", 9: "Hopper", 10: "Blackwell", 12: "Blackwell"}


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate, where it comes from, and what it is of."""

    what: str
    value: float
    unit: str
    source: str


def nvlink_rate(cc: float) -> Rate | None:
    """Collective bandwidth of one NVLink, one direction, as NCCL models it."""
    for least, value, symbol in _NVLINK_COLLECTIVE:
        if cc >= least and not (symbol == "SM86_NVLINK_BW" and cc != 8.6):
            what = f"NVLink per-link collective rate, {ARCHITECTURE[int(cc)]}"
            return Rate(what, value, "GB/s", f"{_NCCL_TOPO_H} {symbol}")
    return None


# NCCL's efficiency factor of NVLS, by compute capability (src/graph/tuning.cc nvlsEfficiency).
NVLS_EFFICIENCY: dict[int, float] = {9: 0.85, 10: 0.74}


def nvls_efficiency(cc: float) -> Rate | None:
    """Share of the NVLink rate that NVLink SHARP reaches."""
    value = NVLS_EFFICIENCY.get(int(cc))
    if value is None:
        return None
    what = f"NVLS efficiency, {ARCHITECTURE[int(cc)]}"
    return Rate(what, value, "fraction", "NCCL src/graph/tuning.cc nvlsEfficiency")


# GT/s and line coding give GB/s per lane and direction: 8b/10b, 128b/130b, and FLIT mode in generation 6.
_PCIE_LANE: dict[int, float] = {
    1: 2.5 * 8 / 10 / 8,
    2: 5.0 * 8 / 10 / 8,
    3: 8.0 * 128 / 130 / 8,
    4: 16.0 * 128 / 130 / 8,
    5: 32.0 * 128 / 130 / 8,
    6: 64.0 * 242 / 256 / 8,
}
PCIE_GTS: dict[float, int] = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}


def pcie_rate(generation: int, width: int) -> Rate | None:
    """Payload rate of a PCIe link, one direction, before packet headers."""
    lane = _PCIE_LANE.get(generation)
    if lane is None or width < 1:
        return None
    what = f"PCIe {generation}.0 x{width}, one direction"
    return Rate(what, round(lane * width, 2), "GB/s", "PCI Express base specification: transfer rate and line coding")


@dataclass(frozen=True, slots=True)
class Band:
    """What a healthy machine shows, as a share of the theory, and the floor that operators alarm at."""

    healthy: float
    floor: float
    source: str


# Shares of the theoretical figure, from published checks of running fleets.
BANDS: dict[str, Band] = {
    "nvlink ring": Band(0.80, 0.75, "nccl-tests #212; NCCL on 2x H100 NV18: 312-314 of 370.8 GB/s"),
    "nvls": Band(0.95, 0.88, "nccl-tests #212 (480), Azure NHC conf nd96isr_h100_v5 (460 at 16 GB)"),
    "pcie 3": Band(0.78, 0.63, "Azure NHC conf: 10 GB/s of 15.75"),
    "pcie 4": Band(0.80, 0.66, "nvbandwidth README: 26.0; Azure NHC conf: 21 of 31.5 GB/s"),
    "pcie 5": Band(0.84, 0.76, "Azure NHC conf nd96isr_h100_v5: 48 of 63 GB/s"),
    "infiniband": Band(0.97, 0.95, "Azure NHC check_ib_bw_non_gdr: 95, 190, 390 Gb/s"),
    "gpudirect rdma": Band(0.93, 0.90, "Azure NHC check_ib_bw_gdr: 180, 380 Gb/s"),
    "memory": Band(0.85, 0.75, "babelstream-like copies reach 85-93 % of the data sheet"),
    "gemm": Band(0.70, 0.55, "large BF16 GEMM reach 70-80 % of the dense peak"),
}


def link_class(busbw: float) -> str:
    """Which interconnects an all-reduce bandwidth alone already rules out."""
    if busbw > 500:
        return "more than eighteen NVLink 4 links carry in a ring: NVLink 5, or NVLink SHARP, is at work"
    if busbw > 250:
        return "more than twelve NVLink 3 links carry: NVLink 4 or later is at work"
    if busbw > 64:
        return "more than a PCIe 5.0 x16 slot carries: NVLink, or several network adapters, is at work"
    if busbw > 32:
        return "more than a PCIe 4.0 x16 slot carries"
    return ""
