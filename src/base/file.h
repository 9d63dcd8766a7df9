// Files: read whole with a limit, map read-only, publish atomically.
//
// Thread contract: MappedFile is immutable after open and may be read by any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chiasm {

// The whole file; an error when it is larger than `limit` bytes, absent, or not a regular file.
Result<std::vector<std::byte>> read_file(const std::filesystem::path& path, std::uint64_t limit);
Result<std::string> read_text_file(const std::filesystem::path& path, std::uint64_t limit);

// Writes `pieces` one after the other to a temporary beside `path`, fsyncs, renames. Readers see the old file, or the
// whole new one. Parent folders are created.
Status publish_file(const std::filesystem::path& path, std::initializer_list<std::span<const std::byte>> pieces);

// The same for many large pieces: `written` (may be null) is told of each part once it is written, at most 8 MiB at a
// time, so that mapped sources can be released on the way; an error that it gives ends the work, and no file appears.
// kNotWaited: no fsync, which takes seconds, for files whose checksums tell what a crash made of them.
enum class Disk : std::uint8_t { kWaited, kNotWaited };
Status publish_pieces(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces,
                      const std::function<Status(std::span<const std::byte>)>& written, Disk disk = Disk::kWaited);

// What a user expects of an output file: a link is followed, a device or a pipe is written into, anything else is
// published as above.
Status write_file(const std::filesystem::path& path, std::initializer_list<std::span<const std::byte>> pieces);

// A name for a file or folder that will be renamed to `name`: hidden, not taken by anybody else, and a legal name where
// `name` is one.
std::string temporary_name(std::string_view name);

// A regular file mapped read-only. Pages are read when touched.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  // Reads this part of bytes() into memory and maps its pages, where the system can.
  void bring(std::span<const std::byte> part) const;
  // Lets the kernel drop the pages of this part of bytes() from this process; they are read again when touched.
  void release(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace chiasm
