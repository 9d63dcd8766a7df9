// chiasm quantize: a checkpoint whose matrices are integers.
#include <filesystem>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/console.h"
#include "app/interrupt.h"
#include "app/options.h"
#include "app/pictures.h"
#include "models/checkpoint.h"

namespace chiasm {
namespace {

constexpr const char* kFooter =
    R"(What --precision rounds to while loading, kept: OUT is a checkpoint folder that every command takes as it is, half (int8) or
a third (int4) of the size, and answers the same bit for bit. A half of a split checkpoint becomes such a half. OUT must not
exist or be empty; it appears complete or not at all.

Examples:
  chiasm quantize -m Qwen2-VL-2B-Instruct --precision int8 qwen2-vl-2b-int8
  chiasm ask -m qwen2-vl-2b-int8 -i street.jpg "Is it day or night?"
  chiasm quantize -m MODEL --precision int4 --vision-precision exact OUT    integers for the language model only)";

struct Options {
  ModelOption model;
  std::string out;
  OutputOptions output;
};

int run(const Options& options, Console& console) {
  if (options.output.json || options.output.quiet) console.be_quiet();
  const auto language = options.model.language(), vision = options.model.vision();
  if (!language || (*language == Precision::kExact && *vision == Precision::kExact))
    return console.usage("nothing to round: say --precision int8 or --precision int4");
  const Result<std::filesystem::path> model = model_folder(options.model);
  if (!model) return console.fault(model.error());
  const std::filesystem::path out(options.out);
  const auto tell = [&](std::uint64_t at, std::uint64_t of) {
    console.progress(fmt::format("rounding {} of {}", readable_bytes(static_cast<double>(at)),
                                 readable_bytes(static_cast<double>(of))));
  };
  const Interrupt interrupt;
  const Status done = quantise_checkpoint(*model, out, *vision, *language, tell, &Interrupt::requested());
  if (!done) {
    console.fault(done.error());
    return done.error().code == Code::kCancelled ? Interrupt::exit_code() : kExitFault;
  }
  std::uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(out, error))
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size(error);
  if (options.output.json) {
    const nlohmann::ordered_json json{{"model", model->string()},
                                      {"out", out.string()},
                                      {"vision_precision", precision_name(*vision)},
                                      {"precision", precision_name(*language)},
                                      {"bytes", bytes}};
    console.line("{}", json_text(json));
    return kExitSuccess;
  }
  console.line("{}: vision {}, language {}, {}", out.string(), precision_name(*vision), precision_name(*language),
               readable_bytes(static_cast<double>(bytes)));
  return kExitSuccess;
}

}  // namespace

Command add_quantize(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("quantize", "Round a checkpoint's matrices to int8 or int4");
  app->footer(kFooter);
  add_model_option(*app, options->model);
  add_word(*app, "out", options->out, "Folder to make")->type_name("OUT")->required();
  add_output_options(*app, options->output, "One JSON object: out, precision, vision_precision, bytes");
  return {app, [options](Console& console) { return run(*options, console); }};
}

}  // namespace chiasm
