// Pictures and videos by their paths: read, looked at, described.
//
// Thread contract: the main thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "roles/vision_side.h"

namespace chiasm {

// One picture (one path) or one video (its frames); or the one feature file that either became.
struct PictureInput {
  std::vector<std::string> paths;
  bool video = false;
  std::string name() const;  // "a.png", "a.png .. d.png (4 frames)"
};

// Of a command line: the pictures first, then each video, an index into `frames`.
std::vector<PictureInput> inputs_of(const std::vector<std::string>& pictures, const std::vector<std::size_t>& videos,
                                    const std::vector<std::vector<std::string>>& frames);

struct LookedAt {
  PictureInput input;
  SeenPicture seen;
  // decode + resize + patchify + encode; 0 when the picture was known.
  double encode_ms() const { return seen.times.total_ms(); }
};

// A feature file is taken as it is. Errors name the file, and say what to do where the model folder has no vision
// encoder: whether other weights or other pixel limits made what is kept of the picture.
Result<LookedAt> look_at(VisionSide& side, const VisionSideOptions& options, PictureInput input);

// "grid 1x14x20, 70 rows; looked at in 31.2 ms (decode 3.1, resize 1.2, patchify 0.4, encode 26.5)"
std::string describe(const LookedAt& picture);

double rounded_ms(double ms);  // to three decimals, for JSON

// The two below are templates over nlohmann's Json, whose header stays out of this one.

// {path | paths, feature_id, grid_thw, rows, source, encode_ms}
template <class Json>
Json picture_json(const LookedAt& picture) {
  const Feature& feature = *picture.seen.feature;
  Json out;
  if (picture.input.video) {
    out["paths"] = picture.input.paths;
  } else {
    out["path"] = picture.input.paths.front();
  }
  out["feature_id"] = feature.meta.id.hex();
  out["grid_thw"] = feature.meta.grid_thw;
  out["rows"] = feature.rows.rows();
  out["source"] = source_name(picture.seen.source);
  out["encode_ms"] = rounded_ms(picture.encode_ms());
  return out;
}

// One line, without an end of line; bytes that are not UTF-8 become U+FFFD.
template <class Json>
std::string json_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace chiasm
