#include "yardstick.h"

#include "base/check.h"

#ifdef CHIASM_BENCH_DNNL
#include <dnnl.h>

extern "C" void omp_set_num_threads(int);  // omp.h belongs to a compiler, and clang-tidy's has none
#endif

namespace chiasm::bench {

#ifdef CHIASM_BENCH_DNNL
bool have_yardstick() { return true; }

void yardstick_matmul(int threads, std::int64_t m, std::int64_t n, std::int64_t k, const float* x, const float* weight,
                      float* out) {
  omp_set_num_threads(threads);
  CHECK(dnnl_sgemm('N', 'T', m, n, k, 1.0F, x, k, weight, k, 0.0F, out, n) == dnnl_success);
}
#else
bool have_yardstick() { return false; }
void yardstick_matmul(int, std::int64_t, std::int64_t, std::int64_t, const float*, const float*, float*) {
  CHECK(false);
}
#endif

}  // namespace chiasm::bench
