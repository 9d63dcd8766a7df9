// `chiasm split`: one checkpoint folder into a vision folder and a language folder.
#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "models/checkpoint.h"
#include "models/new_folder.h"
#include "models/vision_digest_file.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kVision = "vision", kLanguage = "language";

// Told of every part of a tensor once it is written; an error (kCancelled) ends the work.
using Tell = std::function<Status(std::uint64_t)>;

// One shard; its source pages leave memory as they are written.
Status write_shard(const Checkpoint& checkpoint, const fs::path& path, std::span<const NamedTensor> tensors,
                   const Tell& tell) {
  std::size_t at = 0;  // parts come in the order of the tensors
  const auto written = [&](std::span<const std::byte> part) {
    const auto inside = [&](const TensorView& view) {
      return part.data() >= view.bytes.data() && part.data() < view.bytes.data() + view.bytes.size();
    };
    while (at < tensors.size() && !inside(tensors[at].tensor)) ++at;
    if (at < tensors.size()) checkpoint.release(tensors[at].name, part);
    return tell(part.size());
  };
  return write_safetensors(path, tensors, {{"format", "pt"}}, written);
}

// All tensors of a part: model.safetensors, or shards and an index with the hub's names.
Status write_part(const Checkpoint& checkpoint, Part part, const fs::path& to, std::uint64_t shard_bytes,
                  const Tell& tell) {
  std::vector<std::vector<NamedTensor>> shards(1);
  std::uint64_t in_shard = 0, total = 0;
  for (std::string& name : checkpoint.names()) {
    if (part_of(name) != part) continue;
    ASSIGN_OR_RETURN(TensorView view, checkpoint.tensor(name));
    if (!shards.back().empty() && in_shard + view.bytes.size() > shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    in_shard += view.bytes.size();
    total += view.bytes.size();
    shards.back().push_back({std::move(name), std::move(view)});
  }
  if (shards.size() == 1) return write_shard(checkpoint, to / "model.safetensors", shards[0], tell);
  nlohmann::json weight_map = nlohmann::json::object();
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string file = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    RETURN_IF_ERROR(write_shard(checkpoint, to / file, shards[i], tell));
    for (const NamedTensor& tensor : shards[i]) weight_map[tensor.name] = file;
  }
  const nlohmann::ordered_json index{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  const std::string text = index.dump(2) + "\n";
  return publish_file(to / "model.safetensors.index.json", {std::as_bytes(std::span(text))});
}

// Both halves under `to`.
Status write_halves(const Checkpoint& checkpoint, const fs::path& to, std::uint64_t shard_bytes, const Tell& tell,
                    const std::atomic<bool>* stop) {
  const fs::path vision = to / kVision, language = to / kLanguage;
  ASSIGN_OR_RETURN(const Digest digest, compute_vision_digest(checkpoint, stop));
  RETURN_IF_ERROR(copy_files(checkpoint.dir(), vision, vision_side_files()));
  RETURN_IF_ERROR(copy_files(checkpoint.dir(), language, language_side_files()));
  RETURN_IF_ERROR(write_vision_digest_file(vision / kVisionDigestFile, digest));
  RETURN_IF_ERROR(write_vision_digest_file(language / kVisionDigestFile, digest));
  RETURN_IF_ERROR(write_part(checkpoint, Part::kVision, vision, UINT64_MAX, tell));
  return write_part(checkpoint, Part::kLanguage, language, shard_bytes, tell);
}

}  // namespace

Status split_checkpoint(const fs::path& dir, const fs::path& out_given,
                        const std::function<void(std::uint64_t, std::uint64_t)>& progress, std::uint64_t shard_bytes,
                        const std::atomic<bool>* stop) {
  ASSIGN_OR_RETURN(const fs::path out, checked_new_folder(out_given));
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir, Role::kWhole));
  for (const Role side : {Role::kVision, Role::kLanguage})
    if (checkpoint.precision(side) != Precision::kExact)
      return fail(Code::kFailedPrecondition,
                  "{}: quantised; split the checkpoint it was made of, then quantise the halves", dir.string());
  std::uint64_t total = 0, done = 0;
  for (const std::string& name : checkpoint.names()) {
    ASSIGN_OR_RETURN(const TensorView view, checkpoint.tensor(name));
    total += view.bytes.size();
  }
  ASSIGN_OR_RETURN(NewFolder workplace, NewFolder::make(out));
  std::error_code error;
  const fs::space_info space = fs::space(workplace.path(), error);
  if (!error && space.available < total)
    return fail(Code::kResourceExhausted, "{}: needs {} bytes, {} are free", out.string(), total, space.available);

  const Tell tell = [&](std::uint64_t bytes) -> Status {
    done += bytes;
    if (progress) progress(done, total);
    if (stop != nullptr && stop->load()) return fail(Code::kCancelled, "stopped");
    return {};
  };
  if (auto status = write_halves(checkpoint, workplace.path(), shard_bytes, tell, stop); !status)
    return workplace.abandon(std::move(status).error());
  if (auto status = workplace.publish(out); !status) return workplace.abandon(std::move(status).error());
  return {};
}

}  // namespace chiasm
