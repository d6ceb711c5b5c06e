// What every kernel file starts with: short names, the test pattern, and the kernels that write and check it.
// Word i of a filled buffer is i * odd + seed modulo 2^32: all words differ, and any sum has a closed form.
typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u32 pattern(u64 i, u32 odd, u32 seed) { return (u32)i * odd + seed; }

// A permutation of 0 .. 2^bits - 1 that leaves no locality.
__device__ __forceinline__ u64 scatter(u64 i, int bits) {
    const u64 mask = (1ull << bits) - 1;
    u64 x = (i * 0x9E3779B97F4A7C15ull) & mask;
    x ^= x >> (bits / 2);
    x = (x * 0xD6E8FEB86659FD93ull) & mask;
    return x ^ (x >> (bits / 2));
}

__device__ __forceinline__ u64 thread_id() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ u64 thread_count() { return (u64)gridDim.x * blockDim.x; }

// Sum over the warp, then one atomic a warp: cheap beside the loads that feed it.
__device__ __forceinline__ void add_up(u32 value, u32* out) {
    for (int hop = 16; hop; hop >>= 1) value += __shfl_down_sync(0xffffffffu, value, hop);
    if (threadIdx.x % 32 == 0) atomicAdd(out, value);
}
