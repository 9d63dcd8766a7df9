#include "base/file.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace chiasm {
namespace {

std::string reason() { return std::strerror(errno); }

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// Size of the regular file behind `fd`.
Result<std::uint64_t> regular_size(int fd, const std::filesystem::path& path) {
  struct stat info{};
  if (fd < 0 || ::fstat(fd, &info) != 0)
    return fail(errno == ENOENT ? Code::kNotFound : Code::kInvalidArgument, "{}: {}", path.string(), reason());
  if (!S_ISREG(info.st_mode))
    return fail(Code::kInvalidArgument, "{}: expected a file, got {}", path.string(),
                S_ISDIR(info.st_mode) ? "a folder" : "a pipe or a device; save what it gives to a file first");
  return static_cast<std::uint64_t>(info.st_size);
}

template <class Buffer>
Result<Buffer> read_whole(const std::filesystem::path& path, std::uint64_t limit) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  ASSIGN_OR_RETURN(const std::uint64_t size, regular_size(fd.get(), path));
  if (size > limit) return fail(Code::kResourceExhausted, "{}: {} bytes, the limit is {}", path.string(), size, limit);
  Buffer out;
  out.resize(size);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t n = ::read(fd.get(), out.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(Code::kUnavailable, "{}: {}", path.string(), reason());
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  out.resize(done);
  return out;
}

Status write_all(int fd, std::span<const std::byte> bytes, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(errno == ENOSPC ? Code::kResourceExhausted : Code::kUnavailable, "{}: {}", name, reason());
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Result<std::vector<std::byte>> read_file(const std::filesystem::path& path, std::uint64_t limit) {
  return read_whole<std::vector<std::byte>>(path, limit);
}

Result<std::string> read_text_file(const std::filesystem::path& path, std::uint64_t limit) {
  return read_whole<std::string>(path, limit);
}

std::string temporary_name(std::string_view name) {
  std::random_device random;
  constexpr std::size_t kKept = 200;  // of the 255 bytes that a name may have
  return fmt::format(".{}.{:08x}{:08x}", name.substr(0, kKept), random(), random());
}

Status publish_file(const std::filesystem::path& path, std::initializer_list<std::span<const std::byte>> pieces) {
  return publish_pieces(path, {pieces.begin(), pieces.size()}, nullptr);
}

Status write_file(const std::filesystem::path& given, std::initializer_list<std::span<const std::byte>> pieces) {
  constexpr int kMaxLinks = 40;  // as the kernel follows
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(given, error);
  // /dev/stdout is what the shell opened, even where that is a file.
  const bool opened_by_others = given.native().starts_with("/dev/") || given.native().starts_with("/proc/");
  if (!opened_by_others && (!std::filesystem::exists(status) || std::filesystem::is_regular_file(status))) {
    std::filesystem::path path = given;
    for (int i = 0; i < kMaxLinks && std::filesystem::is_symlink(path, error); ++i)
      path = path.parent_path() / std::filesystem::read_symlink(path, error);
    if (std::filesystem::is_symlink(path, error))
      return fail(Code::kInvalidArgument, "{}: {}", given.string(), std::strerror(ELOOP));
    return publish_file(path, pieces);
  }
  const Descriptor fd(::open(given.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd.get() < 0) return fail(Code::kInvalidArgument, "{}: {}", given.string(), reason());
  for (const auto& piece : pieces) RETURN_IF_ERROR(write_all(fd.get(), piece, given.string()));
  return {};
}

Status publish_pieces(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces,
                      const std::function<Status(std::span<const std::byte>)>& written, Disk disk) {
  constexpr std::size_t kPart = 8U << 20;
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail(Code::kInvalidArgument, "{}: {}", folder.string(), error.message());
  std::string temporary;
  int opened = -1;
  do {  // not mkstemp: its files are private, and the umask can only be asked for by changing it
    temporary = (folder / temporary_name(path.filename().string())).string();
    opened = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (opened < 0 && errno == EEXIST);
  const Descriptor fd(opened);
  if (opened < 0) return fail(Code::kInvalidArgument, "{}: {}", path.string(), reason());
  const auto abandon = [&](Status status) {
    ::unlink(temporary.c_str());
    return status;
  };
  for (const auto& piece : pieces) {
    for (std::size_t begin = 0; begin < piece.size(); begin += kPart) {
      const auto part = piece.subspan(begin, std::min(kPart, piece.size() - begin));
      if (auto status = write_all(fd.get(), part, path.string()); !status) return abandon(status);
      if (!written) continue;
      if (auto status = written(part); !status) return abandon(std::move(status));
    }
  }
  if (disk == Disk::kWaited && ::fsync(fd.get()) != 0)
    return abandon(fail(Code::kUnavailable, "{}: {}", path.string(), reason()));
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return abandon(fail(Code::kInvalidArgument, "{}: {}", path.string(), reason()));
  if (disk == Disk::kNotWaited) return {};
  const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0) ::fsync(directory.get());
  return {};
}

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  ASSIGN_OR_RETURN(const std::uint64_t size, regular_size(fd.get(), path));
  MappedFile out;
  out.path_ = path;
  if (size == 0) return out;
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return fail(Code::kResourceExhausted, "{}: {}", path.string(), reason());
  out.data_ = static_cast<const std::byte*>(data);
  out.size_ = size;
  return out;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::bring(std::span<const std::byte> part) const {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(part.data()) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(part.data() + part.size());
#ifdef MADV_POPULATE_READ  // Linux 5.14; without it, or where it fails, pages come when they are touched
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ);
#endif
}

void MappedFile::release(std::span<const std::byte> part) const {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  // Only pages that lie wholly inside the part: a neighbour may still be in use.
  const auto begin = (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(part.data() + part.size()) / page * page;
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace chiasm
