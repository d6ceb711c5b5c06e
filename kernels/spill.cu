// 96 values a thread, all alive at once. Compiled twice: as it is, and with a register limit that pushes
// most of them to local memory. The result is the same.

extern "C" __global__ void live_values(u32* out, int turns) {
    u32 v[96];
    const u32 id = (u32)thread_id();
#pragma unroll
    for (int k = 0; k < 96; ++k) v[k] = id * 2654435761u + k;
#pragma unroll 1
    for (int turn = 0; turn < turns; ++turn)
#pragma unroll
        for (int k = 0; k < 96; ++k) v[k] = v[k] * 3u + v[(k + 37) % 96];
    u32 sum = 0;
#pragma unroll
    for (int k = 0; k < 96; ++k) sum ^= v[k];
    out[id] = sum;
}
