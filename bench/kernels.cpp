#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/thread_pool.h"
#include "cases.h"
#include "kernels/ops.h"
#include "operands.h"
#include "yardstick.h"

namespace chiasm::bench {
namespace {

struct Shape {
  const char* what;
  std::int64_t m, n, k;
};

// out [m, n] = x [m, k] * w [n, k]^T of the 2B.
constexpr Shape kShapes[] = {
    {"vision qkv", 1024, 3840, 1280},    {"vision proj", 1024, 1280, 1280}, {"vision fc1", 1024, 5120, 1280},
    {"vision fc2", 1024, 1280, 5120},    {"prefill qkv", 272, 2048, 1536},  {"prefill o", 272, 1536, 1536},
    {"prefill gate", 272, 8960, 1536},   {"prefill down", 272, 1536, 8960}, {"1 row, gate", 1, 8960, 1536},
    {"4 rows, gate", 4, 8960, 1536},     {"8 rows, gate", 8, 8960, 1536},   {"14 rows, gate", 14, 8960, 1536},
    {"16 rows, gate", 16, 8960, 1536},   {"64 rows, gate", 64, 8960, 1536}, {"1 row, down", 1, 1536, 8960},
    {"1 row, lm_head", 1, 151936, 1536},
};

std::vector<Row> products(const Shape& shape, int threads, int rounds) {
  ThreadPool pool(threads);
  const auto ops = make_cpu_ops(pool);
  const Matrix x = random_matrix(shape.m, shape.k, 1), w = random_matrix(shape.n, shape.k, 2);
  const auto bf16 = prepared(*ops, w, DType::kBF16), f32 = prepared(*ops, w, DType::kF32);
  const auto int8 = prepared(*ops, w, Precision::kInt8), int4 = prepared(*ops, w, Precision::kInt4);
  Matrix out(shape.m, shape.n);
  std::vector<std::function<void()>> bodies;
  for (const Weight* weight : {bf16.get(), f32.get(), int8.get(), int4.get()})
    bodies.emplace_back([&, weight] { ops->matmul(x.view(), *weight, {}, out.view()); });
  const double weights = static_cast<double>(shape.n * shape.k);
  const double bytes[] = {2 * weights, 4 * weights, static_cast<double>(int8->bytes()),
                          static_cast<double>(int4->bytes()), 4 * weights};
  if (have_yardstick())
    bodies.emplace_back([&] { yardstick_matmul(threads, shape.m, shape.n, shape.k, x.data(), w.data(), out.data()); });
  const auto times = alternate(rounds, 20, bodies);
  const char* names[] = {"ours, bf16 weights", "ours, f32 weights", "ours, int8", "ours, int4", "oneDNN sgemm"};
  std::vector<Row> rows;
  for (std::size_t i = 0; i < times.size(); ++i) {
    Row row{.group = "products",
            .name = fmt::format("{} {}x{}x{}: {}", shape.what, shape.m, shape.n, shape.k, names[i])};
    row.threads = threads;
    row.ms = times[i];
    row.gflop = 2e-9 * static_cast<double>(shape.m * shape.n * shape.k);
    row.gbytes = 1e-9 * (bytes[i] + static_cast<double>(4 * shape.m * (shape.n + shape.k)));
    if (have_yardstick()) row.figures = {{"oneDNN's time / ours", median(times.back()) / median(times[i])}};
    rows.push_back(row);
  }
  return rows;
}

std::vector<Row> attention(std::int64_t patches, int threads, int samples) {
  constexpr std::int64_t kHeads = 16, kHeadDim = 80, kWidth = kHeads * kHeadDim;
  ThreadPool pool(threads);
  const auto ops = make_cpu_ops(pool);
  const Matrix qkv = random_matrix(patches, 3 * kWidth, 3);
  Matrix out(patches, kWidth);
  const std::int64_t ends[] = {0, patches};
  const Segments segments(ends);
  Row row{.group = "attention", .name = fmt::format("{} patches, 16 heads of 80", patches)};
  row.threads = threads;
  row.gflop = 4e-9 * static_cast<double>(patches * patches * kWidth);
  const ConstMatrixView all = qkv.view();
  row.ms = sample(samples, true, [&] {
    ops->attention(all.col_range(0, kWidth), all.col_range(kWidth, kWidth), all.col_range(2 * kWidth, kWidth), kHeads,
                   0.1F, segments, out.view());
  });
  return {row};
}

// Operands larger than any cache: what counts is memory.
std::vector<Row> rowwise(int threads, int samples) {
  constexpr std::int64_t kRows = 16384, kWidth = 2560, kHeads = 32, kHalf = 40;
  ThreadPool pool(threads);
  const auto ops = make_cpu_ops(pool);
  Matrix x = random_matrix(kRows, kWidth, 4), y = random_matrix(kRows, kWidth, 5), out(kRows, kWidth);
  const Matrix weight = random_matrix(1, kWidth, 6), cos = random_matrix(kRows, kHalf, 7);
  std::vector<Row> rows;
  const auto add = [&](const char* name, double matrices, const std::function<void()>& body) {
    Row row{.group = "rowwise", .name = fmt::format("{}, {} x {}", name, kRows, kWidth)};
    row.threads = threads;
    row.gbytes = matrices * 4e-9 * static_cast<double>(kRows * kWidth);
    row.ms = sample(samples, true, body);
    rows.push_back(row);
  };
  add("layer_norm", 2, [&] { ops->layer_norm(x.view(), weight.data(), weight.data(), 1e-6F, out.view()); });
  add("rms_norm", 2, [&] { ops->rms_norm(x.view(), weight.data(), 1e-6F, out.view()); });
  add("silu_mul", 3, [&] { ops->silu_mul(x.view(), y.view(), out.view()); });
  add("rope", 2, [&] { ops->rope(out.view(), kHeads, {cos.view(), cos.view()}); });
  return rows;
}

// Rows 0 .. m of one product, computed with m rows and with all.
std::vector<Row> row_contract(int threads) {
  constexpr std::int64_t kAll = 1024, kN = 1280, kK = 1280;
  ThreadPool pool(threads);
  const auto ops = make_cpu_ops(pool);
  const Matrix x = random_matrix(kAll, kK, 8), w = random_matrix(kN, kK, 9);
  const auto weight = prepared(*ops, w, DType::kF32);
  Matrix all(kAll, kN), some(kAll, kN);
  std::vector<Row> rows;
  for (const bool ours : {true, false}) {
    if (!ours && !have_yardstick()) continue;
    const auto run = [&](std::int64_t m, Matrix& out) {
      if (ours) {
        ops->matmul(x.view().row_range(0, m), *weight, {}, out.view().row_range(0, m));
      } else {
        yardstick_matmul(threads, m, kN, kK, x.data(), w.data(), out.data());
      }
    };
    run(kAll, all);
    for (const std::int64_t m : {1, 2, 4, 8, 16, 48, 64, 100, 272, 512}) {
      run(m, some);
      std::int64_t differ = 0;
      double largest = 0;
      for (std::int64_t i = 0; i < m * kN; ++i) {
        // Bits are what is compared here. NOLINTNEXTLINE(bugprone-suspicious-memory-comparison)
        differ += std::memcmp(all.data() + i, some.data() + i, sizeof(float)) != 0 ? 1 : 0;
        largest = std::max(largest, static_cast<double>(std::abs(all.data()[i] - some.data()[i])));
      }
      Row row{.group = "row contract",
              .name = fmt::format("{}: {} rows alone and among {}", ours ? "ours" : "oneDNN", m, kAll)};
      row.threads = threads;
      row.figures = {{"values", static_cast<double>(m * kN)},
                     {"values that differ", static_cast<double>(differ)},
                     {"largest difference", largest}};
      rows.push_back(row);
    }
  }
  return rows;
}

void append(std::vector<Row>& to, const std::vector<Row>& rows) { to.insert(to.end(), rows.begin(), rows.end()); }

}  // namespace

std::vector<Row> measure_kernels(const Settings& settings) {
  std::vector<Row> rows;
  for (const int threads : thread_counts(settings.threads)) {
    for (const Shape& shape : kShapes)
      append(rows, in_process([&] { return products(shape, threads, settings.samples + 2); }));
    for (const std::int64_t patches : {1024, 4096})
      append(rows, in_process([&] { return attention(patches, threads, settings.samples); }));
    append(rows, in_process([&] { return rowwise(threads, settings.samples); }));
  }
  return rows;
}

std::vector<Row> measure_row_contract(const Settings& settings) {
  std::vector<Row> rows;
  for (const int threads : thread_counts(settings.threads))
    append(rows, in_process([&] { return row_contract(threads); }));
  return rows;
}

}  // namespace chiasm::bench
