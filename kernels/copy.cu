// Device copy: 16 bytes a thread and access, U of them in flight before the first store.
// Variants differ in U and in what they tell the caches; the fastest on this chip counts.

#define COPY(NAME, U, LOAD, STORE)                                                                       \
    extern "C" __global__ void __launch_bounds__(1024)                                                   \
        NAME(uint4* __restrict__ dst, const uint4* __restrict__ src, u64 n) {                            \
        const u64 tile = (u64)blockDim.x * U;                                                            \
        for (u64 base = blockIdx.x * tile; base < n; base += gridDim.x * tile) {                         \
            uint4 v[U];                                                                                  \
            const u64 at = base + threadIdx.x;                                                           \
            if (base + tile <= n) {                                                                      \
                _Pragma("unroll") for (int k = 0; k < U; ++k) v[k] = LOAD(src + at + k * blockDim.x);    \
                _Pragma("unroll") for (int k = 0; k < U; ++k) STORE(dst + at + k * blockDim.x, v[k]);    \
            } else {                                                                                     \
                for (u64 i = at; i < n; i += blockDim.x) dst[i] = src[i];                                \
            }                                                                                            \
        }                                                                                                \
    }

#define LOAD_PLAIN(p) (*(p))
#define STORE_PLAIN(p, v) (*(p) = (v))

COPY(copy_plain_1, 1, LOAD_PLAIN, STORE_PLAIN)
COPY(copy_plain_2, 2, LOAD_PLAIN, STORE_PLAIN)
COPY(copy_plain_4, 4, LOAD_PLAIN, STORE_PLAIN)
COPY(copy_plain_8, 8, LOAD_PLAIN, STORE_PLAIN)
COPY(copy_stream_1, 1, __ldcs, __stcs)
COPY(copy_stream_2, 2, __ldcs, __stcs)
COPY(copy_stream_4, 4, __ldcs, __stcs)
COPY(copy_stream_8, 8, __ldcs, __stcs)
