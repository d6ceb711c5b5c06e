// Kernels with one planted fault each, for recording states: nvcc -arch=native -o kernels kernels.cu; ./kernels NAME
// `spills` is the same source built with -maxrregcount=32.
#include <cstdio>
#include <cstring>
#include <cuda_runtime.h>

__global__ void healthy_add(const float4* a, const float4* b, float4* c, size_t n) {
  size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
  if (i < n) { float4 x = a[i], y = b[i]; c[i] = make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w); }
}

__global__ void strided_gather(const float* a, float* c, size_t n) {
  size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
  size_t columns = n / 1024;
  if (i < n) c[i] = a[(i % 1024) * columns + i / 1024];  // neighbours read addresses a row apart
}

__global__ void column_sum(const float* a, float* c, int rounds) {
  __shared__ float tile[32][32];
  int x = threadIdx.x, y = threadIdx.y;
  tile[y][x] = a[(blockIdx.x * 1024 + y * 32 + x) & 0xfffff];
  __syncthreads();
  float sum = 0;
  for (int r = 0; r < rounds; r++) sum += tile[x][(y + r) & 31];  // a warp reads one bank
  c[blockIdx.x * 1024 + y * 32 + x] = sum;
}

__global__ void many_values(const float* a, float* c, int rounds) {
  float v[96];
  size_t at = (blockIdx.x * size_t(blockDim.x) + threadIdx.x) & 0xfffff;
#pragma unroll
  for (int k = 0; k < 96; k++) v[k] = a[(at + k * 97) & 0xfffff];
  for (int r = 0; r < rounds; r++) {
#pragma unroll
    for (int k = 0; k < 96; k++) v[k] = v[k] * v[(k * 7 + 3) % 96] + 0.25f;
  }
  float sum = 0;
#pragma unroll
  for (int k = 0; k < 96; k++) sum += v[k];
  c[at] = sum;
}

__global__ void chase(const float* a, float* c, int rounds) {
  extern __shared__ float big[];
  size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
  float sum = 0;
  for (int r = 0; r < rounds; r++) sum += a[(i * 33 + r * 7919 + (sum > 1e30f)) & 0xffffff];
  if (sum == -1.0f) big[threadIdx.x] = sum;
  c[i] = sum;
}

__global__ void per_lane(float* c, int rounds) {
  float v = threadIdx.x * 0.001f;
  switch (threadIdx.x & 31) {
#define LANE(k) case k: for (int r = 0; r < rounds; r++) v = v * (1.0f + k * 1e-7f) + k; break;
    LANE(0) LANE(1) LANE(2) LANE(3) LANE(4) LANE(5) LANE(6) LANE(7) LANE(8) LANE(9) LANE(10) LANE(11) LANE(12) LANE(13)
    LANE(14) LANE(15) LANE(16) LANE(17) LANE(18) LANE(19) LANE(20) LANE(21) LANE(22) LANE(23) LANE(24) LANE(25) LANE(26)
    LANE(27) LANE(28) LANE(29) LANE(30) LANE(31)
  }
  c[blockIdx.x * size_t(blockDim.x) + threadIdx.x] = v;
}

int main(int argc, char** argv) {
  const char* name = argc > 1 ? argv[1] : "";
  size_t n = 1 << 26;
  float *a, *b, *c;
  cudaMalloc(&a, n * 4); cudaMalloc(&b, n * 4); cudaMalloc(&c, n * 4);
  cudaMemset(a, 0, n * 4); cudaMemset(b, 0, n * 4);
  cudaFuncSetAttribute(chase, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 << 10);
  for (int i = 0; i < 12; i++) {
    if (!strcmp(name, "healthy")) healthy_add<<<n / 4 / 256, 256>>>((float4*)a, (float4*)b, (float4*)c, n / 4);
    else if (!strcmp(name, "strided")) strided_gather<<<n / 256, 256>>>(a, c, n);
    else if (!strcmp(name, "conflicts")) column_sum<<<8192, dim3(32, 32)>>>(a, c, 512);
    else if (!strcmp(name, "spills")) many_values<<<4096, 256>>>(a, c, 64);
    else if (!strcmp(name, "occupancy")) chase<<<132, 64, 200 << 10>>>(a, c, 4096);
    else if (!strcmp(name, "divergence")) per_lane<<<8192, 256>>>(c, 256);
    else { printf("healthy strided conflicts spills occupancy divergence\n"); return 2; }
  }
  cudaError_t err = cudaDeviceSynchronize();
  printf("%s: %s\n", name, cudaGetErrorString(err));
  return err != cudaSuccess;
}
