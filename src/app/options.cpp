#include "app/options.h"

#include <charconv>
#include <cstdlib>
#include <limits>
#include <utility>

#include <CLI/CLI.hpp>

#include "app/console.h"
#include "kernels/devices.h"
#include "models/checkpoint.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

// build/release/bin/chiasm finds models/toytown; bin/chiasm of an installation finds share/chiasm/models/toytown.
fs::path demo_model() {
  std::error_code error;
  const fs::path bin = fs::read_symlink("/proc/self/exe", error).parent_path();
  if (error) return {};
  for (const char* place : {"../../../models/toytown", "../share/chiasm/models/toytown"}) {
    fs::path out = (bin / place).lexically_normal();
    if (fs::is_directory(out, error)) return out;
  }
  return {};
}

// Of an option that takes a precision.
CLI::Validator known_precision() {
  return {[](std::string& text) {
            const auto precision = precision_from_name(text);
            return precision ? std::string() : precision.error().message;
          },
          ""};
}

CLI::Validator is_device(Devices devices) {
  return {[devices](std::string& text) {
            const Status status = devices == Devices::kOne ? check_one_device(text) : check_device(text);
            return status ? std::string() : status.error().message;
          },
          ""};
}

// What was given, or the folder of this name in the user's cache.
Result<std::optional<fs::path>> cache_folder(const std::optional<std::string>& given, const char* name,
                                             std::string_view option) {
  if (given == "none") return std::nullopt;
  fs::path out = given.value_or("");
  if (out.empty()) {
    // The XDG base directory specification has relative paths ignored.
    const fs::path cache = environment("XDG_CACHE_HOME"), home = environment("HOME");
    if (cache.is_absolute()) {
      out = cache / "chiasm" / name;
    } else if (home.is_absolute()) {
      out = home / ".cache" / "chiasm" / name;
    } else {
      return std::nullopt;
    }
  }
  std::error_code error;
  if (fs::exists(out, error) && !fs::is_directory(out, error))
    return fail(Code::kInvalidArgument, "{}: '{}' is a file; name a folder (it is made when absent) or 'none'", option,
                out.string());
  return out;
}

}  // namespace

std::optional<Precision> ModelOption::language() const {
  return precision.empty() ? std::nullopt : std::optional(precision_from_name(precision).value_or(Precision::kExact));
}

std::optional<Precision> ModelOption::vision() const {
  const std::string& own = vision_precision.empty() ? precision : vision_precision;
  if (own.empty()) return std::nullopt;
  return chiasm::vision_precision(precision_from_name(own).value_or(Precision::kExact));
}

void add_model_option(CLI::App& app, ModelOption& option, Devices devices) {
  app.add_option("-m,--model", option.given,
                 "Checkpoint folder, as published on the hub or written by 'chiasm split'.\nElse the environment "
                 "variable CHIASM_MODEL, else the demo model")
      ->type_name("DIR");
  expect_something(app.get_option("--model"));
  const std::string several =
      devices == Devices::kOne ? "" : ".\nSeveral cards, as in cuda:0,1, share the language model";
  app.add_option("--device", option.device,
                 "Where to compute: cpu, cuda:N (a card), or auto: the first card if there is one" + several +
                     "\n(default: auto)")
      ->type_name("DEVICE")
      ->check(is_device(devices));
  app.add_option(
         "--precision", option.precision,
         "What to multiply matrices in: exact (as the checkpoint has them), int8 (half the memory),\nint4 (the "
         "language model's; the encoder's are int8), or fp8 (one card only: half the memory,\nfaster). Rounding is "
         "done while loading; 'chiasm quantize' rounds to integers once\n(default: as they are stored)")
      ->type_name("exact|int8|int4|fp8")
      ->check(known_precision());
  app.add_option(
         "--vision-precision", option.vision_precision,
         "The same of the vision encoder alone: features of int8, of fp8 and of exact ones have names\nof their "
         "own (default: --precision)")
      ->type_name("exact|int8|fp8")
      ->check(known_precision());
  app.add_option("--weight-cache", option.weight_cache,
                 "Folder that keeps what was rounded, so that the next start reads it as it is, or none\n(default: "
                 "chiasm/weights in the user's cache folder)")
      ->type_name("DIR|none");
  expect_something(app.get_option("--weight-cache"));
}

void add_vision_device_option(CLI::App& app, ModelOption& option) {
  app.add_option("--vision-device", option.vision_device,
                 "Where the vision encoder computes, if not where --device says (there, on the first of\nseveral)")
      ->type_name("DEVICE")
      ->check(is_device(Devices::kOne));
}

std::string vision_device_of(const ModelOption& option) {
  return option.vision_device.empty() ? first_device(option.device) : option.vision_device;
}

Result<fs::path> checkpoint_folder(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return fail(Code::kNotFound, "model folder '{}' does not exist", path);
  if (!fs::is_directory(path, error))
    return fail(Code::kNotFound, "model '{}' is a file, not a checkpoint folder: name the folder it lies in", path);
  return fs::path(path);
}

Result<fs::path> model_folder(const ModelOption& option) {
  constexpr const char* kWays =
      "name a checkpoint folder with -m DIR or CHIASM_MODEL=DIR; with neither, the demo model beside the program is "
      "used";
  const std::string by_environment = environment("CHIASM_MODEL");
  std::string from = "-m", path = option.given;
  if (path.empty() && !by_environment.empty()) {
    from = "CHIASM_MODEL";
    path = by_environment;
  }
  if (path.empty()) {
    fs::path demo = demo_model();
    if (demo.empty())
      return fail(Code::kNotFound, "no model was named, and there is no demo model beside the program; {}", kWays);
    return demo;
  }
  std::error_code error;
  if (!fs::exists(path, error))
    return fail(Code::kNotFound, "model folder '{}' (from {}) does not exist; {}", path, from, kWays);
  if (!fs::is_directory(path, error))
    return fail(Code::kNotFound, "model '{}' (from {}) is a file, not a checkpoint folder; {}", path, from, kWays);
  return fs::path(path);
}

void add_picture_options(CLI::App& app, PictureOptions& options, const std::string& default_features) {
  app.add_option("--features", options.features,
                 "Folder that keeps the features of known pictures, or none\n(default: " + default_features + ")")
      ->type_name("DIR|none");
  expect_something(app.get_option("--features"));
  add_size_option(app, "--features-size", options.features_size,
                  "Keep at most so many bytes of features, as in 500MB or 10GiB;\nthe least recently used go first "
                  "(default: 10GiB)");
  constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  expect_whole(
      app.add_option("--min-pixels", options.min_pixels, "Enlarge smaller pictures to N pixels (default: the model's)"),
      1, kLargest);
  expect_whole(
      app.add_option("--max-pixels", options.max_pixels, "Shrink larger pictures to N pixels (default: the model's)"),
      1, kLargest);
}

void add_decode_options(CLI::App& app, PictureOptions& options) {
  expect_whole(app.add_option("--max-megapixels", options.max_megapixels,
                              "Refuse files of pictures with more than N million pixels (default: 64)"),
               1, 100'000);
}

void expect_whole(CLI::Option* option, std::uint64_t low, std::uint64_t high) {
  option->type_name("N")->transform(CLI::Validator(
      [low, high](std::string& text) -> std::string {
        std::uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size() || value < low || value > high)
          return fmt::format("expected a whole number from {} to {}, got '{}'", low, high, text);
        text = std::to_string(value);
        return {};
      },
      ""));
}

void expect_number(CLI::Option* option, const std::string& what, bool (*good)(double)) {
  option->type_name("X")->check(CLI::Validator(
      [what, good](std::string& text) -> std::string {
        double value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error == std::errc() && end == text.data() + text.size() && good(value)) return {};
        return fmt::format("expected {}, got '{}'", what, text);
      },
      ""));
}

void expect_something(CLI::Option* option) {
  option->check(CLI::Validator(
      [](std::string& text) { return text.empty() ? std::string("expected a word, got an empty one") : std::string(); },
      ""));
}

Result<std::optional<fs::path>> features_folder(const PictureOptions& options) {
  return cache_folder(options.features, "features", "--features");
}

Result<std::optional<fs::path>> weights_folder(const ModelOption& option) {
  return cache_folder(option.weight_cache, "weights", "--weight-cache");
}

std::function<void(bool)> progress_of_loading(Console& console, std::string what) {
  return [&console, what = std::move(what), before = std::string()](bool loaded) mutable {
    if (!loaded) before = console.progress_text();
    console.progress(loaded ? before : "loading " + what);
  };
}

void add_size_option(CLI::App& app, const std::string& name, std::optional<std::uint64_t>& size,
                     const std::string& help) {
  app.add_option(name, size, help)->type_name("SIZE")->transform(CLI::AsSizeValue(true).description(""));
}

void add_feature_memory_option(CLI::App& app, std::optional<std::uint64_t>& bytes) {
  add_size_option(app, "--feature-memory", bytes, "Keep features of up to SIZE in memory (default: 256MiB)");
}

void add_threads_option(CLI::App& app, int& threads) {
  expect_whole(
      app.add_option("--threads", threads, "Threads to compute with (default: all cores); results do not depend on it"),
      1, 1024);
}

void add_output_options(CLI::App& app, OutputOptions& options, const std::string& what_json_prints) {
  app.add_flag("--json", options.json, what_json_prints);
  app.add_flag("-q,--quiet", options.quiet, "No progress line");
}

}  // namespace chiasm
