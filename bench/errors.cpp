// How far rounded matrices are from the exact values: features of the picture, and logits behind them, by the
// checkpoint given.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/file.h"
#include "base/thread_pool.h"
#include "cases.h"
#include "encoder/encoder.h"
#include "kernels/devices.h"
#include "models/language_model.h"
#include "models/vision_model.h"
#include "must.h"

namespace chiasm::bench {
namespace {

constexpr std::int64_t kBefore = 16, kBehind = 16;  // made-up tokens around the picture; logits are those of the latter

double relative_l2(const Matrix& got, const Matrix& want) {
  double difference = 0, size = 0;
  for (std::int64_t i = 0; i < want.size(); ++i) {
    const double w = static_cast<double>(want.data()[i]), e = static_cast<double>(got.data()[i]) - w;
    difference += e * e;
    size += w * w;
  }
  return std::sqrt(difference / size);
}

double same_choices(const Matrix& got, const Matrix& want) {
  double same = 0;
  for (std::int64_t i = 0; i < want.rows(); ++i) {
    const auto best = [&](const Matrix& m) { return std::max_element(m.row(i), m.row(i) + m.cols()) - m.row(i); };
    same += best(got) == best(want) ? 1 : 0;
  }
  return same;
}

Matrix features_in(const Model& model, const Settings& settings, const Ops& ops, Precision precision,
                   ThreadPool& threads) {
  const Checkpoint checkpoint = must(Checkpoint::open(model.dir, Role::kVision));
  const auto vision = must(load_vision_model(checkpoint, ops, precision));
  const auto layout = must(make_layout(checkpoint.config()));
  PreprocessorConfig preprocessor = must(load_preprocessor_config(model.dir));
  if (model.side > 0) preprocessor.min_pixels = preprocessor.max_pixels = model.side * model.side;
  const Encoder encoder(*vision, *layout, preprocessor, threads);
  const std::vector<std::byte> bytes = must(read_file(settings.picture, 1 << 28));
  const std::span<const std::byte> file(bytes);
  return must(encoder.encode({&file, 1})).rows;
}

// Logits [kBehind, vocab_size] behind each of `pictures`.
std::vector<Matrix> logits_in(const Model& model, const Ops& ops, Precision precision,
                              const std::vector<const Matrix*>& pictures) {
  const auto language = must(load_language_model(must(Checkpoint::open(model.dir, Role::kLanguage)), ops, precision));
  std::vector<Matrix> out;
  for (const Matrix* features : pictures) {
    const std::int64_t tokens = kBefore + features->rows() + kBehind, blocks = (tokens + kKvBlock - 1) / kKvBlock;
    const auto pool = must(ops.make_kv_pool(language->kv_shape(blocks)));
    std::vector<std::int32_t> table(static_cast<std::size_t>(blocks)), ids, positions, wanted;
    std::iota(table.begin(), table.end(), 0);
    for (std::int64_t t = 0; t < tokens; ++t) {
      ids.push_back(static_cast<std::int32_t>(t * 7919 % language->config().vocab_size));
      positions.push_back(static_cast<std::int32_t>(t));
      if (t >= tokens - kBehind) wanted.push_back(static_cast<std::int32_t>(t));
    }
    const Splice splice{features->view(), kBefore};
    const SequenceRows rows{table, 0, tokens};
    out.push_back(
        must(language->forward({ids, {positions, positions, positions}, {&splice, 1}, {&rows, 1}, wanted}, *pool)));
  }
  return out;
}

std::vector<Row> errors_case(const Model& model, const Settings& settings) {
  ThreadPool threads(settings.threads);
  const auto ops = must(make_ops(settings.device, threads));
  const bool card = settings.device != "cpu";
  const Matrix features = features_in(model, settings, *ops, Precision::kExact, threads);
  const std::vector<Matrix> exact = logits_in(model, *ops, Precision::kExact, {&features});
  std::map<Precision, Matrix> rounded;  // features, by the encoder's precision
  std::vector<Row> rows;
  for (const Precision precision : {Precision::kInt8, Precision::kInt4, Precision::kFp8}) {
    if (precision == Precision::kFp8 && !card) continue;
    const Precision vision = vision_precision(precision);
    if (!rounded.contains(vision)) rounded[vision] = features_in(model, settings, *ops, vision, threads);
    const std::vector<Matrix> got = logits_in(model, *ops, precision, {&features, &rounded[vision]});
    Row row{.group = "errors, " + label(model, Precision::kExact) + (card ? " on " + settings.device : ""),
            .name = std::string(precision_name(precision))};
    row.threads = threads.size();
    row.figures = {
        {"features, relative L2 in %", 100 * relative_l2(rounded[vision], features)},
        {"logits on exact features, %", 100 * relative_l2(got[0], exact[0])},
        {"logits on its own features, %", 100 * relative_l2(got[1], exact[0])},
        {fmt::format("likeliest tokens as the exact ones', of {}", kBehind), same_choices(got[0], exact[0])}};
    rows.push_back(row);
  }
  return rows;
}

}  // namespace

std::vector<Row> measure_errors(const Model& model, const Settings& settings) {
  return in_process([&] { return errors_case(model, settings); });
}

}  // namespace chiasm::bench
