#include "features/disk_tier.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/secret.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".safetensors";
constexpr std::size_t kHexDigits = 64;
constexpr std::int64_t kNanoseconds = 1'000'000'000;
constexpr std::int64_t kAbandonedAfter = 3600 * kNanoseconds;  // no write takes an hour

struct FileState {
  std::int64_t used = 0;  // modification time, ns
  std::uint64_t size = 0;
};

std::optional<FileState> state_of(const fs::path& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  return FileState{static_cast<std::int64_t>(info.st_mtim.tv_sec) * kNanoseconds + info.st_mtim.tv_nsec,
                   static_cast<std::uint64_t>(info.st_size)};
}

std::int64_t wall_clock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Best effort: on a folder that we may only read the order of eviction is the owner's.
void mark_used(const fs::path& path) {
  const std::int64_t now = wall_clock();  // finer than what the file system stamps by itself
  const timespec stamp{static_cast<time_t>(now / kNanoseconds), static_cast<long>(now % kNanoseconds)};
  const std::array<timespec, 2> times{stamp, stamp};
  ::utimensat(AT_FDCWD, path.c_str(), times.data(), AT_SYMLINK_NOFOLLOW);
}

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// "abcd....safetensors" in a folder "ab".
bool is_feature_name(std::string_view name, std::string_view folder) {
  return name.size() == kHexDigits + kSuffix.size() && name.ends_with(kSuffix) && is_hex(name.substr(0, kHexDigits)) &&
         name.starts_with(folder);
}

// ".abcd....safetensors.RANDOM", as publish_file names what it has not finished; letters and digits in any number.
bool is_temporary_name(std::string_view name, std::string_view folder) {
  constexpr std::size_t kNamed = kHexDigits + kSuffix.size();
  if (name.size() < kNamed + 3 || name[0] != '.' || name[kNamed + 1] != '.') return false;
  const std::string_view random = name.substr(kNamed + 2);
  return is_feature_name(name.substr(1, kNamed), folder) &&
         std::all_of(random.begin(), random.end(), [](unsigned char c) { return std::isalnum(c) != 0; });
}

// Calls visit(path, folder name, file name) for everything in the two-digit folders of `dir`.
template <class Visit>
void walk(const fs::path& dir, const Visit& visit) {
  std::error_code error;
  for (fs::directory_iterator outer(dir, error), end; !error && outer != end; outer.increment(error)) {
    const std::string folder = outer->path().filename().string();
    if (folder.size() != 2 || !is_hex(folder)) continue;
    std::error_code inside;  // another process may remove things while we look
    for (fs::directory_iterator inner(outer->path(), inside); !inside && inner != end; inner.increment(inside))
      visit(inner->path(), folder, inner->path().filename().string());
  }
}

}  // namespace

std::uint64_t DiskTierCounters::all_bad() const { return std::accumulate(bad.begin(), bad.end(), std::uint64_t{0}); }

DiskTier::DiskTier(DiskTierOptions options) : options_(std::move(options)) {}

Result<std::string> DiskTier::folder_name() const {
  constexpr std::size_t kDigits = 32;
  const fs::path file = options_.dir / ".folder";
  const auto read = [&]() -> std::optional<std::string> {
    auto text = read_text_file(file, kDigits);
    if (!text || text->size() != kDigits || !is_hex(*text)) return std::nullopt;
    return std::move(*text);
  };
  if (auto name = read()) return *name;
  // Written beside it and linked into place: of several that come at once, the first one's stays.
  std::error_code error;
  fs::create_directories(options_.dir, error);
  const fs::path mine = options_.dir / temporary_name(".folder");
  const std::string name = random_hex(kDigits);
  RETURN_IF_ERROR(publish_file(mine, {std::as_bytes(std::span(name))}));
  fs::create_hard_link(mine, file, error);
  std::error_code ignored;
  // No links here, or a name that is damaged: then the last one's stays.
  if (error && !read()) fs::rename(mine, file, ignored);
  fs::remove(mine, ignored);
  if (auto there = read()) return *there;
  return fail(Code::kUnavailable, "{}: cannot be read or written", file.string());
}

Status DiskTier::check_writable() const {
  std::error_code error;
  fs::create_directories(options_.dir, error);
  if (!error && ::access(options_.dir.c_str(), W_OK | X_OK) != 0)
    error = std::error_code(errno, std::generic_category());
  if (error)
    return fail(Code::kUnavailable, "features are not kept in '{}', it cannot be written: {}", options_.dir.string(),
                error.message());
  return {};
}

fs::path DiskTier::path_of(const FeatureId& id) const {
  const std::string hex = id.hex();
  return options_.dir / hex.substr(0, 2) / (hex + std::string(kSuffix));
}

std::shared_ptr<const Feature> DiskTier::get(const FeatureId& id, FeatureExpectations expected) {
  expected.id = id;
  expected.dtype = options_.dtype;
  const fs::path path = path_of(id);
  auto loaded = load_feature(path, expected, options_.max_file);
  if (!loaded) {
    const FeatureFault fault = loaded.error().fault;
    {
      const std::lock_guard lock(mutex_);
      ++counters_.misses;
      if (fault != FeatureFault::kAbsent) ++counters_.bad[static_cast<std::size_t>(fault)];
    }
    if (fault != FeatureFault::kAbsent)
      warn(fmt::format("feature file not used ({}): {}", fault_name(fault), loaded.error().message));
    return nullptr;
  }
  mark_used(path);
  auto feature = std::make_shared<const Feature>(std::move(*loaded));
  const std::lock_guard lock(mutex_);
  ++counters_.hits;
  return feature;
}

std::vector<FeatureMeta> DiskTier::kin_of(const Digest& image_digest) const {
  std::vector<FeatureMeta> out;
  walk(options_.dir, [&](const fs::path& path, std::string_view folder, std::string_view name) {
    if (!is_feature_name(name, folder)) return;
    auto meta = load_feature_meta(path);
    if (meta && meta->image_digest == image_digest) out.push_back(std::move(*meta));
  });
  return out;
}

Status DiskTier::put(const Feature& feature) {
  auto status = publish(feature);
  if (!status) warn(fmt::format("feature file not written: {}", status.error().message));
  return status;
}

Status DiskTier::publish(const Feature& feature) {
  const auto count = [this](std::uint64_t DiskTierCounters::* counter) {
    const std::lock_guard lock(mutex_);
    ++(counters_.*counter);
  };
  const auto bytes = serialize_feature(feature, options_.dtype);
  if (!bytes) {
    count(&DiskTierCounters::failed_writes);
    return fail_in(feature.meta.id.hex(), bytes.error());
  }
  const std::uint64_t limit = std::min(options_.max_file, options_.budget);
  if (bytes->size() > limit) {
    count(&DiskTierCounters::refused);
    return fail(Code::kResourceExhausted, "feature {}: a file of {} bytes, the limit is {}", feature.meta.id.hex(),
                bytes->size(), limit);
  }
  const fs::path path = path_of(feature.meta.id);
  const auto before = state_of(path);
  if (auto status = publish_file(path, {*bytes}); !status) {
    count(&DiskTierCounters::failed_writes);
    return status;
  }
  mark_used(path);
  count(&DiskTierCounters::writes);

  const std::lock_guard lock(evict_mutex_);
  bytes_ += bytes->size();
  bytes_ -= std::min(bytes_, before ? before->size : 0);
  written_since_scan_ += bytes->size();
  evict();
  return {};
}

Result<bool> DiskTier::erase(const FeatureId& id) {
  const fs::path path = path_of(id);
  const std::lock_guard lock(evict_mutex_);
  const auto state = state_of(path);
  if (!state) return false;
  if (::unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return false;
    return fail(Code::kInternal, "feature file not removed: {}: {}", path.string(), std::strerror(errno));
  }
  // Gone from the candidates too: evict() would subtract it once more.
  std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.path == path; });
  bytes_ -= std::min(bytes_, state->size);
  const std::lock_guard counting(mutex_);
  ++counters_.erased;
  counters_.bytes = bytes_;
  return true;
}

void DiskTier::scan() {
  candidates_.clear();
  bytes_ = 0;
  written_since_scan_ = 0;
  scanned_ = true;
  const std::int64_t now = wall_clock();
  std::uint64_t swept = 0;
  walk(options_.dir, [&](const fs::path& path, std::string_view folder, std::string_view name) {
    const bool temporary = is_temporary_name(name, folder);
    if (!temporary && !is_feature_name(name, folder)) return;
    const auto state = state_of(path);
    if (!state) return;
    if (!temporary) {
      candidates_.push_back({path, state->used, state->size});
      bytes_ += state->size;
    } else if (now - state->used > kAbandonedAfter && ::unlink(path.c_str()) == 0) {
      ++swept;
    }
  });
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
    return a.used != b.used ? a.used < b.used : a.path < b.path;
  });
  const std::lock_guard lock(mutex_);
  counters_.swept += swept;
}

// Removes the least recently used files of the last scan, looking at each again first: one that was used or replaced
// since is not old any more, and one that is gone was somebody else's to remove.
void DiskTier::evict() {
  constexpr int kScans = 3;  // others may use every candidate while we look at it: then look anew, but not for ever
  std::uint64_t evicted = 0;
  int scans = 0;
  if (!scanned_ || written_since_scan_ > options_.budget / 16) {
    scan();
    ++scans;
  }
  for (;;) {
    while (bytes_ > options_.budget && !candidates_.empty()) {
      const Candidate oldest = std::move(candidates_.front());
      candidates_.pop_front();
      const auto state = state_of(oldest.path);
      if (state && (state->used != oldest.used || state->size != oldest.size)) continue;
      if (state && ::unlink(oldest.path.c_str()) != 0 && errno != ENOENT) {
        warn(fmt::format("feature file not removed: {}: {}", oldest.path.string(), std::strerror(errno)));
        continue;
      }
      if (state) ++evicted;
      bytes_ -= std::min(bytes_, oldest.size);
    }
    if (bytes_ <= options_.budget || scans == kScans) break;
    scan();
    ++scans;
  }
  const std::lock_guard lock(mutex_);
  counters_.evictions += evicted;
  counters_.bytes = bytes_;
}

DiskTierCounters DiskTier::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

void DiskTier::warn(std::string_view line) const {
  if (options_.warn) options_.warn(line);
}

}  // namespace chiasm
