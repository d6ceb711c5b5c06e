// Filling, checking, waiting and doing nothing.

extern "C" __global__ void fill(u32* out, u64 n, u32 odd, u32 seed) {
    for (u64 i = thread_id(); i < n; i += thread_count()) out[i] = pattern(i, odd, seed);
}

extern "C" __global__ void check(const u32* in, u64 n, u32 odd, u32 seed, u64* bad) {
    u64 wrong = 0;
    for (u64 i = thread_id(); i < n; i += thread_count()) wrong += in[i] != pattern(i, odd, seed);
    if (wrong) atomicAdd(bad, wrong);
}

// Adds up what a kernel left behind, so that one number is read back.
extern "C" __global__ void total(const u32* in, u64 n, u32* out) {
    u32 sum = 0;
    for (u64 i = thread_id(); i < n; i += thread_count()) sum += in[i];
    add_up(sum, out);
}

// Keeps the stream busy while the host queues the launches that are timed.
extern "C" __global__ void spin(u64 nanoseconds) {
    u64 start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - start < nanoseconds);
}

extern "C" __global__ void nothing() {}
