// Arithmetic without memory.

// Sixteen independent chains a thread: x = x * a + b, two operations each.
extern "C" __global__ void __launch_bounds__(256) fma_peak(float* out, float a, float b, int turns) {
    float x[16];
#pragma unroll
    for (int k = 0; k < 16; ++k) x[k] = k;
    for (int turn = 0; turn < turns; ++turn)
#pragma unroll
        for (int rep = 0; rep < 16; ++rep)
#pragma unroll
            for (int k = 0; k < 16; ++k) x[k] = fmaf(x[k], a, b);
    float sum = 0;
#pragma unroll
    for (int k = 0; k < 16; ++k) sum += x[k];
    out[thread_id()] = sum;
}

// Every thread does the work of one of 32 branches. by_lane: the threads of a warp take 32 different ones,
// else they agree, and warps differ. The work a thread is the same.
extern "C" __global__ void branches(u32* out, int by_lane, int turns) {
    const u32 key = (by_lane ? threadIdx.x : threadIdx.x / 32 + blockIdx.x) % 32;
    u32 x = key;
#pragma unroll 1
    for (u32 branch = 0; branch < 32; ++branch) {
        if (key == branch)
#pragma unroll 1
            for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
                for (int rep = 0; rep < 16; ++rep) x = x * 1664525u + (1013904223u + branch);
            }
    }
    out[thread_id()] = x;
}

// Adds to counters picked by a hash of the thread; mask 0 sends all to one.
extern "C" __global__ void atomics(u32* counters, u32 mask, int turns) {
    u32 x = (u32)thread_id();
    for (int turn = 0; turn < turns; ++turn) {
        x = x * 1664525u + 1013904223u;
        atomicAdd(counters + ((x >> 8) & mask), 1u);
    }
}
