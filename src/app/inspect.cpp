// chiasm inspect: what a checkpoint folder or a feature file is.
#include "app/inspect.h"

#include <cerrno>
#include <cstring>
#include <memory>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "app/command.h"
#include "app/options.h"
#include "features/feature_file.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFooter =
    R"(A checkpoint: its parts, shapes and digests, and what memory each role needs. No weight is loaded; the vision digest
reads the vision tensors once and is remembered. A feature file: its metadata, checked, and statistics of its values.

Examples:
  chiasm inspect Qwen2-VL-2B-Instruct
  chiasm inspect halves/language --json | jq .memory
  chiasm inspect street.safetensors)";

struct Options {
  std::string path;
  OutputOptions output;
  bool tensors = false;
};

int run(const Options& options, Console& console) {
  if (options.output.json || options.output.quiet) console.be_quiet();
  const fs::path path(options.path);
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status))
    return console.fault(
        {Code::kNotFound, fmt::format("'{}': {}", options.path, error ? error.message() : "does not exist")});
  if (fs::is_regular_file(status) && ::access(path.c_str(), R_OK) != 0)
    return console.fault({Code::kInvalidArgument, fmt::format("'{}': {}", options.path, std::strerror(errno))});
  const InspectOptions what{options.output.json, options.tensors};
  if (fs::is_directory(path, error)) return inspect_checkpoint(path, what, console);
  if (looks_like_feature_file(path)) return inspect_feature(path, what, console);
  return console.fault({Code::kInvalidArgument,
                        fmt::format("'{}' is neither a checkpoint folder nor a feature file (a safetensors file whose "
                                    "metadata says format {}); for a weight file, name its folder",
                                    options.path, kFeatureFormat)});
}

}  // namespace

Command add_inspect(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("inspect", "Describe a checkpoint folder or a feature file");
  app->footer(kFooter);
  add_word(*app, "path", options->path, "Checkpoint folder (whole, vision or language) or feature file")
      ->type_name("PATH")
      ->required();
  app->add_flag("--tensors", options->tensors, "Every tensor by name instead of one line for all layers");
  add_output_options(*app, options->output, "One JSON object");
  return {app, [options](Console& console) { return run(*options, console); }};
}

}  // namespace chiasm
