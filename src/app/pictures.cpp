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

}  // namespace

std::string PictureInput::name() const {
  if (!video) return paths.front();
  if (paths.size() == 1) return paths.front() + " (1 frame)";
  return fmt::format("{} .. {} ({} frames)", paths.front(), paths.back(), paths.size());
}

Result<LookedAt> look_at(VisionSide& side, const VisionSideOptions& options, PictureInput input) {
  std::vector<std::vector<std::byte>> contents;
  for (const std::string& path : input.paths) {
    ASSIGN_OR_RETURN(auto bytes, read_file(path, options.limits.max_bytes));
    contents.push_back(std::move(bytes));
  }
  const std::vector<std::span<const std::byte>> files(contents.begin(), contents.end());
  auto seen = side.look(files, kNoDeadline);
  if (seen) return LookedAt{std::move(input), *std::move(seen)};
  if (side.weight_bytes() == 0 && lacks_vision(options.model))
    return fail(Code::kFailedPrecondition,
                "{}: not a known picture, and {} has no vision encoder to look at it with; look at it with the vision "
                "folder first: 'chiasm encode -m VISION_FOLDER --features DIR {} -o FILE', then ask with the same "
                "--features DIR (here: {})",
                input.name(), options.model.string(), input.paths.front(),
                options.features ? options.features->string() : "none");
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
