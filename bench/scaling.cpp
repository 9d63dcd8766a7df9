#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "base/thread_pool.h"
#include "cases.h"
#include "models/language_model.h"
#include "models/vision_model.h"
#include "operands.h"
#include "steps.h"
#include "work.h"

namespace chiasm::bench {
namespace {

constexpr std::int64_t kPatches[] = {256, 1024, 2304, 4096, 9216, 16384};
constexpr std::int64_t kTokens[] = {16, 64, 256, 1024, 4096};
constexpr std::int64_t kContexts[] = {128, 1024, 4096, 8192};
constexpr std::int64_t kSequences[] = {1, 2, 4, 8, 16};
constexpr std::int64_t kStep = 512;  // tokens of a step that fills a context

// Bounded, so that the largest cases do not decide how long the whole takes.
int samples_for(double gflop, int wanted) { return gflop > 1000 ? 1 : gflop > 200 ? std::min(2, wanted) : wanted; }

// `series` is the line of a plot, `x` the place on it.
Row point(const std::string& series, const std::string& unit, std::int64_t x, int threads) {
  Row out{.group = "scaling, " + series, .name = fmt::format("{} {}", x, unit)};
  out.threads = threads;
  out.figures = {{"x", d(x)}};
  return out;
}

std::vector<Row> vision_points(const Model& model, int threads, int samples) {
  ThreadPool pool(threads);
  const auto ops = make_cpu_ops(pool);
  const auto vision = must(load_vision_model(must(Checkpoint::open(model.dir, Role::kVision)), *ops));
  const VisionConfig& config = vision->config();
  std::vector<Row> rows;
  for (const std::int64_t patches : kPatches) {
    const Grid grid = grid_for(patches, config.spatial_merge_size);
    const Matrix pixels = random_matrix(patches, config.patch_width(), 12);
    Row row = point("encode", "patches", patches, threads);
    row.gflop = vision_gflop(config, patches, patches);
    row.gbytes = static_cast<double>(vision->weight_bytes()) * 1e-9;
    const int count = samples_for(row.gflop, samples);
    row.ms = sample(count, count > 2, [&] { must(vision->encode(pixels.view(), {&grid, 1})); });
    row.figures.emplace_back("layers", d(config.depth));
    rows.push_back(row);
  }
  return rows;
}

std::vector<Row> language_points(const Model& model, int threads, int samples) {
  ThreadPool pool(threads);
  const auto ops = make_cpu_ops(pool);
  const auto language = must(load_language_model(must(Checkpoint::open(model.dir, Role::kLanguage)), *ops));
  const TextConfig& config = language->config();
  std::vector<Row> rows;
  for (const std::int64_t tokens : kTokens) {
    Steps steps(*language, *ops, 1, 0, tokens);
    Row row = point("prefill", "tokens", tokens, threads);
    row.gflop = language_gflop(config, tokens, 0);
    row.gbytes = decode_gbytes(config, 0);
    row.ms = sample(samples_for(row.gflop, samples), row.gflop < 1000, [&] { steps.run(0, tokens, true); });
    rows.push_back(row);
  }
  constexpr std::int64_t kLongest = kContexts[std::size(kContexts) - 1];
  Steps long_steps(*language, *ops, 1, kLongest, 1);
  long_steps.fill(kLongest, kStep);  // filled once: a shorter context is the beginning of the longest
  for (const std::int64_t context : kContexts) {
    Row row = point("decode, a token", "tokens of context", context, threads);
    row.gflop = language_gflop(config, 1, context);
    row.gbytes = decode_gbytes(config, context);
    row.ms = sample(4 * samples, true, [&] { long_steps.run(context, 1, true); });
    rows.push_back(row);
  }
  constexpr std::int64_t kContext = 256;
  for (const std::int64_t sequences : kSequences) {
    Steps steps(*language, *ops, sequences, kContext, 1);
    steps.fill(kContext, kContext);
    Row row = point("decode, a step", fmt::format("sequences of {} tokens", kContext), sequences, threads);
    row.gflop = d(sequences) * language_gflop(config, 1, kContext);
    row.gbytes = decode_gbytes(config, sequences * kContext);
    row.ms = sample(4 * samples, true, [&] { steps.run(kContext, 1, true); });
    rows.push_back(row);
  }
  for (Row& row : rows) row.figures.emplace_back("layers", d(config.num_hidden_layers));
  return rows;
}

}  // namespace

std::vector<Row> measure_scaling(const Model& model, const Settings& settings) {
  std::vector<Row> rows;
  const auto add = [&](const std::function<std::vector<Row>()>& points) {
    for (const Row& row : in_process(points)) rows.push_back(row);
  };
  for (const int threads : thread_counts(settings.threads))
    add([&] { return vision_points(model, threads, settings.samples); });
  for (const int threads : thread_counts(settings.threads))
    add([&] { return language_points(model, threads, settings.samples); });
  // A series' points stand together in the report, whatever their threads.
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.group < b.group; });
  return rows;
}

}  // namespace chiasm::bench
