#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "cases.h"
#include "kernels/ops.h"
#include "operands.h"
#include "yardstick.h"

namespace chiasm::bench {
namespace {

constexpr std::int64_t kSide = 2048;              // of the square product: 17 GFLOP
constexpr std::size_t kWords = (1ULL << 30) / 8;  // 1 GiB, many times any L3

// Integers, so that the compiler may use vectors.
std::uint64_t sum_of(const std::uint64_t* p, std::size_t count) {
  std::uint64_t a = 0, b = 0, c = 0, d = 0;
  for (std::size_t i = 0; i < count; i += 32)
    for (std::size_t j = 0; j < 8; ++j) a += p[i + j], b += p[i + 8 + j], c += p[i + 16 + j], d += p[i + 24 + j];
  return a + b + c + d;
}

std::vector<Row> product_ceiling(int threads, int samples) {
  ThreadPool pool(threads);
  const auto ops = make_cpu_ops(pool);
  const Matrix x = random_matrix(kSide, kSide, 1), w = random_matrix(kSide, kSide, 2);
  const auto weight = prepared(*ops, w, DType::kF32);
  Matrix out(kSide, kSide);
  std::vector<std::function<void()>> bodies{[&] { ops->matmul(x.view(), *weight, {}, out.view()); }};
  if (have_yardstick())
    bodies.emplace_back([&] { yardstick_matmul(threads, kSide, kSide, kSide, x.data(), w.data(), out.data()); });
  const auto times = alternate(samples, 200, bodies);
  std::vector<Row> rows;
  for (std::size_t i = 0; i < times.size(); ++i) {
    Row row{.group = "ceilings", .name = i == 0 ? "f32 product 2048^3, ours" : "f32 product 2048^3, oneDNN"};
    row.threads = threads;
    row.ms = times[i];
    row.gflop = 2e-9 * kSide * kSide * kSide;
    rows.push_back(row);
  }
  return rows;
}

std::vector<Row> memory_ceiling(int threads, int samples) {
  ThreadPool pool(threads);
  std::vector<std::uint64_t> words(kWords, 1);
  constexpr std::int64_t kParts = 256;
  std::vector<std::uint64_t> sums(kParts);
  Row row{.group = "ceilings", .name = "reading memory"};
  row.threads = threads;
  row.gbytes = static_cast<double>(kWords) * 8e-9;
  row.ms = sample(samples, true, [&] {
    pool.parallel_for(kParts, [&](std::int64_t i, int) {
      sums[static_cast<std::size_t>(i)] =
          sum_of(words.data() + static_cast<std::size_t>(i) * (kWords / kParts), kWords / kParts);
    });
  });
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  if (total != kWords) row.note = "the sum is wrong";
  return {row};
}

}  // namespace

std::vector<Row> measure_ceilings(const Settings& settings) {
  std::vector<Row> rows;
  for (const int threads : thread_counts(settings.threads)) {
    for (const Row& row : in_process([&] { return product_ceiling(threads, settings.samples); })) rows.push_back(row);
    for (const Row& row : in_process([&] { return memory_ceiling(threads, settings.samples); })) rows.push_back(row);
  }
  return rows;
}

}  // namespace chiasm::bench
