#include "app/pictures.h"

#include <cmath>
#include <utility>

#include "base/file.h"

namespace chiasm {
namespace {

std::string grid_text(const FeatureMeta& meta) {
  return fmt::format("{}x{}x{}", meta.grid_thw[0], meta.grid_thw[1], meta.grid_thw[2]);
}

// Whether the folder is the language half of a split checkpoint: it has weights, none of them the vision encoder's.
bool lacks_vision(const std::filesystem::path& model) {
  return !Checkpoint::open(model, Role::kVision) && Checkpoint::open(model, Role::kLanguage);
}

// What to say of a picture that is not known where there is no vision encoder.
std::string why_unknown(const VisionSide& side, const VisionSideOptions& options, const PictureInput& input,
                        PictureFiles files) {
  std::string words;
  for (const std::string& path : input.paths) words += " " + path;
  const std::string advice = fmt::format(
      "look at it with the vision folder: 'chiasm encode -m VISION_FOLDER{}{} -o FILE.safetensors', and give "
      "that file instead of the picture; or encode and ask with one --features DIR (here: {})",
      input.video ? " --video" : "", words, options.features ? options.features->string() : "none");
  const std::vector<FeatureMeta> kin = side.kin_of(files);
  for (const FeatureMeta& other : kin)
    if (other.vision_digest == side.vision_digest())
      return fmt::format(
          "known at other pixel limits (preprocess_digest {}, here {}): ask with the --min-pixels and "
          "--max-pixels that it was looked at with, or {}",
          other.preprocess_digest.hex(), side.preprocess_digest().hex(), advice);
  if (!kin.empty())
    return fmt::format(
        "known, but only as the vision encoder with vision_digest {} sees it ('{}'), and {} belongs to "
        "vision_digest {}; with the vision folder of the same checkpoint, {}",
        kin.front().vision_digest.hex(), kin.front().model, options.model.string(), side.vision_digest().hex(), advice);
  return fmt::format("not a known picture, and {} has no vision encoder (it belongs to vision_digest {}); {}",
                     options.model.string(), side.vision_digest().hex(), advice);
}

Result<LookedAt> recall(const VisionSide& side, PictureInput input) {
  ASSIGN_OR_RETURN(SeenPicture seen, side.recall(input.paths.front()));
  if (!input.video && seen.feature->meta.grid_thw[0] > 1)
    return fail(Code::kInvalidArgument, "{}: the feature of a video: name it with --video", input.name());
  return LookedAt{std::move(input), std::move(seen)};
}

}  // namespace

std::string PictureInput::name() const {
  if (!video) return paths.front();
  if (paths.size() == 1) return paths.front() + (looks_like_feature_file(paths.front()) ? "" : " (1 frame)");
  return fmt::format("{} .. {} ({} frames)", paths.front(), paths.back(), paths.size());
}

std::vector<PictureInput> inputs_of(const std::vector<std::string>& pictures, const std::vector<std::size_t>& videos,
                                    const std::vector<std::vector<std::string>>& frames) {
  std::vector<PictureInput> out;
  out.reserve(pictures.size() + videos.size());
  for (const std::string& path : pictures) out.push_back({{path}, false});
  for (const std::size_t video : videos) out.push_back({frames.at(video), true});
  return out;
}

Result<LookedAt> look_at(VisionSide& side, const VisionSideOptions& options, PictureInput input) {
  if (input.paths.size() == 1 && looks_like_feature_file(input.paths.front())) return recall(side, std::move(input));
  std::vector<std::vector<std::byte>> contents;
  for (const std::string& path : input.paths) {
    ASSIGN_OR_RETURN(auto bytes, read_file(path, options.limits.max_bytes));
    contents.push_back(std::move(bytes));
  }
  const std::vector<std::span<const std::byte>> files(contents.begin(), contents.end());
  auto seen = side.look(files, kNoDeadline);
  if (seen) return LookedAt{std::move(input), *std::move(seen)};
  if (side.weight_bytes() == 0 && lacks_vision(options.model))
    return fail(Code::kFailedPrecondition, "{}: {}", input.name(), why_unknown(side, options, input, files));
  return fail_in(input.name(), seen.error());
}

std::string describe(const LookedAt& picture) {
  const Feature& feature = *picture.seen.feature;
  const EncodeTimes& times = picture.seen.times;
  const std::string size = fmt::format("grid {}, {} rows", grid_text(feature.meta), feature.rows.rows());
  if (picture.seen.source != Source::kEncoded)
    return fmt::format("{}; known ({}): the vision encoder did not run", size, source_name(picture.seen.source));
  return fmt::format("{}; looked at in {:.1f} ms (decode {:.1f}, resize {:.1f}, patchify {:.1f}, encode {:.1f})", size,
                     times.total_ms(), times.decode_ms, times.resize_ms, times.patchify_ms, times.encode_ms);
}

double rounded_ms(double ms) { return std::round(ms * 1000) / 1000; }

}  // namespace chiasm
