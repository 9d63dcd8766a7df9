// What must hold for any input: otherwise the fuzzer stops and keeps the input.
#pragma once

#include <cstdlib>

namespace chiasm::fuzz {

inline void expect(bool condition) {
  if (!condition) std::abort();
}

}  // namespace chiasm::fuzz
