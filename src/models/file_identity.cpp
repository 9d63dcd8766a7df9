#include "models/file_identity.h"

#include <cerrno>
#include <cstring>

#include <sys/stat.h>

namespace chiasm {
namespace {

Status add_file(Hasher& hasher, const std::filesystem::path& path) {
  std::error_code error;
  const auto absolute = std::filesystem::canonical(path, error);
  struct stat info{};
  if (error || ::stat(absolute.c_str(), &info) != 0)
    return fail(Code::kNotFound, "{}: {}", path.string(), error ? error.message() : std::strerror(errno));
  hasher.add("path", absolute.native()).add("size", std::int64_t{info.st_size});
  hasher.add("device", static_cast<std::int64_t>(info.st_dev)).add("inode", static_cast<std::int64_t>(info.st_ino));
  for (const timespec& time : {info.st_mtim, info.st_ctim})
    hasher.add("seconds", std::int64_t{time.tv_sec}).add("nanoseconds", std::int64_t{time.tv_nsec});
  return {};
}

}  // namespace

Status add_identity(Hasher& hasher, const std::filesystem::path& dir, std::span<const std::filesystem::path> files) {
  RETURN_IF_ERROR(add_file(hasher, dir / "config.json"));
  for (const auto& file : files) RETURN_IF_ERROR(add_file(hasher, file));
  return {};
}

}  // namespace chiasm
