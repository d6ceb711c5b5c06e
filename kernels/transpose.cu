// Transpose of an n x n matrix of words, n a multiple of 32; blocks of 32 x 8 threads.
// PAD decides whether a column of the tile lies in one bank (0) or in 32 (1).

template <int PAD>
__device__ __forceinline__ void transpose(u32* __restrict__ dst, const u32* __restrict__ src, int n) {
    __shared__ u32 tile[32][32 + PAD];
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    for (int k = 0; k < 32; k += 8) tile[threadIdx.y + k][threadIdx.x] = src[(u64)(y + k) * n + x];
    __syncthreads();
    const int tx = blockIdx.y * 32 + threadIdx.x, ty = blockIdx.x * 32 + threadIdx.y;
    for (int k = 0; k < 32; k += 8) dst[(u64)(ty + k) * n + tx] = tile[threadIdx.x][threadIdx.y + k];
}

extern "C" __global__ void transpose_padded(u32* dst, const u32* src, int n) { transpose<1>(dst, src, n); }
extern "C" __global__ void transpose_conflict(u32* dst, const u32* src, int n) { transpose<0>(dst, src, n); }

// Reads rows, writes columns: every store of a warp goes to 32 rows.
extern "C" __global__ void transpose_direct(u32* dst, const u32* src, int n) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    for (int k = 0; k < 32; k += 8) dst[(u64)x * n + y + k] = src[(u64)(y + k) * n + x];
}

extern "C" __global__ void check_transpose(const u32* in, int n, u32 odd, u32 seed, u64* bad) {
    u64 wrong = 0;
    for (u64 i = thread_id(); i < (u64)n * n; i += thread_count())
        wrong += in[i] != pattern((i % n) * n + i / n, odd, seed);
    if (wrong) atomicAdd(bad, wrong);
}

// Shared memory only: lane l of every warp reads word l * stride + j, 32 values of j a turn.
extern "C" __global__ void shared_read(u32* out, int stride, int turns) {
    __shared__ u32 words[32 * 32 + 32];
    for (int i = threadIdx.x; i < 32 * 32 + 32; i += blockDim.x) words[i] = i;
    __syncthreads();
    const u32 at = (u32)__cvta_generic_to_shared(words + threadIdx.x % 32 * stride);
    u32 sum = 0;
    for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
        for (int j = 0; j < 32; ++j) {
            u32 v;  // volatile: the same word is to be read again in the next turn
            asm volatile("ld.volatile.shared.u32 %0, [%1];" : "=r"(v) : "r"(at + 4 * j));
            sum += v;
        }
    }
    add_up(sum, out);
}
