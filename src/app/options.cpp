#include "app/options.h"

#include <cstdlib>
#include <limits>
#include <utility>

#include <CLI/CLI.hpp>

#include "app/console.h"

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

}  // namespace

void add_model_option(CLI::App& app, ModelOption& option) {
  app.add_option("-m,--model", option.given,
                 "Checkpoint folder, as published on the hub or written by 'chiasm split'.\nElse the environment "
                 "variable CHIASM_MODEL, else the demo model")
      ->type_name("DIR");
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
  const CLI::Validator positive = CLI::Range(std::int64_t{1}, std::numeric_limits<std::int64_t>::max()).description("");
  app.add_option("--min-pixels", options.min_pixels, "Enlarge smaller pictures to N pixels (default: the model's)")
      ->type_name("N")
      ->check(positive);
  app.add_option("--max-pixels", options.max_pixels, "Shrink larger pictures to N pixels (default: the model's)")
      ->type_name("N")
      ->check(positive);
}

Result<std::optional<fs::path>> features_folder(const PictureOptions& options) {
  if (options.features == "none") return std::nullopt;
  fs::path out = options.features;
  if (out.empty()) {
    // The XDG base directory specification has relative paths ignored.
    const fs::path cache = environment("XDG_CACHE_HOME"), home = environment("HOME");
    if (cache.is_absolute()) {
      out = cache / "chiasm" / "features";
    } else if (home.is_absolute()) {
      out = home / ".cache" / "chiasm" / "features";
    } else {
      return std::nullopt;
    }
  }
  std::error_code error;
  if (fs::exists(out, error) && !fs::is_directory(out, error))
    return fail(Code::kInvalidArgument, "--features: '{}' is a file; name a folder (it is made when absent) or 'none'",
                out.string());
  return out;
}

Result<VisionSideOptions> vision_options(const fs::path& model, const PictureOptions& options, Console& console) {
  VisionSideOptions out;
  out.model = model;
  ASSIGN_OR_RETURN(out.features, features_folder(options));
  out.min_pixels = options.min_pixels;
  out.max_pixels = options.max_pixels;
  out.on_warning = [&console](std::string_view message) { console.warn(message); };
  out.on_load = [&console] { console.progress("loading the vision encoder"); };
  return out;
}

void add_threads_option(CLI::App& app, int& threads) {
  app.add_option("--threads", threads, "Threads to compute with (default: all cores); results do not depend on it")
      ->type_name("N")
      ->check(CLI::Range(1, 1024).description(""));
}

void add_output_options(CLI::App& app, OutputOptions& options, const std::string& what_json_prints) {
  app.add_flag("--json", options.json, what_json_prints);
  app.add_flag("-q,--quiet", options.quiet, "No progress line");
}

}  // namespace chiasm
