// Gathering KV-cache blocks through a block table. A chunk is one block of one head: 2^chunk_bits vectors of
// 16 bytes. Table entry c names the chunk of the pool that chunk c of the output comes from.

extern "C" __global__ void make_table(u32* table, int bits, int scattered) {
    for (u64 i = thread_id(); i < 1ull << bits; i += thread_count()) table[i] = scattered ? (u32)scatter(i, bits) : (u32)i;
}

extern "C" __global__ void __launch_bounds__(256)
    gather(uint4* __restrict__ dst, const uint4* __restrict__ pool, const u32* __restrict__ table, u64 n, int chunk_bits) {
    const u64 base = (u64)blockIdx.x * blockDim.x * 4 + threadIdx.x, inside = (1ull << chunk_bits) - 1;
    uint4 v[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const u64 i = base + k * blockDim.x;
        if (i < n) v[k] = __ldcs(pool + ((u64)table[i >> chunk_bits] << chunk_bits | (i & inside)));
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const u64 i = base + k * blockDim.x;
        if (i < n) __stcs(dst + i, v[k]);
    }
}

// n words; chunk_bits counts vectors of 4 words. The table is computed again, not read.
extern "C" __global__ void check_gather(const u32* in, u64 n, int chunk_bits, int bits, int scattered, u32 odd, u32 seed, u64* bad) {
    u64 wrong = 0;
    for (u64 i = thread_id(); i < n; i += thread_count()) {
        const u64 chunk = i >> (chunk_bits + 2), from = scattered ? scatter(chunk, bits) : chunk;
        wrong += in[i] != pattern(from << (chunk_bits + 2) | (i & ((4ull << chunk_bits) - 1)), odd, seed);
    }
    if (wrong) atomicAdd(bad, wrong);
}
