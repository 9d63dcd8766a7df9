// Memory for weights: aligned, and in huge pages where it is large and the system gives them; of std::free.
// Thread contract: a pure function.
#pragma once

#include <cstdint>
#include <cstdlib>

#include <sys/mman.h>

namespace chiasm {

// Null where there is none. Alignment is 64 bytes, or a huge page's.
inline void* huge_memory(std::uint64_t bytes) {
  constexpr std::uint64_t kHuge = 2 << 20;
  void* memory = nullptr;  // aligned_alloc would want a multiple of the alignment
  if (::posix_memalign(&memory, bytes >= kHuge ? kHuge : 64, bytes) != 0) return nullptr;
  if (bytes >= kHuge) ::madvise(memory, bytes, MADV_HUGEPAGE);  // a hint: refusal changes nothing
  return memory;
}

}  // namespace chiasm
