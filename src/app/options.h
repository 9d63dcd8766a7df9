// Options that several commands share: which model, which features, how many threads.
//
// Thread contract: plain values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "tensor/precision.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library says it so
class App;
class Option;
}  // namespace CLI

namespace chiasm {

class Console;

struct ModelOption {
  std::string given;            // with -m or by CHIASM_MODEL
  std::string device = "auto";  // where it computes: devices.h
  std::string precision, vision_precision;
  std::optional<std::string> weight_cache;  // a folder, or "none"; else the user's cache folder
  std::string vision_device;  // where the vision encoder does, for programs that have both; empty: there too

  // Of the language model's matrices and of the vision encoder's; none: as they are stored.
  std::optional<Precision> language() const;
  std::optional<Precision> vision() const;
};
// A language model can be divided among several.
enum class Devices : std::uint8_t { kOne, kSeveral };
// -m, --device, --precision, --vision-precision and --weight-cache.
void add_model_option(CLI::App& app, ModelOption& option, Devices devices = Devices::kOne);
// --vision-device.
void add_vision_device_option(CLI::App& app, ModelOption& option);
// Where the vision encoder computes: on the first of several.
std::string vision_device_of(const ModelOption& option);

// -m, else CHIASM_MODEL, else the demo model beside the program. kNotFound, naming the three, where it is no folder.
Result<std::filesystem::path> model_folder(const ModelOption& option);
// The same for a command whose model is an argument of its own.
Result<std::filesystem::path> checkpoint_folder(const std::string& path);

struct PictureOptions {
  std::optional<std::string> features;  // a folder, or "none"; else the user's cache folder
  std::optional<std::uint64_t> features_size;
  std::optional<std::int64_t> min_pixels, max_pixels, max_megapixels;
};
// `default_features` is what --help calls the default; it is not set here.
void add_picture_options(CLI::App& app, PictureOptions& options, const std::string& default_features);

// For those who decode pictures themselves.
void add_decode_options(CLI::App& app, PictureOptions& options);

// $XDG_CACHE_HOME/chiasm/features, else ~/.cache/chiasm/features; nothing where neither is known or "none" was given.
// kInvalidArgument where something that is no folder has that name.
Result<std::optional<std::filesystem::path>> features_folder(const PictureOptions& options);

// $XDG_CACHE_HOME/chiasm/weights likewise, of --weight-cache.
Result<std::optional<std::filesystem::path>> weights_folder(const ModelOption& option);

// For on_load of the two sides: says what is being loaded, then again what it was being loaded for.
std::function<void(bool loaded)> progress_of_loading(Console& console, std::string what);

// For options that take a number: what is none (nan too) or outside is wrong usage, and the message says what is
// expected. Whole numbers are decimal, whatever they begin with.
void expect_whole(CLI::Option* option, std::uint64_t low, std::uint64_t high);
void expect_number(CLI::Option* option, const std::string& what, bool (*good)(double));
// A word that may not be empty: "$UNSET" must not stand for the default.
void expect_something(CLI::Option* option);

// A size in bytes, as in 500MB or 10GiB.
void add_size_option(CLI::App& app, const std::string& name, std::optional<std::uint64_t>& size,
                     const std::string& help);

void add_feature_memory_option(CLI::App& app, std::optional<std::uint64_t>& bytes);

void add_threads_option(CLI::App& app, int& threads);

struct OutputOptions {
  bool json = false, quiet = false;
};
void add_output_options(CLI::App& app, OutputOptions& options, const std::string& what_json_prints);

}  // namespace chiasm
