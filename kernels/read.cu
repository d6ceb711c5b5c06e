// Reading every 4-byte word of a buffer once, in three orders. n is 2^bits.

#define READ(NAME, INDEX)                                                                                \
    extern "C" __global__ void NAME(const u32* __restrict__ in, int bits, int stride_bits, u32* out) {   \
        const u64 n = 1ull << bits, step = thread_count();                                               \
        u32 sum = 0;                                                                                     \
        for (u64 first = thread_id(); first < n; first += 4 * step) {                                    \
            u32 v[4];                                                                                    \
            _Pragma("unroll") for (int k = 0; k < 4; ++k) {                                              \
                const u64 i = first + k * step;                                                          \
                v[k] = i < n ? in[INDEX] : 0;                                                            \
            }                                                                                            \
            sum += v[0] + v[1] + v[2] + v[3];                                                            \
        }                                                                                                \
        add_up(sum, out);                                                                                \
    }

READ(read_coalesced, i)
// Neighbouring threads stand 2^stride_bits words apart: one used word a sector.
READ(read_strided, ((i & ((n >> stride_bits) - 1)) << stride_bits) | (i >> (bits - stride_bits)))
READ(read_random, scatter(i, bits))

// The same words with one 4-byte load in flight a thread: hides latency only by the number of threads.
extern "C" __global__ void read_latency(const u32* __restrict__ in, u64 n, u32* out) {
    extern __shared__ u32 ballast[];  // its size limits how many blocks fit
    u32 sum = 0;
#pragma unroll 1
    for (u64 i = thread_id(); i < n; i += thread_count()) sum += in[i];
    if (n == 0) ballast[threadIdx.x] = sum;
    add_up(sum, out);
}
