// oneDNN's f32 matrix product, the yardstick. The only file of the benchmark that includes the library, which the
// programs themselves do not use.
#pragma once

#include <cstdint>

namespace chiasm::bench {

bool have_yardstick();
// out [m, n] = x [m, k] * weight [n, k]^T on `threads` threads.
void yardstick_matmul(int threads, std::int64_t m, std::int64_t n, std::int64_t k, const float* x, const float* weight,
                      float* out);

}  // namespace chiasm::bench
