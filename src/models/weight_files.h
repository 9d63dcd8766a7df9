// Which files of a checkpoint folder hold which tensors, and the canonical spelling of tensor names.
//
// Looks at the index where there is one, at the headers of the files where there is none; touches no tensor's bytes.
// Errors say what to do about files that a download left unfinished, or that are something else.
// Thread contract: plain functions.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/safetensors.h"

namespace chiasm {

enum class Part : std::uint8_t { kVision, kLanguage };

// "model.visual.x" is "visual.x", "model.language_model.x" is "model.x"; other names stay as they are.
std::string canonical_name(std::string_view stored);
Part part_of(std::string_view canonical);

struct WeightFile {
  std::filesystem::path path;
  bool has_vision = false, has_language = false;
  std::vector<std::string> indexed;             // stored names that the index promises; empty without an index
  std::shared_ptr<const SafetensorsFile> open;  // set where the headers had to be read
};

// The weight files of a folder, sorted by path: model.safetensors where it is there (as transformers prefers), else the
// files that model.safetensors.index.json names, else every *.safetensors. Files that the index names are not looked
// at here. Errors: no weights at all; an index that names a file outside of the folder.
Result<std::vector<WeightFile>> find_weight_files(const std::filesystem::path& dir);

// The file, mapped and its header read, where find_weight_files had no reason to; held against what the index promises.
Result<std::shared_ptr<const SafetensorsFile>> open_weight_file(const WeightFile& file);

}  // namespace chiasm
