"""Environment variables and versions, wherever they stand: env dumps, shells, manifests, collect_env, pip."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact

_PREFIXES = [
    "NCCL",
    "RCCL",
    "UCX",
    "UCC",
    "UCXPY",
    "HCOLL",
    "CUDA",
    "CUBLAS",
    "OMP",
    "KMP",
    "GOMP",
    "MKL",
    "OPENBLAS",
    "VLLM",
    "SGLANG",
    "SGL",
    "TORCH",
    "TORCHDYNAMO",
    "TORCHINDUCTOR",
    "TORCHELASTIC",
    "PYTORCH",
    "FI",
    "NIXL",
    "MELLANOX",
    "NVIDIA",
    "HF",
    "TRANSFORMERS",
    "TOKENIZERS",
    "NVSHMEM",
    "HSA",
    "HIP",
    "ROCR",
    "GPU",
    "AMD",
    "OMPI",
    "PMIX",
    "SLURM",
    "RAY",
    "LMCACHE",
    "MC",
    "MOONCAKE",
    "DYN",
    "TRTLLM",
    "TLLM",
    "TRITON",
    "XLA",
    "JAX",
    "TF",
    "MALLOC",
    "GLOO",
    "DEEPSPEED",
    "DS",
    "NVTE",
    "FLASHINFER",
    "FLASH",
    "MPICH",
    "I_MPI",
    "IBV",
    "MLX5",
    "RDMAV",
    "DASK",
    "KVBM",
    "GDR",
    "NUMEXPR",
    "ACCELERATE",
    "CUFILE",
    "NVLS",
    "DEEPEP",
]
_EXACT = [
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "BLIS_NUM_THREADS",
]
_VAR = rf"(?:(?:{'|'.join(_PREFIXES)})_[A-Z0-9_]+|{'|'.join(_EXACT)})"
_VALUE = r"(\"[^\"]*\"|'[^']*'|[^\s\"'`;|&,)\]]*(?:,[^\s\"'`;|&)\]=]+)*(?=[\s;|&,)\]\"'`]|$))"
_ASSIGN = regex(rf"(?<![\w$/-])({_VAR})=(?![=\s]*$){_VALUE}")
_EMPTY = regex(rf"(?:^|export\s+|-e\s+|set\s+)({_VAR})=(?:\"\"|''|)\s*(?:$|[;&\\])")
_MAPPED = regex(rf"^\s*(?:-\s+)?[\"']?({_VAR})[\"']?\s*:\s*[\"']?([^\"'#,]*?)[\"']?\s*,?\s*(?:#.*)?$")
_NAMED = regex(rf"name[\"']?\s*:\s*[\"']?({_VAR})[\"']?\s*(?:,\s*[\"']?value[\"']?\s*:\s*[\"']?([^\"'}}]*))?")
_VALUE_LINE = regex(r"^\s*[\"']?value[\"']?\s*:\s*[\"']?([^\"'#]*?)[\"']?\s*,?\s*$")
_PYTHON = regex(rf"environ(?:\.setdefault\(|\[)\s*[\"']({_VAR})[\"']\s*(?:\]\s*=|,)\s*(?:str\()?[\"']?([^\"')]*)")
_DOCKERFILE = regex(rf"^\s*(?:ENV|setenv|set)\s+({_VAR})\s+(\S+)\s*$")
_SET_BY = regex(rf"({_VAR}) set (?:by environment )?to ([^\s].*?)\.?\s*$")
_POWERSHELL = regex(rf"\$env:({_VAR})\s*=\s*[\"']?([^\"'\s]+)", re.I)
_ADVICE = regex(
    r"(?:try(?:ing)?|consider|please|recommend\w*|suggest\w*|should|can|may|setting|by|pass(?:ing)?|e\.g\.,?|use|to "
    r"set|re-?run with|set)"
    r"\s+(?:setting\s+|set\s+|using\s+|export\s+)?[`'\"(]*$",
    re.I,
)
_UNSET = {"unset", "(unset)", "not set", "<unset>", "none set", "(not set)", "<not set>"}
_SECRET_NAME = regex(r"KEY|TOKEN(?!IZERS)|SECRET|PASSW|CREDENTIAL|AUTH", re.I)
_SECRET_VALUE = regex(r"^(?:hf_|sk-|ghp_|glpat-|xox|AKIA|eyJ)|^[A-Za-z0-9+/_-]{40,}={0,2}$")
_LONG = {"NVIDIA_REQUIRE_CUDA"}  # a requirement list of the image, not a setting


class EnvReader:
    """Variables of the known stacks, in any of the ways people show them being set."""

    name = "env"
    needles: tuple[bytes, ...] = tuple(f"{p}_".encode() for p in _PREFIXES) + tuple(e.encode() for e in _EXACT)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`env.var` labelled with its name, once a value; no secrets, and nothing that a shell would expand."""
        named: tuple[str, Line] | None = None
        seen: dict[tuple[str, str], int] = {}
        for line, may in told(doc.novel(), also=rf"{_VAR}|(?i:\$env:)"):
            text = line.text
            if not may and named is None:
                continue
            if named is not None:
                if (hit := _VALUE_LINE.match(text)) is not None:
                    yield from self._emit(doc, line, named[0], hit.group(1), seen, named[1])
                named = None
            if "_" not in text and "RANK" not in text:
                continue
            for name, value in self._found(text):
                yield from self._emit(doc, line, name, value, seen)
            if (hit := _NAMED.search(text)) is not None:
                if hit.group(2) is not None:
                    yield from self._emit(doc, line, hit.group(1), hit.group(2), seen)
                else:
                    named = (hit.group(1), line)

    def _found(self, text: str) -> Iterator[tuple[str, str]]:
        comment = re.match(r"\s*(?:#\s*export|#export|//)", text) is not None
        if comment:
            return
        for hit in _ASSIGN.finditer(text):
            if _ADVICE.search(text[: hit.start()]) is None:
                yield hit.group(1), hit.group(2)
        for pattern in (_MAPPED, _DOCKERFILE, _PYTHON, _SET_BY, _POWERSHELL):
            if (one := pattern.search(text)) is not None and _ADVICE.search(text[: one.start()]) is None:
                yield one.group(1), one.group(2)
        if (one := _EMPTY.search(text)) is not None:
            yield one.group(1), ""

    def _emit(
        self,
        doc: Document,
        line: Line,
        name: str,
        value: str,
        seen: dict[tuple[str, str], int],
        head: Line | None = None,
    ) -> Iterator[Fact]:
        value = value.strip().strip("\"'").rstrip("\\").strip()
        if name in _LONG or _SECRET_NAME.search(name) or _SECRET_VALUE.match(value) or value.lower() in _UNSET:
            return
        if value.startswith(("$", "{")) or len(value) > 300:
            return
        key = (name, value)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] == 1:
            made = fact(doc, line, "env.var", value, label=name, around=name)
            yield made if head is None else replace(made, spans=(*made.spans, doc.span(head, name)))


# component -> (pattern, group); looked for in every line that holds the needle
_LINES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("torch", regex(r"^\W*PyTorch version\s*:\s*(\d\S*)", re.I)),
    ("torch", regex(r"\btorch\.__version__\W+(\d[\w.+]+)")),
    ("torch-cuda", regex(r"CUDA used to build PyTorch\s*:\s*(\d\S*)")),
    ("torch-cuda", regex(r"\btorch\.version\.cuda\W+(\d[\d.]+)")),
    ("cuda", regex(r"CUDA runtime version\s*:\s*(?:Could not collect|(\d\S*))")),
    ("driver", regex(r"(?:Nvidia driver version|NVIDIA driver)\s*[:=]?\s*(\d{3}\.\d[\d.]*)", re.I)),
    ("driver", regex(r"(?:Kernel Module(?: for \S+)?|NVRM version:.*?)\s+(\d{3}\.\d+(?:\.\d+)?)\b")),
    ("cudnn", regex(r"cuDNN version\s*:\s*(\d[\d.]*)", re.I)),
    ("glibc", regex(r"Libc version\s*:\s*glibc-([\d.]+)|^ldd \(.*\) ([\d.]+)$|GNU C Library.*version ([\d.]+)")),
    ("python", regex(r"^\W*Python version\s*:\s*([\d.]+)", re.I)),
    ("vllm", regex(r"^\W*vLLM Version\s*:\s*v?(\d[\w.+-]*)", re.I)),
    ("rocm", regex(r"ROCM used to build PyTorch\s*:\s*(\d[\w.-]*)")),
    ("nvcc", regex(r"Cuda compilation tools, release ([\d.]+)")),
    ("transformers", regex(r"`?transformers`? version\s*:\s*(\d[\w.]*)", re.I)),
)  # fmt: skip
# pip name -> component
_PIP = {
    "torch": "torch", "vllm": "vllm", "sglang": "sglang", "transformers": "transformers", "triton": "triton",
    "numpy": "numpy",
    "nvidia-nccl-cu11": "nccl", "nvidia-nccl-cu12": "nccl", "nvidia-nccl-cu13": "nccl", "flash-attn": "flash-attn",
    "flash_attn": "flash-attn", "flashinfer-python": "flashinfer", "xformers": "xformers", "torchvision": "torchvision",
    "torchaudio": "torchaudio", "deepspeed": "deepspeed", "accelerate": "accelerate", "nixl": "nixl", "ray": "ray",
    "protobuf": "protobuf", "tensorrt-llm": "tensorrt-llm", "tensorrt_llm": "tensorrt-llm",
    "nvidia-cudnn-cu12": "cudnn",
    "ucx-py-cu12": "ucx-py", "libucx-cu12": "ucx", "bitsandbytes": "bitsandbytes", "jax": "jax", "jaxlib": "jaxlib",
    "tensorflow": "tensorflow", "lmcache": "lmcache", "aiter": "aiter", "outlines": "outlines", "xgrammar": "xgrammar",
}  # fmt: skip
_PINNED = regex(r"(?<![\w./-])([a-zA-Z][\w-]{1,40})\s*==\s*(\d[\w.+!-]*)")
_LISTED = regex(r"^([a-zA-Z][\w.-]{1,40})\s{2,}(\d[\w.+!-]*)(?:\s|$)")
_GPU_LINE = regex(
    r"^\W*(?:GPU models and configuration:\s*)?GPU (\d+):\s*((?:NVIDIA|Tesla|GeForce|Quadro|GRID|AMD|A\d+|H\d+)[^(|"
    r"]*?)\s*(?:\(UUID.*)?$"
)


_HINT = regex(r"ersion|release |==|GPU \d|[Dd]river|built|build|Kernel Module|torch|^ldd |GNU C|^\s*Package")


class VersionReader:
    """collect_env, pip list and freeze, nvcc, `nvidia-smi -L`."""

    name = "versions"
    needles: tuple[bytes, ...] = (
        b"ersion", b"release ", b"==", b"Package", b"__version__", b"GPU 0:", b"GPU 1:", b"used to build",
        b"Kernel Module",
        b"torch.version", b"ldd (",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`version` labelled with the component, and `gpu.name`."""
        table = False
        pins = 0
        for line in doc.novel():
            text = line.text
            if not table and not _HINT.search(text):
                continue
            for component, pattern in _LINES:
                if (hit := pattern.search(text)) is not None and (got := next((g for g in hit.groups() if g), None)):
                    yield fact(doc, line, "version", got, label=component)
                    if component == "torch" and (cuda := re.search(r"\+cu(\d{2})(\d)", got)) is not None:
                        yield fact(doc, line, "version", f"{cuda.group(1)}.{cuda.group(2)}", label="torch-cuda")
                    elif component == "torch" and "+cpu" in got:
                        yield fact(doc, line, "version", "0 (cpu)", label="torch-cuda")
                    break
            if (gpu := _GPU_LINE.match(text)) is not None:
                yield fact(doc, line, "gpu.name", gpu.group(2).strip(), gpu=int(gpu.group(1)))
            if re.match(r"\s*Package\s+Version\b", text):
                table = True
                continue
            found = (
                _PINNED.findall(text) if "==" in text and not re.search(r"requires?|requirement|conflict", text) else []
            )
            if table and (row := _LISTED.match(text)) is not None:
                found = [(row.group(1), row.group(2))]
            for name, got in found:
                component_name = _PIP.get(name.lower())
                if component_name and pins < 60:
                    pins += 1
                    yield fact(doc, line, "version", got, label=component_name, around=name)


READERS: list[Reader] = [EnvReader(), VersionReader()]
