"""A driver API on the CPU, slow and small, on which the microbenchmarks run without a GPU.

Kernels are compiled by g++ and run thread by thread; a barrier or a shuffle hands over to the next thread of the
block. Enough to show that kernels, grids, arguments and checks belong together. It says nothing about speed.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PRELUDE = r"""
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>
struct Dim { unsigned x, y, z; };
static Dim threadIdx, blockIdx, blockDim, gridDim;
static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static unsigned current;
static unsigned long long slots[1024];
static inline unsigned linear() { return threadIdx.y * blockDim.x + threadIdx.x; }
static void hand_over() { swapcontext(&fibers[current], &scheduler); }
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __syncthreads hand_over
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <class T> static inline T __ldcs(const T* p) { return *p; }
template <class T> static inline void __stcs(T* p, T v) { *p = v; }
static inline unsigned atomicAdd(unsigned* p, unsigned v) { unsigned old = *p; *p += v; return old; }
typedef unsigned long long u64;
static inline u64 atomicAdd(u64* p, u64 v) { u64 old = *p; *p += v; return old; }
static inline unsigned __shfl_down_sync(unsigned, unsigned v, int hop) {
    slots[linear()] = v;
    hand_over();
    unsigned got = linear() % 32 + hop < 32 ? slots[linear() + hop] : v;
    hand_over();
    return got;
}
"""
RUNNER = r"""
static void (*chosen)(void**);
static void** arguments;
static void fiber() {
    chosen(arguments);
    threadIdx.z = 1;  // done
    hand_over();
}
extern "C" void run(void (*kernel)(void**), void** args, unsigned gx, unsigned gy, unsigned bx, unsigned by) {
    static std::vector<char> stacks(1024 * 65536ull);
    chosen = kernel, arguments = args, gridDim = {gx, gy, 1}, blockDim = {bx, by, 1};
    const unsigned n = bx * by;
    fibers.resize(n);
    for (unsigned b = 0; b < gx * gy; ++b) {
        blockIdx = {b % gx, b / gx, 0};
        std::vector<char> done(n, 0);
        for (unsigned t = 0; t < n; ++t) {
            getcontext(&fibers[t]);
            fibers[t].uc_stack.ss_sp = &stacks[t * 65536ull], fibers[t].uc_stack.ss_size = 65536;
            fibers[t].uc_link = nullptr;
            makecontext(&fibers[t], fiber, 0);
        }
        for (unsigned left = n; left;)
            for (unsigned t = 0; t < n; ++t) {
                if (done[t]) continue;
                current = t, threadIdx = {t % bx, t / bx, 0};
                swapcontext(&scheduler, &fibers[t]);
                if (threadIdx.z) done[t] = 1, --left;
            }
    }
}
"""
_PORT = (  # what has no meaning on a CPU -> what stands for it
    (r"extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\];", r"static \1 \2[65536];"),
    (r'asm volatile\("mov.u64 %0, %%globaltimer;" : "=l"\((\w+)\)\);', r"\1 = clock_ticks++ * 1000000;"),
    (r"const u32 at = \(u32\)__cvta_generic_to_shared\(", "const u64 at = (u64)("),
    (
        r'asm volatile\("ld.volatile.shared.u32 %0, \[%1\];" : "=r"\(v\) : "r"\((.*?)\)\);',
        r"v = *(const volatile u32*)(\1);",
    ),
)
_KERNEL = re.compile(r'extern "C"\s+void\s+(\w+)\s*\(([^)]*)\)\s*\{')


def build(source: str, stem: str, folder: Path) -> ctypes.CDLL:
    """Compile one kernel file for the CPU."""
    for pattern, there in _PORT:
        source = re.sub(pattern, there, source)
    file = folder / f"{stem}.cpp"
    file.write_text(PRELUDE + "static unsigned long long clock_ticks;\n" + source)
    expanded = subprocess.run(["g++", "-E", "-P", "-w", str(file)], capture_output=True, text=True, check=True).stdout
    calls = []
    for name, params in _KERNEL.findall(expanded):
        types = [re.sub(r"\w+\s*$", "", p.replace("__restrict__", " ")).strip() for p in params.split(",") if p.strip()]
        values = ", ".join(f"*(std::remove_cv_t<{t}>*)a[{i}]" for i, t in enumerate(types))
        calls.append(f'extern "C" void call_{name}(void** a) {{ {name}({values}); }}')
    file.write_text(file.read_text() + RUNNER + "#include <type_traits>\n" + "\n".join(calls))
    library = folder / f"{stem}.so"
    subprocess.run(["g++", "-O1", "-w", "-std=c++17", "-shared", "-fPIC", "-o", str(library), str(file)], check=True)
    return ctypes.CDLL(str(library))


LIBRARIES: dict[str, ctypes.CDLL] = {}  # by stem: kernel files do not change while tests run


class Driver:
    """What the microbenchmarks call of ``cuda.bindings.driver``."""

    def __init__(self, folder: Path, source: Any, free: int, devices: int = 1) -> None:
        self.folder, self.source, self.free, self.devices = folder, source, free, devices
        self.libraries = LIBRARIES
        self.live: dict[int, Any] = {}
        self.spoil: set[str] = set()  # kernels that do not run, to see that the checks notice
        names = {"COMPUTE_CAPABILITY_MAJOR": 8, "COMPUTE_CAPABILITY_MINOR": 0, "MULTIPROCESSOR_COUNT": 2,
                 "L2_CACHE_SIZE": 1 << 12, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 65536,
                 "MAX_THREADS_PER_MULTIPROCESSOR": 1024}  # fmt: skip
        self.CUdevice_attribute = SimpleNamespace(**{f"CU_DEVICE_ATTRIBUTE_{k}": v for k, v in names.items()})
        self.CUfunction_attribute = SimpleNamespace(
            CU_FUNC_ATTRIBUTE_NUM_REGS="regs",
            CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES="local",
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared",
        )
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __getattr__(self, name: str) -> Any:
        if name in ("cuInit", "cuCtxSetCurrent", "cuCtxSynchronize", "cuStreamSynchronize", "cuStreamDestroy",
                    "cuEventDestroy", "cuFuncSetAttribute", "cuGraphExecDestroy", "cuGraphDestroy", "cuGraphLaunch",
                    "cuStreamBeginCapture", "cuCtxEnablePeerAccess"):  # fmt: skip
            return lambda *args: (0,)
        if name in ("cuStreamCreate", "cuStreamEndCapture", "cuGraphInstantiate", "cuDevicePrimaryCtxRetain"):
            return lambda *args: (0, 7)
        raise AttributeError(name)

    def cuDeviceGetCount(self) -> Any:
        return 0, self.devices

    def cuDeviceGet(self, index: int) -> Any:
        return 0, index

    def cuDeviceGetName(self, length: int, device: int) -> Any:
        return 0, b"Emulated\0\0"

    def cuDeviceGetPCIBusId(self, length: int, device: int) -> Any:
        return 0, b"0000:00:00.0\0"

    def cuDeviceGetAttribute(self, key: int, device: int) -> Any:
        return 0, key

    def cuDeviceCanAccessPeer(self, a: int, b: int) -> Any:
        return 0, 1

    def cuMemGetInfo(self) -> Any:
        return 0, self.free, self.free

    def cuMemAlloc(self, size: int) -> Any:
        block = (ctypes.c_ubyte * size)()
        self.live[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def cuMemHostAlloc(self, size: int, flags: int) -> Any:
        return self.cuMemAlloc(size)

    def cuMemFree(self, pointer: int) -> Any:
        del self.live[pointer]
        return (0,)

    cuMemFreeHost = cuMemFree

    def cuMemsetD8(self, pointer: int, value: int, size: int) -> Any:
        ctypes.memset(pointer, value, size)
        return (0,)

    def _copy(self, target: int, source: int, size: int, stream: Any = 0) -> Any:
        ctypes.memmove(target, source, size)
        return (0,)

    cuMemcpyHtoD = cuMemcpyDtoH = cuMemcpyHtoDAsync = cuMemcpyDtoHAsync = cuMemcpyDtoDAsync = _copy

    def cuMemcpyPeerAsync(self, target: int, a: Any, source: int, b: Any, size: int, stream: Any) -> Any:
        return self._copy(target, source, size)

    def cuEventCreate(self, flags: int) -> Any:
        return 0, [0.0]

    def cuEventRecord(self, event: list[float], stream: Any) -> Any:
        event[0] = time.perf_counter()
        return (0,)

    def cuEventElapsedTime(self, start: list[float], end: list[float]) -> Any:
        return 0, (end[0] - start[0]) * 1e3

    def cuModuleLoadData(self, image: bytes) -> Any:
        stem, _, registers = image.decode().partition("|")
        if stem not in self.libraries:
            self.libraries[stem] = build(self.source(stem), stem, self.folder)
        return 0, (stem, registers)

    def cuModuleGetFunction(self, module: tuple[str, str], name: bytes) -> Any:
        library = self.libraries[module[0]]
        return 0, SimpleNamespace(name=name.decode(), library=library, local=64 if module[1] != "None" else 0, regs=32)

    def cuFuncGetAttribute(self, key: str, function: Any) -> Any:
        return 0, getattr(function, key)

    def cuLaunchKernel(self, function: Any, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int,
                       stream: Any, packed: int, extra: int) -> Any:  # fmt: skip
        if function.name in self.spoil:
            return (0,)
        kernel = ctypes.cast(getattr(function.library, f"call_{function.name}"), ctypes.c_void_p)
        function.library.run(kernel, ctypes.c_void_p(packed), gx, gy, bx, by)
        return (0,)
