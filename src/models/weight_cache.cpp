#include "models/weight_cache.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>
#include <vector>

#include "models/file_identity.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".panels";
constexpr std::size_t kSide = 16, kName = 48;            // digits: of what a file is for, of what it was made of
constexpr auto kAbandonedAfter = std::chrono::hours(1);  // no write takes an hour

}  // namespace

Result<WeightCache::Key> WeightCache::key_of(const Checkpoint& checkpoint, Role side, Precision precision,
                                             std::string_view layout) const {
  ASSIGN_OR_RETURN(const std::vector<WeightFile> files, find_weight_files(checkpoint.dir()));
  std::vector<fs::path> paths;
  for (const WeightFile& file : files)
    if (side == Role::kVision ? file.has_vision : file.has_language) paths.push_back(file.path);
  std::error_code error;
  const fs::path dir = fs::canonical(checkpoint.dir(), error);
  if (error) return fail(Code::kNotFound, "{}: {}", checkpoint.dir().string(), error.message());
  const std::string_view side_name = side == Role::kVision ? "vision" : "language";
  const Digest place = Hasher()
                           .add("format", "chiasm.kept_weights/1")
                           .add("path", dir.native())
                           .add("side", side_name)
                           .add("precision", precision_name(precision))
                           .finish();
  Hasher hasher;
  hasher.add("place", place).add("layout", layout);
  RETURN_IF_ERROR(add_identity(hasher, checkpoint.dir(), paths));
  Key out{.file = {}, .digest = hasher.finish()};
  out.file =
      options_.dir / fmt::format("{}-{}{}", place.hex().substr(0, kSide), out.digest.hex().substr(0, kName), kSuffix);
  return out;
}

std::optional<PackedFile> WeightCache::find(const Key& key) const {
  auto file = PackedFile::open(key.file, key.digest);
  Status sound = file ? file->verify(threads_) : Status(tl::unexpected(file.error()));
  std::error_code ignored;
  if (sound) {
    fs::last_write_time(key.file, fs::file_time_type::clock::now(), ignored);  // it was used
    return std::move(*file);
  }
  if (sound.error().code == Code::kNotFound) return std::nullopt;
  warn(fmt::format("kept weights are made anew: {}: {}", key.file.string(), sound.error().message));
  if (sound.error().code == Code::kDataLoss) fs::remove(key.file, ignored);
  return std::nullopt;
}

void WeightCache::keep(const Key& key, std::span<const NamedMatrix> matrices) const {
  const std::uint64_t size = packed_file_size(matrices);
  std::error_code error;
  fs::create_directories(options_.dir, error);
  tidy(key, size);
  const fs::space_info space = fs::space(options_.dir, error);
  if (error) return warn(fmt::format("weights are not kept: {}: {}", options_.dir.string(), error.message()));
  if (size > options_.budget || space.available < size || space.available - size < options_.reserve)
    return warn(
        fmt::format("weights are not kept: they take {} MiB, there are {} MiB in {} of which {} are to stay free",
                    size >> 20, space.available >> 20, options_.dir.string(), options_.reserve >> 20));
  if (const Status written = write_packed_file(key.file, key.digest, matrices, threads_); !written)
    warn(fmt::format("weights are not kept: {}", written.error().message));
}

// Removes what the file of `key` takes the place of, what nobody finished, and the least recently used where all would
// be more than the budget. Another process may do the same meanwhile; who has a file mapped keeps it.
void WeightCache::tidy(const Key& key, std::uint64_t coming) const {
  struct Kept {
    fs::path path;
    fs::file_time_type used;
    std::uint64_t size = 0;
  };
  std::vector<Kept> kept;
  std::uint64_t total = coming;
  const std::string own = key.file.filename().string(), side = own.substr(0, kSide + 1);
  std::error_code error, ignored;
  for (fs::directory_iterator at(options_.dir, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    const bool temporary = name.starts_with('.') && name.find(kSuffix) != std::string::npos;
    if (!temporary && !(name.ends_with(kSuffix) && name.size() == own.size())) continue;
    Kept file{at->path(), fs::last_write_time(at->path(), ignored), 0};
    const bool stale = temporary ? fs::file_time_type::clock::now() - file.used > kAbandonedAfter
                                 : name.starts_with(side) && name != own;
    if (stale) fs::remove(at->path(), ignored);
    if (stale || temporary || name == own) continue;
    file.size = fs::file_size(at->path(), ignored);
    total += file.size;
    kept.push_back(std::move(file));
  }
  std::ranges::sort(kept, {}, &Kept::used);
  for (const Kept& file : kept) {
    if (total <= options_.budget) break;
    fs::remove(file.path, ignored);
    total -= file.size;
  }
}

}  // namespace chiasm
