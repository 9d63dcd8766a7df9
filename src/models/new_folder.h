// A checkpoint folder that is being made: it grows under another name and appears complete or not at all. Shared by
// what writes checkpoints. Thread contract: one thread a folder.
#pragma once

#include <filesystem>
#include <span>
#include <string_view>

#include "base/result.h"

namespace chiasm {

// The files of a checkpoint beside its weights that a side reads; absent ones are optional.
std::span<const std::string_view> vision_side_files();
std::span<const std::string_view> language_side_files();
Status copy_files(const std::filesystem::path& from, const std::filesystem::path& to,
                  std::span<const std::string_view> names);

// The folder's path ("out/" names the same as "out"). Errors: it holds something, or cannot be one.
Result<std::filesystem::path> checked_new_folder(const std::filesystem::path& out);

class NewFolder {
 public:
  // Beside `out`, or inside where `out` is a folder already: its parent may be another file system, or read-only.
  static Result<NewFolder> make(const std::filesystem::path& out);
  NewFolder(NewFolder&& other) noexcept;
  NewFolder& operator=(NewFolder&&) = delete;
  ~NewFolder();  // what was not published is removed

  const std::filesystem::path& path() const { return path_; }
  // The error that stopped the work, and what could not be cleared away after it.
  tl::unexpected<Error> abandon(Error why);
  // Moves all that lies in path() to `out`, or nothing.
  Status publish(const std::filesystem::path& out);

 private:
  NewFolder(std::filesystem::path path, bool inside);
  std::filesystem::path path_;
  bool inside_ = false;
};

}  // namespace chiasm
