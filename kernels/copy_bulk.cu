// Device copy through the bulk copy engine (compute capability 9.0 and later): one thread a block keeps S
// chunks moving between device memory and shared memory, half of them loading, half of them storing.

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ bool landed(u32 barrier, u32 parity) {
    u32 done = 0;
    // Bounded: a chunk that never lands ends in a wrong result, not in a hang.
    for (int tries = 0; tries < (1 << 20) && !done; ++tries)
        asm volatile(
            "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
            : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
    return done;
}

template <int S>
__device__ __forceinline__ void copy_bulk(char* dst, const char* src, u64 chunks, u32 chunk) {
    extern __shared__ __align__(128) char stage[];
    __shared__ __align__(8) u64 barriers[S];
    if (threadIdx.x) return;
    const u32 data = shared_address(stage), full = shared_address(barriers);
    for (int s = 0; s < S; ++s) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full + 8 * s) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
    auto load = [&](u64 turn) {
        const u64 c = blockIdx.x + turn * gridDim.x;
        if (c >= chunks) return;
        const u32 slot = turn % S;
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full + 8 * slot), "r"(chunk) : "memory");
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                         data + slot * chunk), "l"(src + c * chunk), "r"(chunk), "r"(full + 8 * slot) : "memory");
    };
    for (u64 turn = 0; turn < S / 2; ++turn) load(turn);
    for (u64 turn = 0; blockIdx.x + turn * gridDim.x < chunks; ++turn) {
        const u32 slot = turn % S;
        if (!landed(full + 8 * slot, (turn / S) & 1)) return;
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(
                         dst + (blockIdx.x + turn * gridDim.x) * chunk), "r"(data + slot * chunk), "r"(chunk) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        // The slot that is filled next was stored S / 2 turns ago.
        asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(S / 2) : "memory");
        load(turn + S / 2);
    }
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

extern "C" __global__ void copy_bulk_4(char* dst, const char* src, u64 chunks, u32 chunk) { copy_bulk<4>(dst, src, chunks, chunk); }
extern "C" __global__ void copy_bulk_8(char* dst, const char* src, u64 chunks, u32 chunk) { copy_bulk<8>(dst, src, chunks, chunk); }
