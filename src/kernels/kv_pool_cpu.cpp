#include "kernels/kv_pool_cpu.h"

#include <sys/mman.h>

namespace chiasm {

void KvPoolCpu::Free::operator()(float* p) const { ::munmap(p, bytes); }

Result<std::unique_ptr<KvPool>> KvPoolCpu::make(const KvShape& shape) {
  // Keys and padded values; element_count checks the product in 64 bits.
  ASSIGN_OR_RETURN(const std::uint64_t bytes,
                   byte_count({shape.layers, shape.blocks, shape.kv_heads,
                               (shape.head_dim + padded_head_dim(shape.head_dim)) * kKvBlock},
                              DType::kF32));
  if (bytes == 0) return fail(Code::kInvalidArgument, "a KV pool needs at least one layer, block and head");
  // Anonymous pages are zero, and resident only once touched.
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return fail(Code::kResourceExhausted, "no address space for a KV pool of {} bytes", bytes);
  return std::unique_ptr<KvPool>(new KvPoolCpu(shape, static_cast<float*>(data), bytes));
}

}  // namespace chiasm
