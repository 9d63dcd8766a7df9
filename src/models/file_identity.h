// What the files of a checkpoint are now, without reading them. Thread contract: a pure function.
#pragma once

#include <filesystem>
#include <span>

#include "base/digest.h"
#include "base/result.h"

namespace chiasm {

// Adds config.json's and these files' paths, sizes, times and inodes: another one of them is another digest. A program
// may set a file's mtime back after it wrote into it, but not its ctime.
Status add_identity(Hasher& hasher, const std::filesystem::path& dir, std::span<const std::filesystem::path> files);

}  // namespace chiasm
