// C = A B in FP32, row major, n a multiple of 128.

// One thread an element, operands straight from global memory.
extern "C" __global__ void matmul_naive(float* __restrict__ c, const float* __restrict__ a, const float* __restrict__ b, int n) {
    const int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    float sum = 0;
    for (int k = 0; k < n; ++k) sum = fmaf(a[(u64)row * n + k], b[(u64)k * n + col], sum);
    c[(u64)row * n + col] = sum;
}

// 128 x 128 elements a block of 256 threads, 8 x 8 a thread, operands through shared memory in steps of 8,
// the next step loading while this one computes.
extern "C" __global__ void __launch_bounds__(256)
    matmul_tiled(float* __restrict__ c, const float* __restrict__ a, const float* __restrict__ b, int n) {
    __shared__ __align__(16) float at[2][8][128], bt[2][8][128];
    const int t = threadIdx.x, row0 = blockIdx.y * 128, col0 = blockIdx.x * 128;
    const int ar = t / 2, ak = t % 2 * 4, bk = t / 32, bc = t % 32 * 4;
    const int r = t / 16 * 4, q = t % 16 * 4;
    const float* ap = a + (u64)(row0 + ar) * n + ak;
    const float* bp = b + (u64)bk * n + col0 + bc;
    float acc[8][8] = {};
    float4 va = *(const float4*)ap, vb = *(const float4*)bp;
    int now = 0;
    for (int k0 = 0; k0 < n; k0 += 8, now ^= 1) {
        at[now][ak][ar] = va.x, at[now][ak + 1][ar] = va.y, at[now][ak + 2][ar] = va.z, at[now][ak + 3][ar] = va.w;
        *(float4*)&bt[now][bk][bc] = vb;
        __syncthreads();
        if (k0 + 8 < n) va = *(const float4*)(ap + k0 + 8), vb = *(const float4*)(bp + (u64)(k0 + 8) * n);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            float x[8], y[8];
            *(float4*)x = *(const float4*)&at[now][k][r], *(float4*)(x + 4) = *(const float4*)&at[now][k][r + 64];
            *(float4*)y = *(const float4*)&bt[now][k][q], *(float4*)(y + 4) = *(const float4*)&bt[now][k][q + 64];
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
        }
    }
    for (int i = 0; i < 8; ++i)
        for (int j = 0; j < 8; j += 4)
            *(float4*)&c[(u64)(row0 + r + i % 4 + i / 4 * 64) * n + col0 + q + j * 16] =
                make_float4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]);
}

// Whole numbers from -6 to 6, so that every sum is exact in FP32.
__device__ __forceinline__ float entry(u64 row, u64 col, int p, int q) { return (float)((row * p + col * q) % 13) - 6.0f; }

extern "C" __global__ void fill_matrix(float* out, int n, int p, int q) {
    for (u64 i = thread_id(); i < (u64)n * n; i += thread_count()) out[i] = entry(i / n, i % n, p, q);
}

// The product of two such matrices repeats with period 13 in both directions: 169 values say it all.
extern "C" __global__ void check_product(const float* c, int n, const float* expected, u64* bad) {
    u64 wrong = 0;
    for (u64 i = thread_id(); i < (u64)n * n; i += thread_count()) wrong += c[i] != expected[i / n % 13 * 13 + i % n % 13];
    if (wrong) atomicAdd(bad, wrong);
}
