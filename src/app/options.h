// Options that several commands share: which model, which features, how many threads.
//
// Thread contract: plain values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "roles/vision_side.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library says it so
class App;
}

namespace chiasm {

class Console;

struct ModelOption {
  std::string given;  // with -m or by CHIASM_MODEL
};
void add_model_option(CLI::App& app, ModelOption& option);

// -m, else CHIASM_MODEL, else the demo model beside the program. kNotFound, naming the three, where it is no folder.
Result<std::filesystem::path> model_folder(const ModelOption& option);

struct PictureOptions {
  std::string features;  // a folder, or "none"; empty: the user's cache folder
  std::optional<std::int64_t> min_pixels, max_pixels;
};
// `default_features` is what --help calls the default; it is not set here.
void add_picture_options(CLI::App& app, PictureOptions& options, const std::string& default_features);

// $XDG_CACHE_HOME/chiasm/features, else ~/.cache/chiasm/features; nothing where neither is known or "none" was given.
// kInvalidArgument where something that is no folder has that name.
Result<std::optional<std::filesystem::path>> features_folder(const PictureOptions& options);

// What VisionSide wants; progress and warnings go to the console, which must outlive it.
Result<VisionSideOptions> vision_options(const std::filesystem::path& model, const PictureOptions& options,
                                         Console& console);

void add_threads_option(CLI::App& app, int& threads);

struct OutputOptions {
  bool json = false, quiet = false;
};
void add_output_options(CLI::App& app, OutputOptions& options, const std::string& what_json_prints);

}  // namespace chiasm
