// The name of a vision encoder: what it is made of, not how its files are cut.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "models/checkpoint.h"
#include "models/file_identity.h"
#include "models/vision_digest_file.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

constexpr std::string_view kFormat = "chiasm.vision_digest/1";
constexpr std::uint64_t kMaxDigestFile = 64 << 10;

Digest config_digest(const VisionConfig& config) {
  Hasher hasher;
  hasher.add("depth", config.depth).add("embed_dim", config.embed_dim).add("hidden_size", config.hidden_size);
  hasher.add("num_heads", config.num_heads).add("intermediate_size", config.intermediate_size);
  hasher.add("in_channels", config.in_channels).add("patch_size", config.patch_size);
  hasher.add("spatial_merge_size", config.spatial_merge_size);
  hasher.add("temporal_patch_size", config.temporal_patch_size).add("hidden_act", config.hidden_act);
  hasher.add("window_size", config.window_size);
  for (const std::int64_t block : config.fullatt_block_indexes) hasher.add("fullatt_block_index", block);
  return hasher.finish();
}

bool is_set(const std::atomic<bool>* stop) { return stop != nullptr && stop->load(); }

// H of a tensor's bytes; its pages leave memory as it goes. Means nothing once `stop` is set.
Digest bytes_digest(const Checkpoint& checkpoint, std::string_view name, std::span<const std::byte> bytes,
                    const std::atomic<bool>* stop) {
  constexpr std::size_t kPart = 4U << 20;
  Hasher hasher;
  for (std::size_t begin = 0; begin < bytes.size() && !is_set(stop); begin += kPart) {
    const auto part = bytes.subspan(begin, std::min(kPart, bytes.size() - begin));
    hasher.update(part);
    checkpoint.release(name, part);
  }
  return hasher.finish();
}

Result<Digest> cache_key(const std::filesystem::path& dir, const std::vector<WeightFile>& files) {
  std::vector<std::filesystem::path> paths;
  for (const WeightFile& file : files)
    if (file.has_vision) paths.push_back(file.path);
  Hasher hasher;
  hasher.add("format", kFormat);
  RETURN_IF_ERROR(add_identity(hasher, dir, paths));
  return hasher.finish();
}

// A flipped digit would still be a digest, of an encoder that nobody has.
std::string checksum_text(std::string_view hex) {
  return fmt::format("{:016x}", checksum_of(std::as_bytes(std::span(hex))));
}

std::filesystem::path default_cache() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return std::filesystem::path(cache) / "chiasm" / "digests";
  const char* home = std::getenv("HOME");
  if (home != nullptr && home[0] == '/') return std::filesystem::path(home) / ".cache" / "chiasm" / "digests";
  return {};
}

}  // namespace

Result<Digest> compute_vision_digest(const Checkpoint& checkpoint, const std::atomic<bool>* stop) {
  if (checkpoint.role() == Role::kLanguage)
    return fail(Code::kInvalidArgument, "{}: opened for language, its vision tensors are not there",
                checkpoint.dir().string());
  struct Entry {
    std::string name;
    TensorView view;
    Digest digest;
  };
  std::vector<Entry> entries;
  std::uint64_t total = 0;
  for (auto& [name, shape] : expected_vision_tensors(checkpoint.config().vision)) {
    ASSIGN_OR_RETURN(TensorView view, checkpoint.tensor(name));
    total += view.bytes.size();
    entries.push_back({std::move(name), std::move(view), {}});
  }
  // Large tensors first, so that no thread is left alone with one at the end.
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.view.bytes.size() > b.view.bytes.size(); });
  ThreadPool pool(total > (32U << 20) ? 0 : 1);
  pool.parallel_for(static_cast<std::int64_t>(entries.size()), [&](std::int64_t i, int) {
    Entry& entry = entries[static_cast<std::size_t>(i)];
    entry.digest = bytes_digest(checkpoint, entry.name, entry.view.bytes, stop);
  });
  if (is_set(stop)) return fail(Code::kCancelled, "stopped");
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });

  Hasher hasher;
  hasher.add("format", kFormat).add("vision_config", config_digest(checkpoint.config().vision));
  for (const Entry& entry : entries) {
    hasher.add("name", entry.name).add("dtype", dtype_name(entry.view.dtype));
    hasher.add("dimensions", static_cast<std::int64_t>(entry.view.shape.size()));
    for (const std::int64_t size : entry.view.shape) hasher.add("size", size);
    hasher.add("bytes", entry.digest);
  }
  return hasher.finish();
}

Digest vision_digest_in(const Digest& exact, Precision precision) {
  if (precision == Precision::kExact) return exact;
  // The version is of the rules in precision.h.
  return Hasher()
      .add("format", "chiasm.quantised_vision/1")
      .add("vision_digest", exact)
      .add("precision", precision_name(precision))
      .finish();
}

Status write_vision_digest_file(const std::filesystem::path& path, const Digest& digest) {
  const std::string hex = digest.hex();
  const nlohmann::ordered_json json{{"format", kFormat}, {"vision_digest", hex}, {"xxh3", checksum_text(hex)}};
  const std::string text = json.dump(2) + "\n";
  return publish_file(path, {std::as_bytes(std::span(text))});
}

Result<Digest> read_vision_digest_file(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const Json json, Json::load(path.string(), kMaxDigestFile));
  ASSIGN_OR_RETURN(const JsonValue format, json.root().at("format"));
  ASSIGN_OR_RETURN(const std::string_view format_text, format.string());
  if (format_text != kFormat)
    return fail(Code::kInvalidArgument, "{}: expected '{}', got '{}'", format.where(), kFormat, format_text);
  ASSIGN_OR_RETURN(const JsonValue value, json.root().at("vision_digest"));
  ASSIGN_OR_RETURN(const std::string_view hex, value.string());
  const auto digest = Digest::from_hex(hex);
  if (!digest) return fail_in(value.where(), digest.error());
  const auto checksum = json.root().find("xxh3");
  const std::string_view stated = checksum ? checksum->string().value_or("") : "";
  if (stated != checksum_text(hex))
    return fail(Code::kDataLoss,
                "{}: this file is damaged: field 'xxh3': expected '{}' for that vision_digest, got '{}': copy it again "
                "from where `chiasm split` wrote it, or split again",
                path.string(), checksum_text(hex), stated);
  return *digest;
}

Result<Digest> vision_digest_as(const std::filesystem::path& dir, std::optional<Precision> asked) {
  ASSIGN_OR_RETURN(const Digest digest, vision_digest_of(dir));
  if (!asked || *asked == Precision::kExact) return digest;
  ASSIGN_OR_RETURN(const std::vector<WeightFile> files, find_weight_files(dir));
  if (std::any_of(files.begin(), files.end(), [](const WeightFile& file) { return file.has_vision; })) {
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir, Role::kVision));
    if (checkpoint.precision(Role::kVision) != Precision::kExact) return digest;
  }
  return vision_digest_in(digest, *asked);
}

Result<Digest> vision_digest_of(const std::filesystem::path& dir) { return vision_digest_of(dir, default_cache()); }

Result<Digest> vision_digest_of(const std::filesystem::path& dir, const std::filesystem::path& cache) {
  ASSIGN_OR_RETURN(const std::vector<WeightFile> files, find_weight_files(dir));
  if (std::none_of(files.begin(), files.end(), [](const WeightFile& file) { return file.has_vision; })) {
    auto carried = read_vision_digest_file(dir / kVisionDigestFile);
    if (!carried && carried.error().code == Code::kNotFound)
      return fail(Code::kNotFound, "{}: holds neither vision tensors nor a {}", dir.string(), kVisionDigestFile);
    return carried;
  }
  ASSIGN_OR_RETURN(const Digest key, cache_key(dir, files));
  const auto entry = cache / (key.hex() + ".json");
  if (!cache.empty())
    if (const auto known = read_vision_digest_file(entry)) return *known;
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir, Role::kVision));
  // Integers are named after the matrices that they were made of.
  ASSIGN_OR_RETURN(const Digest digest, checkpoint.precision(Role::kVision) == Precision::kExact
                                            ? compute_vision_digest(checkpoint)
                                            : read_vision_digest_file(dir / kVisionDigestFile));
  if (!cache.empty()) (void)write_vision_digest_file(entry, digest);
  return digest;
}

}  // namespace chiasm
