"""One CUDA device for the microbenchmarks: compile, allocate, launch, time, read back.

Device code is compiled by NVRTC through cuda-core, which needs neither a toolkit nor, for compiling, a driver.
Everything else is the driver API through cuda-bindings, which mirrors C and keeps its names between versions.
Memory comes from plain ``cuMemAlloc``; no setting of the GPU is touched.
"""

from __future__ import annotations

import ctypes
import mmap
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module, resources
from typing import Any

from diagnose.errors import ProbeError, ToolMissing

ODD, SEED = 2654435761, 12345  # the pattern that buffers are filled with: i * ODD + SEED
SHARE = 0.4  # of the free device memory that one benchmark may take
ENABLE = "an NVIDIA GPU with its driver, and: pip install cuda-core cuda-bindings nvidia-cuda-nvrtc"
Arg = tuple[Any, int | float]  # ctypes type, value
INT, UINT, LONG, FLOAT = ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_float


class CudaError(ProbeError):
    """A call into the driver failed, or a result is wrong."""


class NotHere(ProbeError):
    """This machine lacks what a benchmark needs: nothing failed."""


@lru_cache(maxsize=1)
def _core() -> Any:
    """cuda-core under its present name or the one it had while experimental."""
    for name in ("cuda.core", "cuda.core.experimental"):
        try:
            module = import_module(name)
        except ImportError:
            continue
        if hasattr(module, "Program"):
            return module
    raise ToolMissing("cuda-core is not installed", ENABLE)


@lru_cache(maxsize=1)
def _driver() -> Any:
    try:
        return import_module("cuda.bindings.driver")
    except ImportError as err:
        raise ToolMissing("cuda-bindings is not installed", ENABLE) from err


def source(stem: str) -> str:
    """Device code of one file of the kernels folder, behind what they all share."""
    folder = resources.files("diagnose.kernels")
    return (folder / "pattern.cuh").read_text("utf-8") + (folder / f"{stem}.cu").read_text("utf-8")


@lru_cache(maxsize=64)
def compile_cubin(stem: str, arch: str, registers: int | None = None) -> bytes:
    """Machine code of one file for `arch` (``sm_90``), optionally with a limit on registers a thread.

    Raises:
        ToolMissing: cuda-core or NVRTC is absent. CudaError: the code does not compile for this target.
    """
    core = _core()
    options: dict[str, Any] = {"arch": arch, "std": "c++17", "name": f"{stem}.cu"}
    if registers:
        options["max_register_count"] = registers
    try:
        code = core.Program(source(stem), "c++", core.ProgramOptions(**options)).compile("cubin").code
    except Exception as err:  # cuda-core has no common base, and its classes move between versions
        missing = "NotFound" in type(err).__name__ or isinstance(err, ImportError)
        text = str(err).strip().splitlines() or [type(err).__name__]
        if missing:
            raise ToolMissing(f"NVRTC cannot be loaded: {text[0]}", ENABLE) from err
        raise CudaError(f"{stem}.cu does not compile for {arch}: {' / '.join(text[-6:])}") from err
    return bytes(code)


def call(name: str, *args: Any) -> Any:
    """Call a driver function; its results without the status.

    Raises:
        CudaError: with the driver's own name for what went wrong.
    """
    try:
        status, *rest = getattr(_driver(), name)(*args)
    except RuntimeError as err:  # the library itself is not there, or lacks the function
        raise CudaError(f"{name}: {str(err).strip().splitlines()[0]}", ENABLE) from err
    if int(status):
        raise CudaError(f"{name}: {getattr(status, 'name', status)}")
    return rest[0] if len(rest) == 1 else tuple(rest) or None


def constant(kind: str, name: str) -> Any:
    """One value of the driver's enumerations.

    Raises:
        ToolMissing: cuda-bindings is not installed.
    """
    return getattr(getattr(_driver(), kind), name)


@dataclass(frozen=True)
class Sample:
    """Times of repeated runs, microseconds."""

    times: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one of the times, in their unit."""
        return statistics.median(self.times)

    def quantile(self, share: float) -> float:
        """The reading below which `share` of the times lie."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


@dataclass(frozen=True)
class Launch:
    """A kernel with its grid and packed arguments, ready to be queued cheaply many times."""

    function: Any
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    packed: int
    keep: tuple[Any, ...] = field(repr=False, default=())

    def __call__(self, stream: Any = 0) -> None:
        call("cuLaunchKernel", self.function, *self.grid, *self.block, self.shared, stream, self.packed, 0)

    def bare(self) -> Callable[[], Any]:
        """The same on the default stream without looking at the status: for timing the launch itself.

        Raises:
            ToolMissing: cuda-bindings is not installed.
        """
        return partial(_driver().cuLaunchKernel, self.function, *self.grid, *self.block, self.shared, 0, self.packed, 0)


class Device:
    """A device in this process's primary context."""

    def __init__(self, index: int = 0) -> None:
        call("cuInit", 0)
        count = int(call("cuDeviceGetCount"))
        if index >= count:
            raise CudaError(f"there is no GPU {index}: {count} visible")
        self.index, self.count = index, count
        self.handle = call("cuDeviceGet", index)
        self.context = call("cuDevicePrimaryCtxRetain", self.handle)
        self.use()
        self._functions: dict[tuple[str, str, int | None], Any] = {}
        raw = call("cuDeviceGetName", 96, self.handle)
        self.name = bytes(raw).split(b"\0")[0].decode()
        self.cc = (self.attribute("COMPUTE_CAPABILITY_MAJOR"), self.attribute("COMPUTE_CAPABILITY_MINOR"))
        self.sms = self.attribute("MULTIPROCESSOR_COUNT")
        self.l2 = self.attribute("L2_CACHE_SIZE")
        self.bus_id = bytes(call("cuDeviceGetPCIBusId", 32, self.handle)).split(b"\0")[0].decode()

    def use(self) -> None:
        """Make this device's context current on this thread."""
        call("cuCtxSetCurrent", self.context)

    def attribute(self, name: str) -> int:
        """A device attribute by its name without the common prefix."""
        key = constant("CUdevice_attribute", f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(call("cuDeviceGetAttribute", key, self.handle))

    @property
    def free(self) -> int:
        """Bytes of device memory that are free now."""
        return int(call("cuMemGetInfo")[0])

    def fit(self, wanted: int, buffers: int = 1) -> int:
        """The largest power of two up to `wanted` bytes, of which `buffers` fit the share of free memory.

        Raises:
            CudaError: what fits is not several times the L2, which would then be what is measured.
        """
        room = max(0, int(self.free * SHARE) - (1 << 16)) // buffers  # what is left is for tables and counters
        size = wanted
        while size > room:
            size //= 2
        if size < 4 * self.l2:
            raise CudaError(f"{self.free >> 20} MiB are free: buffers of {size >> 20} MiB would be read from the L2")
        return size

    def function(self, stem: str, name: str, *, arch_suffix: str = "", registers: int | None = None) -> Any:
        """A kernel of one file, compiled for this device."""
        key = (stem + arch_suffix, name, registers)
        if key not in self._functions:
            cubin = compile_cubin(stem, f"sm_{self.cc[0]}{self.cc[1]}{arch_suffix}", registers)
            module = call("cuModuleLoadData", cubin)
            self._functions[key] = call("cuModuleGetFunction", module, name.encode())
        return self._functions[key]

    def function_attribute(self, function: Any, name: str) -> int:
        """``NUM_REGS``, ``LOCAL_SIZE_BYTES`` and such of a kernel."""
        key = constant("CUfunction_attribute", f"CU_FUNC_ATTRIBUTE_{name}")
        return int(call("cuFuncGetAttribute", key, function))

    def launch(
        self, function: Any, grid: int | tuple[int, int], block: int | tuple[int, int], *args: Arg, shared: int = 0
    ) -> Launch:
        """Bind a kernel to its grid and arguments."""
        values = tuple(kind(value) for kind, value in args)
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(ctypes.addressof(v) for v in values))
        gx, gy = (grid, 1) if isinstance(grid, int) else grid
        bx, by = (block, 1) if isinstance(block, int) else block
        if shared > 48 << 10:
            key = constant("CUfunction_attribute", "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES")
            call("cuFuncSetAttribute", function, key, shared)
        packed = ctypes.addressof(pointers) if values else 0
        return Launch(function, (gx, gy, 1), (bx, by, 1), shared, packed, (values, pointers))

    def kernel(self, stem: str, name: str, grid: Any, block: Any, *args: Arg, shared: int = 0) -> Launch:
        """`function` and `launch` in one."""
        return self.launch(self.function(stem, name), grid, block, *args, shared=shared)

    @contextmanager
    def memory(self) -> Iterator[Arena]:
        """Allocations that are all freed at the end, whatever happens."""
        arena = Arena(self)
        try:
            yield arena
        finally:
            arena.close()

    def sync(self) -> None:
        """Wait until all launched work has ended."""
        call("cuCtxSynchronize")

    def event(self) -> Any:
        """A new CUDA event; `time` destroys those it makes."""
        return call("cuEventCreate", 0)

    def time(self, work: Callable[[], None], reps: int = 10, warm_up: int = 2) -> Sample:
        """Time `work` on the default stream by events, after warm-up.

        The launches are queued behind a kernel that spins, so that the host's pace does not enter. Buffers are
        several times the L2 (`fit`), so that every run finds it full of something else.
        """
        for _ in range(warm_up):
            work()
        self.sync()
        events = [(self.event(), self.event()) for _ in range(reps)]
        self.kernel("basics", "spin", 1, 1, (LONG, 2_000_000))()
        for start, end in events:
            call("cuEventRecord", start, 0)
            work()
            call("cuEventRecord", end, 0)
        self.sync()
        times = tuple(float(call("cuEventElapsedTime", start, end)) * 1e3 for start, end in events)
        for pair in events:
            for event in pair:
                call("cuEventDestroy", event)
        return Sample(times)


class Arena:
    """Device and host memory of one benchmark."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._device: list[Any] = []
        self._host: list[Any] = []
        self._pageable: list[mmap.mmap] = []
        self._limit = int(device.free * SHARE)
        self._taken = 0

    def alloc(self, size: int) -> int:
        """Device memory; its address."""
        self._taken += size
        if self._taken > self._limit:
            raise CudaError(f"{self._taken >> 20} MiB would be over {SHARE:.0%} of the free device memory")
        pointer = call("cuMemAlloc", size)
        self._device.append(pointer)
        return int(pointer)

    def filled(self, size: int, seed: int = SEED) -> int:
        """Device memory filled with the pattern."""
        pointer = self.alloc(size)
        self.fill(pointer, size, seed)
        return pointer

    def fill(self, pointer: int, size: int, seed: int = SEED) -> None:
        """Write the pattern of `seed` over `size` bytes, by a kernel of the module `basics`."""
        grid = self.device.sms * 8
        self.device.kernel("basics", "fill", grid, 256, (LONG, pointer), (LONG, size // 4), (UINT, ODD), (UINT, seed))()

    def zeroed(self, size: int) -> int:
        """Device memory of zeros; its address."""
        pointer = self.alloc(size)
        call("cuMemsetD8", pointer, 0, size)
        return pointer

    def pinned(self, size: int) -> int:
        """Page-locked host memory; its address."""
        pointer = call("cuMemHostAlloc", size, 0)
        self._host.append(pointer)
        ctypes.memset(int(pointer), 1, size)
        return int(pointer)

    def pageable(self, size: int) -> int:
        """Ordinary host memory, touched once; its address."""
        block = mmap.mmap(-1, size)
        self._pageable.append(block)
        address = ctypes.addressof(ctypes.c_char.from_buffer(block))
        ctypes.memset(address, 1, size)
        return address

    def expect(self, launch: Launch, counter: int, what: str) -> None:
        """Run a checking kernel; raise if it counted anything wrong."""
        call("cuMemsetD8", counter, 0, 8)
        launch()
        if wrong := self.word(counter, 8):
            raise CudaError(f"wrong result of {what}: {wrong} words differ")

    def expect_pattern(self, pointer: int, size: int, what: str, seed: int = SEED) -> None:
        """The buffer must hold the pattern in every word."""
        counter = self.alloc(8)
        args: Sequence[Arg] = (
            (LONG, pointer), (LONG, size // 4), (UINT, ODD), (UINT, seed), (LONG, counter),
        )  # fmt: skip
        self.expect(self.device.kernel("basics", "check", self.device.sms * 8, 256, *args), counter, what)

    def word(self, pointer: int, size: int = 4) -> int:
        """One little-endian number of device memory."""
        buffer = (ctypes.c_ubyte * size)()
        call("cuMemcpyDtoH", ctypes.addressof(buffer), pointer, size)
        return int.from_bytes(bytes(buffer), "little")

    def floats(self, pointer: int, count: int) -> list[float]:
        """Numbers of device memory."""
        buffer = (ctypes.c_float * count)()
        call("cuMemcpyDtoH", ctypes.addressof(buffer), pointer, 4 * count)
        return list(buffer)

    def store(self, pointer: int, data: bytes) -> None:
        """Write bytes to device memory."""
        buffer = (ctypes.c_ubyte * len(data)).from_buffer_copy(data)
        call("cuMemcpyHtoD", pointer, ctypes.addressof(buffer), len(data))

    def close(self) -> None:
        """Free everything; a context that is already lost takes its memory with it."""
        for name, items in (("cuMemFree", self._device), ("cuMemFreeHost", self._host)):
            for item in items:
                try:
                    call(name, item)
                except CudaError:
                    continue
        self._device, self._host = [], []
        for block in self._pageable:
            try:
                block.close()
            except BufferError:  # an address was taken from it; it goes with the process
                continue
        self._pageable = []
