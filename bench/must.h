// The benchmarks' own inputs: an error ends the program, with its message.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>

#include "base/result.h"

namespace chiasm::bench {

inline void must(const Status& status) {
  if (status) return;
  fmt::print(stderr, "bench: {}\n", status.error().message);
  std::_Exit(1);
}
template <class T>
T must(Result<T> result) {
  if (!result) must(Status(tl::unexpected(result.error())));
  return *std::move(result);
}

}  // namespace chiasm::bench
