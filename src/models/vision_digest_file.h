// vision_digest.json: the vision digest that the halves of a split checkpoint carry, and a checksum of it (XXH3 of its
// 64 digits). Files with a wrong checksum or none are kDataLoss.
//
// Thread contract: plain functions.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/digest.h"
#include "base/result.h"

namespace chiasm {

inline constexpr std::string_view kVisionDigestFile = "vision_digest.json";

Status write_vision_digest_file(const std::filesystem::path& path, const Digest& digest);
Result<Digest> read_vision_digest_file(const std::filesystem::path& path);

}  // namespace chiasm
