// The two halves of chiasm inspect. Each gives the exit code.
#pragma once

#include <filesystem>

#include "app/console.h"

namespace chiasm {

struct InspectOptions {
  bool json = false;
  bool tensors = false;  // every tensor by name, not one line a kind
};

int inspect_checkpoint(const std::filesystem::path& dir, const InspectOptions& options, Console& console);
int inspect_feature(const std::filesystem::path& file, const InspectOptions& options, Console& console);

}  // namespace chiasm
