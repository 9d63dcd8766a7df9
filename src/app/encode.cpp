// chiasm encode: pictures and videos become feature files.
#include <filesystem>
#include <map>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "app/command.h"
#include "app/console.h"
#include "app/options.h"
#include "app/pictures.h"
#include "app/vision_options.h"
#include "base/file.h"
#include "features/feature_file.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFooter =
    R"(One picture goes to FILE, or to DIR where that is a folder or ends in '/'; several go to DIR, each as
NAME.safetensors; a video takes the name of its first frame. A feature file is a safetensors file of one tensor,
image_embeds [rows, width]; any reader opens it. Existing feature files are replaced, other files are not. A picture
that is known (--features) is not looked at again.

Elsewhere, chiasm ask takes the feature file in the picture's place; or the picture itself, where both commands share
one --features folder.

Examples:
  chiasm encode street.jpg -o street.safetensors        then: chiasm ask -i street.safetensors "How many cars?"
  chiasm encode album/*.jpg -o features/ --dtype bf16
  chiasm encode --video frame-*.png -o drive.safetensors                then: chiasm ask --video drive.safetensors ...
  chiasm encode -m OUT/vision street.jpg -o street.safetensors --features shared/
  chiasm encode *.png -o features/ --json | jq -r .feature_id

Exit code: 0 when every picture became a file, 1 otherwise; a bad picture does not keep the others from it.)";

struct Options {
  ModelOption model;
  PictureOptions pictures;
  OutputOptions output;
  std::vector<std::string> paths;
  std::vector<std::size_t> videos;  // indices into the frame lists
  std::string out, dtype = "f32";
  int threads = 0;
};

DType dtype_of(const std::string& name) {
  return name == "bf16" ? DType::kBF16 : name == "f16" ? DType::kF16 : DType::kF32;
}

bool is_standard_output(const fs::path& file) {
  struct stat given{}, out{};
  return ::stat(file.c_str(), &given) == 0 && ::fstat(STDOUT_FILENO, &out) == 0 && !S_ISCHR(given.st_mode) &&
         given.st_dev == out.st_dev && given.st_ino == out.st_ino;
}

// Nothing of a user's is lost: a picture, above all.
Status check_replaceable(const fs::path& file) {
  std::error_code error;
  if (is_standard_output(file))
    return fail(Code::kInvalidArgument, "-o {}: that is standard output, where the results are told; name a file",
                file.string());
  if (!fs::is_regular_file(file, error) || fs::is_empty(file, error) || looks_like_feature_file(file)) return {};
  return fail(Code::kInvalidArgument, "-o {}: exists and is no feature file; name another, or remove it first",
              file.string());
}

// Where each picture's file goes. Two pictures of one name would overwrite each other: an error.
Result<std::vector<fs::path>> targets(const Options& options, const std::vector<PictureInput>& inputs) {
  std::error_code error;
  const fs::path out(options.out);
  const bool folder = fs::is_directory(out, error) || !out.has_filename();
  if (inputs.size() == 1 && !folder) {
    RETURN_IF_ERROR(check_replaceable(out));
    return std::vector{out};
  }
  if (!folder && fs::exists(out, error))
    return fail(Code::kInvalidArgument, "-o {}: several pictures need a folder, and this is a file", options.out);
  std::vector<fs::path> files;
  std::map<fs::path, std::string> taken;
  for (const PictureInput& input : inputs) {
    const std::string& path = input.paths.front();
    fs::path file = out / fs::path(path).filename();
    file += ".safetensors";
    const auto [other, fresh] = taken.emplace(file, path);
    if (!fresh)
      return fail(Code::kInvalidArgument, "{} and {} would both become {}: encode them into different folders",
                  other->second, path, file.string());
    RETURN_IF_ERROR(check_replaceable(file));
    files.push_back(std::move(file));
  }
  return files;
}

Status write_feature(const fs::path& file, const Feature& feature, DType dtype) {
  ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, serialize_feature(feature, dtype));
  return write_file(file, {bytes});
}

void print_picture(const Options& options, const LookedAt& picture, const fs::path& file, Console& console) {
  if (options.output.json) {
    auto line = picture_json<nlohmann::ordered_json>(picture);
    line["file"] = file.string();
    console.line("{}", json_text(line));
  } else {
    console.line("{}: {}", console.strong(picture.input.name()), describe(picture));
    console.line("   -> {} ({})", file.string(), options.dtype);
  }
}

int run(const Options& options, const FrameLists& frames, Console& console) {
  if (options.output.json || options.output.quiet) console.be_quiet();
  if (const Status sound = check_frame_lists(frames); !sound) return console.usage(sound.error().message);
  const std::vector<PictureInput> inputs = inputs_of(options.paths, options.videos, frames);
  if (inputs.empty())
    return console.usage("no picture was given: name pictures, or the frames of a video with --video");
  const Result<fs::path> model = model_folder(options.model);
  if (!model) return console.fault(model.error());
  const Result<std::vector<fs::path>> files = targets(options, inputs);
  if (!files) return console.usage(files.error().message);
  const Result<VisionSideOptions> side_options = vision_options(*model, options.model, options.pictures, console);
  if (!side_options) return console.fault(side_options.error());
  ThreadPool threads(options.threads);
  console.progress("reading the configuration and the vision digest");
  const Result<std::unique_ptr<VisionSide>> side = VisionSide::open(*side_options, threads);
  if (!side) return console.fault(side.error());

  // A bad picture does not keep the others from being encoded; a file that cannot be written does: so would the next.
  std::size_t failed = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    console.progress(fmt::format("looking at {} ({}/{})", inputs[i].name(), i + 1, inputs.size()));
    const Result<LookedAt> picture = look_at(**side, *side_options, inputs[i]);
    if (!picture) {
      console.fault(picture.error());
      ++failed;
      continue;
    }
    if (const Status saved = write_feature((*files)[i], *picture->seen.feature, dtype_of(options.dtype)); !saved)
      return console.fault(
          {saved.error().code, fmt::format("cannot write the feature: {}; {} of {} pictures not tried",
                                           saved.error().message, inputs.size() - i - 1, inputs.size())});
    print_picture(options, *picture, (*files)[i], console);
  }
  if (failed == 0) return kExitSuccess;
  if (inputs.size() > 1)
    return console.fault({Code::kInvalidArgument, fmt::format("{} of {} pictures failed", failed, inputs.size())});
  return kExitFault;
}

}  // namespace

Command add_encode(CLI::App& program, const FrameLists& frames) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("encode", "Turn pictures and videos into feature files");
  app->footer(kFooter);
  add_model_option(*app, options->model);
  add_words(*app, "picture", options->paths, "JPEG, PNG, WebP, GIF or BMP files")->type_name("PICTURE");
  add_video_option(*app, options->videos);
  app->add_option("-o,--out", options->out, "Feature file, or folder for feature files (made when absent)")
      ->type_name("FILE|DIR")
      ->required();
  expect_something(app->get_option("--out"));
  app->add_option("--dtype", options->dtype, "Type of the stored values: f32 (exact), f16 or bf16 (default: f32)")
      ->type_name("f32|f16|bf16")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}).description(""));
  add_picture_options(*app, options->pictures, "$XDG_CACHE_HOME/chiasm/features");
  add_decode_options(*app, options->pictures);
  add_threads_option(*app, options->threads);
  add_output_options(*app, options->output, "One JSON object a line: path, feature_id, ..., file");
  return {app, [options, &frames](Console& console) { return run(*options, frames, console); }};
}

}  // namespace chiasm
