// chiasm split: a checkpoint becomes a vision folder and a language folder.
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
    R"(Writes OUT/vision and OUT/language. Both carry the digest of the vision weights, so that the language side knows the
features it was made for. OUT must not exist or be empty; it appears complete or not at all.

Examples:
  chiasm split Qwen2-VL-2B-Instruct halves
  chiasm encode -m halves/vision --features shared/ street.jpg -o street.safetensors
  chiasm ask -m halves/language --features shared/ -i street.jpg "Is it day or night?")";

struct Options {
  std::string model, out;
  OutputOptions output;
};

int run(const Options& options, Console& console) {
  if (options.output.json || options.output.quiet) console.be_quiet();
  const Result<std::filesystem::path> model = checkpoint_folder(options.model);
  if (!model) return console.fault(model.error());
  const std::filesystem::path out(options.out);
  std::uint64_t total = 0;
  const auto tell = [&](std::uint64_t at, std::uint64_t of) {
    total = of;
    console.progress(fmt::format("writing {} of {}", readable_bytes(static_cast<double>(at)),
                                 readable_bytes(static_cast<double>(of))));
  };
  const Interrupt interrupt;
  const Status done = split_checkpoint(*model, out, tell, kShardBytes, &Interrupt::requested());
  if (!done) {
    console.fault(done.error());
    return done.error().code == Code::kCancelled ? Interrupt::exit_code() : kExitFault;
  }
  const Result<Digest> digest = vision_digest_of(out / "language");
  if (!digest) return console.fault(digest.error());
  if (options.output.json) {
    const nlohmann::ordered_json json{{"model", model->string()},
                                      {"vision", (out / "vision").string()},
                                      {"language", (out / "language").string()},
                                      {"vision_digest", digest->hex()},
                                      {"bytes", total}};
    console.line("{}", json_text(json));
    return kExitSuccess;
  }
  console.line("{}\n{}", (out / "vision").string(), (out / "language").string());
  console.line("vision digest {}, {} of tensors", digest->hex(), readable_bytes(static_cast<double>(total)));
  return kExitSuccess;
}

}  // namespace

Command add_split(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("split", "Divide a checkpoint into a vision and a language folder");
  app->footer(kFooter);
  add_word(*app, "model", options->model, "Checkpoint folder")->type_name("MODEL")->required();
  add_word(*app, "out", options->out, "Folder to make")->type_name("OUT")->required();
  add_output_options(*app, options->output, "One JSON object: vision, language, vision_digest, bytes");
  return {app, [options](Console& console) { return run(*options, console); }};
}

}  // namespace chiasm
