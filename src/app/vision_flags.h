// Options of the servers that look at pictures: what the encoder takes at once, what may wait, what is kept in memory.
//
// Thread contract: plain values.
#pragma once

#include <cstdint>
#include <optional>

#include "roles/vision_side.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library says it so
class App;
}  // namespace CLI

namespace chiasm {

struct VisionFlags {
  std::optional<std::uint64_t> feature_memory;
  std::optional<std::int64_t> max_queued_tokens, max_picture_tokens, max_batch_patches;
  std::optional<int> decode_threads;
};

void add_vision_flags(CLI::App& app, VisionFlags& flags);
void apply(const VisionFlags& flags, VisionSideOptions& options);

}  // namespace chiasm
