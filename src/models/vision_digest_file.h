// vision_digest.json: the vision digest that the halves of a split checkpoint carry.
#pragma once

#include <filesystem>

#include "base/digest.h"
#include "base/result.h"

namespace chiasm {

inline constexpr std::string_view kVisionDigestFile = "vision_digest.json";

Status write_vision_digest_file(const std::filesystem::path& path, const Digest& digest);
Result<Digest> read_vision_digest_file(const std::filesystem::path& path);

}  // namespace chiasm
