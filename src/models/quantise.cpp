// `chiasm quantize`: a checkpoint folder whose matrices are integers.
#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/thread_pool.h"
#include "models/checkpoint.h"
#include "models/matrix_precision.h"
#include "models/new_folder.h"
#include "models/vision_digest_file.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kQuantisedShard = 512ULL << 20;  // of results, which are in memory until they are written

// A tensor of the new folder, and its scales where it is a matrix in integers.
struct Written {
  std::string name;
  TensorView view;
  std::vector<std::byte> values, scales;
  Shape values_shape, scales_shape;
};

Result<Written> rounded(std::string name, const TensorView& view, Precision precision, ThreadPool& threads) {
  Written out{.name = std::move(name), .view = view};
  if (precision == Precision::kExact) return out;
  const IntegerFormat format = integer_format(precision);
  ASSIGN_OR_RETURN(const std::int64_t count, element_count(view.shape));
  const std::int64_t rows = view.shape[0], depth = count / rows;
  const std::int64_t row_bytes = format.row_bytes(depth), groups = format.groups(depth);
  out.values_shape = {rows, row_bytes};
  out.scales_shape = {rows, groups};
  out.values.resize(static_cast<std::size_t>(rows * row_bytes));
  out.scales.resize(static_cast<std::size_t>(rows * groups * 2));
  constexpr std::int64_t kRows = 16;  // a task
  threads.parallel_for((rows + kRows - 1) / kRows, [&](std::int64_t task, int) {
    std::vector<float> wide(static_cast<std::size_t>(depth));
    std::vector<std::uint16_t> scales(static_cast<std::size_t>(groups));
    for (std::int64_t i = task * kRows; i < std::min(rows, (task + 1) * kRows); ++i) {
      for (std::int64_t k = 0; k < depth; ++k) wide[static_cast<std::size_t>(k)] = element_as_f32(view, i * depth + k);
      quantise_row(wide.data(), depth, format, reinterpret_cast<std::uint8_t*>(out.values.data() + i * row_bytes),
                   scales.data());
      std::memcpy(out.scales.data() + i * groups * 2, scales.data(), scales.size() * 2);
    }
  });
  return out;
}

// Shards with the hub's names; how many there are is known at the end.
class ShardWriter {
 public:
  explicit ShardWriter(fs::path dir) : dir_(std::move(dir)) {}

  Status write(std::vector<Written>& tensors) {
    if (tensors.empty()) return {};
    std::vector<NamedTensor> named;
    for (const Written& tensor : tensors) {
      if (tensor.values.empty()) {
        named.push_back({tensor.name, tensor.view});
        total_ += tensor.view.bytes.size();
        continue;
      }
      // Scales first: two bytes want an even address, integers any.
      named.push_back({tensor.name + "_scales", {DType::kBF16, tensor.scales_shape, tensor.scales}});
      named.push_back({tensor.name, {DType::kU8, tensor.values_shape, tensor.values}});
      total_ += tensor.values.size() + tensor.scales.size();
    }
    // Tensors of wide elements first, so that each begins at a multiple of its element.
    std::ranges::stable_sort(named, std::greater(), [](const NamedTensor& t) { return size_of(t.tensor.dtype); });
    const std::string file = fmt::format("model-{:05}.safetensors", ++shards_);
    for (const NamedTensor& tensor : named) weight_map_[tensor.name] = file;
    RETURN_IF_ERROR(write_safetensors(dir_ / file, named, {{"format", "pt"}}));
    tensors.clear();
    return {};
  }

  Status write_index() {
    const nlohmann::ordered_json index{{"metadata", {{"total_size", total_}}}, {"weight_map", weight_map_}};
    const std::string text = index.dump(2) + "\n";
    return publish_file(dir_ / "model.safetensors.index.json", {std::as_bytes(std::span(text))});
  }

 private:
  fs::path dir_;
  std::uint64_t total_ = 0;
  int shards_ = 0;
  nlohmann::json weight_map_ = nlohmann::json::object();
};

// What a folder holds; kWhole where both.
Result<Role> role_of(const fs::path& dir) {
  ASSIGN_OR_RETURN(const std::vector<WeightFile> files, find_weight_files(dir));
  bool vision = false, language = false;
  for (const WeightFile& file : files) {
    vision |= file.has_vision;
    language |= file.has_language;
  }
  return vision && language ? Role::kWhole : vision ? Role::kVision : Role::kLanguage;
}

}  // namespace

Precision precision_for(std::string_view name, const Shape& shape, Precision vision, Precision language) {
  if (shape.size() < 2) return Precision::kExact;  // norms, biases
  if (part_of(name) == Part::kVision) return vision;
  const bool table = name == "model.embed_tokens.weight" || name == "lm_head.weight";
  if (name.ends_with("mlp.down_proj.weight")) return down_precision(language);
  return table ? embedding_precision(language) : language;
}

Status quantise_checkpoint(const fs::path& dir, const fs::path& given, Precision vision, Precision language,
                           const std::function<void(std::uint64_t, std::uint64_t)>& progress,
                           const std::atomic<bool>* stop) {
  for (const Precision precision : {vision, language})
    if (precision != Precision::kExact && !is_integer(precision))
      return fail(
          Code::kUnimplemented,
          "matrices in {} are not kept in files: choose int8 or int4 here, or --precision {} with the checkpoint "
          "as it is, which rounds while loading",
          precision_name(precision), precision_name(precision));
  ASSIGN_OR_RETURN(const fs::path out, checked_new_folder(given));
  ASSIGN_OR_RETURN(const Role role, role_of(dir));
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir, role));
  for (const Role side : {Role::kVision, Role::kLanguage})
    if (checkpoint.precision(side) != Precision::kExact)
      return fail(Code::kFailedPrecondition, "{}: stored as {} already; name the checkpoint that it was made of",
                  dir.string(), precision_name(checkpoint.precision(side)));
  std::uint64_t total = 0, done = 0;
  for (const std::string& name : checkpoint.names()) {
    ASSIGN_OR_RETURN(const TensorView view, checkpoint.tensor(name));
    total += view.bytes.size();
  }
  ASSIGN_OR_RETURN(const Digest exact, vision_digest_of(dir));
  ASSIGN_OR_RETURN(NewFolder folder, NewFolder::make(out));
  const auto work = [&]() -> Status {
    RETURN_IF_ERROR(copy_files(dir, folder.path(), language_side_files()));
    RETURN_IF_ERROR(copy_files(dir, folder.path(), vision_side_files()));
    // Half a checkpoint names the encoder it belongs to, which is another folder's matter.
    RETURN_IF_ERROR(write_vision_digest_file(folder.path() / kVisionDigestFile,
                                             role == Role::kLanguage ? exact : vision_digest_in(exact, vision)));
    ThreadPool threads;
    ShardWriter writer(folder.path());
    std::vector<Written> shard;
    std::uint64_t held = 0;
    for (const std::string& name : checkpoint.names()) {
      if (stop != nullptr && stop->load()) return fail(Code::kCancelled, "stopped");
      ASSIGN_OR_RETURN(const TensorView view, checkpoint.tensor(name));
      ASSIGN_OR_RETURN(Written tensor, rounded(name, view, precision_for(name, view.shape, vision, language), threads));
      if (!tensor.values.empty()) checkpoint.release(name);
      held += tensor.values.size() + tensor.scales.size();
      shard.push_back(std::move(tensor));
      if (held >= kQuantisedShard) {
        RETURN_IF_ERROR(writer.write(shard));
        held = 0;
      }
      done += view.bytes.size();
      if (progress) progress(done, total);
    }
    RETURN_IF_ERROR(writer.write(shard));
    return writer.write_index();
  };
  if (auto status = work(); !status) return folder.abandon(std::move(status).error());
  if (auto status = folder.publish(out); !status) return folder.abandon(std::move(status).error());
  return {};
}

}  // namespace chiasm
