// `chiasm split`: one checkpoint folder into a vision folder and a language folder.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/file.h"
#include "models/checkpoint.h"
#include "models/vision_digest_file.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

// config.json is copied as it is, so that every reader of the original reads the halves. The language half needs the
// preprocessor's numbers too: it works out grids and feature ids without seeing a pixel.
constexpr std::string_view kVisionFiles[] = {"config.json", "preprocessor_config.json", "processor_config.json",
                                             "LICENSE", "NOTICE"};
constexpr std::string_view kLanguageFiles[] = {"config.json",
                                               "generation_config.json",
                                               "preprocessor_config.json",
                                               "video_preprocessor_config.json",
                                               "processor_config.json",
                                               "tokenizer.json",
                                               "tokenizer_config.json",
                                               "special_tokens_map.json",
                                               "added_tokens.json",
                                               "vocab.json",
                                               "merges.txt",
                                               "chat_template.json",
                                               "chat_template.jinja",
                                               "LICENSE",
                                               "NOTICE"};

constexpr std::string_view kVision = "vision", kLanguage = "language";

// Where the halves grow until they are complete; removed again if they never are.
class Workplace {
 public:
  // Beside `out`, or inside where `out` is a folder already: its parent may be another file system, or read-only.
  static Result<Workplace> make(const fs::path& out) {
    std::error_code error;
    const bool inside = fs::is_directory(out, error);
    const fs::path parent = inside ? out : fs::absolute(out, error).parent_path();
    if (inside) error.clear();
    if (!error) fs::create_directories(parent, error);
    if (error) return fail(Code::kInvalidArgument, "{}: {}", out.string(), error.message());
    const fs::path path = parent / temporary_name(inside ? "split" : out.filename().string());
    if (!fs::create_directory(path, error))
      return fail(Code::kInvalidArgument, "{}: {}", path.string(), error.message());
    return Workplace(path, inside);
  }
  Workplace(Workplace&& other) noexcept : path_(std::exchange(other.path_, {})), inside_(other.inside_) {}
  Workplace& operator=(Workplace&&) = delete;
  ~Workplace() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }

  // The error that stopped the work, and what could not be cleared away after it.
  tl::unexpected<Error> abandon(Error why) {
    std::error_code error;
    fs::remove_all(path_, error);
    if (error) why.message += fmt::format(" (and {} could not be removed: {})", path_.string(), error.message());
    path_.clear();
    return tl::unexpected(std::move(why));
  }

  const fs::path& path() const { return path_; }

  // Moves the halves to `out`. rename(2) does not replace what somebody else put there meanwhile.
  Status publish(const fs::path& out) {
    if (!inside_) {
      RETURN_IF_ERROR(move(path_, out));
    } else {
      RETURN_IF_ERROR(move(path_ / kVision, out / kVision));
      if (auto status = move(path_ / kLanguage, out / kLanguage); !status) {
        (void)move(out / kVision, path_ / kVision);  // both or none
        return status;
      }
      std::error_code ignored;
      fs::remove(path_, ignored);
    }
    path_.clear();
    return {};
  }

 private:
  Workplace(fs::path path, bool inside) : path_(std::move(path)), inside_(inside) {}

  static Status move(const fs::path& from, const fs::path& to) {
    if (std::rename(from.c_str(), to.c_str()) == 0) return {};
    return fail(Code::kFailedPrecondition, "{}: {}", to.string(), std::strerror(errno));
  }

  fs::path path_;
  bool inside_ = false;
};

Status check_out(const fs::path& out) {
  std::error_code error;
  if (!out.has_filename())
    return fail(Code::kInvalidArgument, "'{}': expected the name of a folder to make", out.string());
  if (fs::is_symlink(out, error) && !fs::exists(out, error))
    return fail(Code::kFailedPrecondition, "{}: a link to something that is not there", out.string());
  if (!fs::exists(out, error) && !error) return {};
  if (error || !fs::is_directory(out, error))
    return fail(Code::kFailedPrecondition, "{}: expected a folder that is empty or not there{}", out.string(),
                error ? ": " + error.message() : ", got a file");
  const fs::directory_iterator entries(out, error);
  if (error) return fail(Code::kFailedPrecondition, "{}: {}", out.string(), error.message());
  if (entries == fs::directory_iterator()) return {};
  return fail(Code::kFailedPrecondition, "{}: expected a folder that is empty or not there, but it holds '{}'",
              out.string(), entries->path().filename().string());
}

Status copy_files(const fs::path& from, const fs::path& to, std::span<const std::string_view> names) {
  std::error_code error;
  fs::create_directories(to, error);
  for (const std::string_view name : names) {
    if (error) break;
    if (fs::is_regular_file(from / name, error)) {
      fs::copy_file(from / name, to / name, error);
    } else {
      error.clear();  // absent: most of these files are optional
    }
  }
  if (error) return fail(Code::kUnavailable, "{}: {}", to.string(), error.message());
  return {};
}

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
  RETURN_IF_ERROR(copy_files(checkpoint.dir(), vision, kVisionFiles));
  RETURN_IF_ERROR(copy_files(checkpoint.dir(), language, kLanguageFiles));
  RETURN_IF_ERROR(write_vision_digest_file(vision / kVisionDigestFile, digest));
  RETURN_IF_ERROR(write_vision_digest_file(language / kVisionDigestFile, digest));
  RETURN_IF_ERROR(write_part(checkpoint, Part::kVision, vision, UINT64_MAX, tell));
  return write_part(checkpoint, Part::kLanguage, language, shard_bytes, tell);
}

}  // namespace

Status split_checkpoint(const fs::path& dir, const fs::path& out_given,
                        const std::function<void(std::uint64_t, std::uint64_t)>& progress, std::uint64_t shard_bytes,
                        const std::atomic<bool>* stop) {
  // "out/" names the same folder as "out".
  const fs::path out = out_given.has_filename() ? out_given : out_given.parent_path();
  RETURN_IF_ERROR(check_out(out));
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir, Role::kWhole));
  std::uint64_t total = 0, done = 0;
  for (const std::string& name : checkpoint.names()) {
    ASSIGN_OR_RETURN(const TensorView view, checkpoint.tensor(name));
    total += view.bytes.size();
  }
  ASSIGN_OR_RETURN(Workplace workplace, Workplace::make(out));
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
