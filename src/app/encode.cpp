// chiasm encode: pictures become feature files.
#include <filesystem>
#include <map>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/console.h"
#include "app/options.h"
#include "app/pictures.h"
#include "features/feature_file.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFooter =
    R"(One picture goes to FILE, or to DIR where that is a folder or ends in '/'; several go to DIR, each as
NAME.safetensors. A feature file is a safetensors file of one tensor, image_embeds [rows, width]; any reader opens it.
A picture that is known (--features) is not looked at again.

Examples:
  chiasm encode street.jpg -o street.safetensors
  chiasm encode album/*.jpg -o features/ --dtype bf16
  chiasm encode -m OUT/vision --features shared/ street.jpg -o street.safetensors    then: chiasm ask -m OUT/language
                                                                                     --features shared/ -i street.jpg
  chiasm encode *.png -o features/ --json | jq -r .feature_id)";

struct Options {
  ModelOption model;
  PictureOptions pictures;
  OutputOptions output;
  std::vector<std::string> paths;
  std::string out, dtype = "f32";
  int threads = 0;
};

DType dtype_of(const std::string& name) {
  return name == "bf16" ? DType::kBF16 : name == "f16" ? DType::kF16 : DType::kF32;
}

// Where each picture's file goes. Two pictures of one name would overwrite each other: an error.
Result<std::vector<fs::path>> targets(const Options& options) {
  std::error_code error;
  const fs::path out(options.out);
  const bool folder = fs::is_directory(out, error) || !out.has_filename();
  if (options.paths.size() == 1 && !folder) return std::vector{out};
  if (!folder && fs::exists(out, error))
    return fail(Code::kInvalidArgument, "-o {}: several pictures need a folder, and this is a file", options.out);
  std::vector<fs::path> files;
  std::map<fs::path, std::string> taken;
  for (const std::string& path : options.paths) {
    fs::path file = out / fs::path(path).filename();
    file += ".safetensors";
    const auto [other, fresh] = taken.emplace(file, path);
    if (!fresh)
      return fail(Code::kInvalidArgument, "{} and {} would both become {}: encode them into different folders",
                  other->second, path, file.string());
    files.push_back(std::move(file));
  }
  return files;
}

int run(const Options& options, Console& console) {
  if (options.output.json || options.output.quiet) console.be_quiet();
  const Result<fs::path> model = model_folder(options.model);
  if (!model) return console.fault(model.error());
  const Result<std::vector<fs::path>> files = targets(options);
  if (!files) return console.usage(files.error().message);
  const Result<VisionSideOptions> side_options = vision_options(*model, options.pictures, console);
  if (!side_options) return console.fault(side_options.error());
  ThreadPool threads(options.threads);
  console.progress("reading the configuration and the vision digest");
  const Result<std::unique_ptr<VisionSide>> side = VisionSide::open(*side_options, threads);
  if (!side) return console.fault(side.error());

  // A bad picture does not keep the others from being encoded.
  std::size_t failed = 0;
  for (std::size_t i = 0; i < files->size(); ++i) {
    console.progress(fmt::format("looking at {} ({}/{})", options.paths[i], i + 1, files->size()));
    const Result<LookedAt> picture = look_at(**side, *side_options, {{options.paths[i]}, false});
    if (!picture) {
      console.fault(picture.error());
      ++failed;
      continue;
    }
    const fs::path& file = (*files)[i];
    if (const Status saved = save_feature(file, *picture->seen.feature, dtype_of(options.dtype)); !saved)
      return console.fault({saved.error().code, fmt::format("cannot write the feature: {}", saved.error().message)});
    if (options.output.json) {
      auto line = picture_json<nlohmann::ordered_json>(*picture);
      line["file"] = file.string();
      console.line("{}", json_text(line));
    } else {
      console.line("{}: {}", console.strong(options.paths[i]), describe(*picture));
      console.line("   -> {} ({})", file.string(), options.dtype);
    }
  }
  if (failed == 0) return kExitSuccess;
  if (files->size() > 1)
    return console.fault({Code::kInvalidArgument, fmt::format("{} of {} pictures failed", failed, files->size())});
  return kExitFault;
}

}  // namespace

Command add_encode(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("encode", "Turn pictures into feature files");
  app->footer(kFooter);
  add_model_option(*app, options->model);
  app->add_option("picture", options->paths, "JPEG, PNG, WebP, GIF or BMP files")->type_name("PICTURE")->required();
  app->add_option("-o,--out", options->out, "Feature file, or folder for feature files (made when absent)")
      ->type_name("FILE|DIR")
      ->required();
  app->add_option("--dtype", options->dtype, "Type of the stored values: f32 (exact), f16 or bf16 (default: f32)")
      ->type_name("f32|f16|bf16")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}).description(""));
  add_picture_options(*app, options->pictures, "$XDG_CACHE_HOME/chiasm/features");
  add_threads_option(*app, options->threads);
  add_output_options(*app, options->output, "One JSON object a line: path, feature_id, ..., file");
  return {app, [options](Console& console) { return run(*options, console); }};
}

}  // namespace chiasm
