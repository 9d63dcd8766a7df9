#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/file.h"
#include "base/thread_pool.h"
#include "cases.h"
#include "conversation.h"
#include "encoder/encoder.h"
#include "image/probe.h"
#include "kernels/ops.h"
#include "models/language_model.h"
#include "models/vision_model.h"
#include "operands.h"
#include "steps.h"
#include "work.h"

namespace chiasm::bench {
namespace {

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

PreprocessorConfig preprocessor_of(const Model& model) {
  PreprocessorConfig out = must(load_preprocessor_config(model.dir));
  if (model.side > 0) out.min_pixels = out.max_pixels = model.side * model.side;
  return out;
}

std::vector<Row> vision_case(const Model& model, const Settings& settings) {
  ThreadPool threads(settings.threads);
  const double before = resident();
  const Stopwatch watch;
  const auto ops = make_cpu_ops(threads);
  std::unique_ptr<const VisionModel> vision;
  ModelConfig config;
  {
    const Checkpoint checkpoint = must(Checkpoint::open(model.dir, Role::kVision));
    config = checkpoint.config();
    vision = must(load_vision_model(checkpoint, *ops, vision_precision(settings.precision)));
  }
  const std::string group = "vision, " + label(model, settings.precision);
  const auto row = [&](std::string name, std::vector<double> ms) {
    Row out{.group = group, .name = std::move(name)};
    out.threads = threads.size();
    out.ms = std::move(ms);
    return out;
  };
  Row load = row("load", {watch.ms()});
  load.gbytes = static_cast<double>(vision->weight_bytes()) * 1e-9;
  load.figures = {{"weights MiB", mib(vision->weight_bytes())}, {"peak MiB", peak_resident()}};
  load.note = "one sample; the file may be in the page cache";

  const auto layout = must(make_layout(config));
  const PreprocessorConfig preprocessor = preprocessor_of(model);
  const Encoder encoder(*vision, *layout, preprocessor, threads);
  const std::vector<std::byte> bytes = must(read_file(settings.picture, 1 << 28));
  const std::span<const std::byte> file(bytes);
  const ImageInfo info = must(probe(file));
  const PicturePlan plan = must(encoder.plan({&file, 1}));
  std::vector<double> decode, resize, patchify, encode;
  double peak = 0;
  for (int i = 0; i <= settings.samples; ++i) {
    const EncodedPicture picture = must(encoder.encode({&file, 1}));
    if (i == 0) {
      peak = peak_resident();
      continue;
    }
    decode.push_back(picture.times.decode_ms);
    resize.push_back(picture.times.resize_ms);
    patchify.push_back(picture.times.patchify_ms);
    encode.push_back(picture.times.encode_ms);
  }
  const double stored = d(info.size.width) * d(info.size.height), target = d(plan.target.height) * d(plan.target.width);
  std::vector<Row> rows{load};
  rows.push_back(
      row(fmt::format("decode {} x {} {}", info.size.width, info.size.height, format_name(info.format)), decode));
  rows.back().gbytes = 1e-9 * (3 * stored + static_cast<double>(bytes.size()));
  rows.back().unit = "megapixels/s", rows.back().units = stored * 1e-6;
  rows.push_back(row(fmt::format("resize to {} x {}", plan.target.width, plan.target.height), resize));
  rows.back().gbytes = 3e-9 * (stored + target);
  rows.back().unit = "megapixels/s read", rows.back().units = stored * 1e-6;
  rows.push_back(row(fmt::format("patchify {} patches", plan.grid.patches()), patchify));
  rows.back().gbytes = 1e-9 * (3 * target + 4 * d(plan.grid.patches()) * d(config.vision.patch_width()));
  rows.push_back(row(fmt::format("encode {} patches to {} rows", plan.grid.patches(), plan.rows), encode));
  rows.back().gflop = vision_gflop(config.vision, plan.grid.patches(), plan.grid.h * plan.grid.w);
  rows.back().gbytes = static_cast<double>(vision->weight_bytes()) * 1e-9;
  rows.back().figures = {{"peak MiB", peak},
                         {"above weights MiB", peak - mib(vision->weight_bytes())},
                         {"of it before loading MiB", before}};
  return rows;
}

std::vector<Row> language_case(const Model& model, const Settings& settings) {
  constexpr std::int64_t kNewTokens = 10;
  ThreadPool threads(settings.threads);
  const Conversation talk(model, settings.precision, threads);
  const std::string group = "language, " + label(model, settings.precision);
  const auto row = [&](std::string name) {
    Row out{.group = group, .name = std::move(name)};
    out.threads = threads.size();
    return out;
  };
  Row load = row("load");
  load.ms = {talk.load_ms};
  load.gbytes = static_cast<double>(talk.language->weight_bytes()) * 1e-9;
  load.figures = {
      {"weights MiB", mib(talk.language->weight_bytes())}, {"resident MiB", resident()}, {"peak MiB", peak_resident()}};
  load.note = "one sample; the file may be in the page cache";

  // One question, then the same with a second one about the picture beside it: what the second costs by itself is its
  // own few tokens of prefill, and its rows in the steps of the first.
  std::vector<GenerationRequest> one{talk.request("How many houses are there?", kNewTokens)};
  std::vector<GenerationRequest> two{one.front(), talk.request("What is the weather?", kNewTokens)};
  const std::int64_t tokens = one.front().prompt.size();
  Row prefill = row(fmt::format("prefill {} tokens", tokens)), decode = row("decode, a token");
  Row alone = row(fmt::format("question 1, {} new tokens", kNewTokens));
  Row second = row("question 1 and 2 together"), extra = row("question 2, its own prefill");
  std::int64_t cached = 0, own = 0;
  for (int i = 0; i <= settings.samples; ++i) {
    // Nothing that an earlier sample left in the prefix cache may be found.
    one.front().cache_salt = fmt::format("one {}", i);
    for (GenerationRequest& request : two) request.cache_salt = fmt::format("two {}", i);
    Stopwatch watch;
    const Completion answer = must(talk.engine->run(one)).front();
    const double one_ms = watch.lap();
    const std::vector<Completion> both = must(talk.engine->run(two));
    const double two_ms = watch.ms();
    cached = both[1].cached_tokens, own = both[1].prompt_tokens - cached;
    if (i == 0) continue;  // the first one wakes the memory of the pool
    prefill.ms.push_back(answer.prefill_ms);
    decode.ms.push_back(answer.decode_ms / static_cast<double>(kNewTokens - 1));
    alone.ms.push_back(one_ms);
    second.ms.push_back(two_ms);
    extra.ms.push_back(both[1].prefill_ms);
  }
  prefill.gflop = language_gflop(talk.config.text, tokens, 0);
  prefill.gbytes = decode_gbytes(talk.config.text, 0);
  prefill.unit = "tokens/s", prefill.units = d(tokens);
  decode.gflop = language_gflop(talk.config.text, 1, tokens);
  decode.gbytes = decode_gbytes(talk.config.text, tokens + kNewTokens / 2);
  decode.unit = "tokens/s", decode.units = 1;
  extra.gflop = language_gflop(talk.config.text, own, cached);
  extra.gbytes = decode_gbytes(talk.config.text, cached);
  extra.figures = {{"tokens reused", d(cached)}, {"own tokens", d(own)}};
  extra.note = "a step it shares with what question 1 has left";
  second.figures = {{"question 2 adds ms", second.median_ms() - alone.median_ms()}};
  alone.figures = {{"peak MiB", peak_resident()}};
  return {load, prefill, decode, alone, second, extra};
}

std::vector<Row> patches_case(const Model& model, std::int64_t patches, const Settings& settings) {
  ThreadPool threads(settings.threads);
  const auto ops = make_cpu_ops(threads);
  std::unique_ptr<const VisionModel> vision;
  {
    const Checkpoint checkpoint = must(Checkpoint::open(model.dir, Role::kVision));
    vision = must(load_vision_model(checkpoint, *ops, vision_precision(settings.precision)));
  }
  const VisionConfig& config = vision->config();
  const Grid grid = grid_for(patches, config.spatial_merge_size);
  const Matrix pixels = random_matrix(grid.patches(), config.patch_width(), 12);
  const double loaded = resident();
  Row row{.group = fmt::format("patches, {} ({} vision layers)", label(model, settings.precision), config.depth),
          .name = fmt::format("encode {} x {} = {} patches", grid.h, grid.w, grid.patches())};
  row.threads = threads.size();
  const int samples = patches <= 1024 ? settings.samples : patches <= 4096 ? std::min(3, settings.samples) : 1;
  row.ms = sample(samples, false, [&] { must(vision->encode(pixels.view(), {&grid, 1})); });
  row.gflop = vision_gflop(config, patches, patches);
  row.gbytes = static_cast<double>(vision->weight_bytes()) * 1e-9;
  const double above = peak_resident() - loaded;
  row.figures = {
      {"weights MiB", mib(vision->weight_bytes())},
      {"peak MiB", peak_resident()},
      {"for this MiB", above},
      {"KiB a patch", above * 1024 / d(patches)},
      {"a score matrix of all heads would be MiB", d(config.num_heads * patches) * d(patches) * 4 / (1 << 20)}};
  if (samples < 5) row.note = fmt::format("{} sample{}", samples, samples == 1 ? "" : "s");
  return {row};
}

}  // namespace

std::vector<Row> measure_vision(const Model& model, const Settings& settings) {
  return in_process([&] { return vision_case(model, settings); });
}

std::vector<Row> measure_language(const Model& model, const Settings& settings) {
  return in_process([&] { return language_case(model, settings); });
}

std::vector<Row> measure_patches(const Model& model, const Settings& settings) {
  std::vector<Row> rows;
  for (const std::int64_t patches : settings.patches)
    for (const Row& row : in_process([&] { return patches_case(model, patches, settings); })) rows.push_back(row);
  return rows;
}

}  // namespace chiasm::bench
