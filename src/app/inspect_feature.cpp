#include <nlohmann/json.hpp>

#include "app/inspect.h"
#include "app/pictures.h"
#include "features/feature_file.h"
#include "features/statistics.h"

namespace chiasm {

int inspect_feature(const std::filesystem::path& file, const InspectOptions& options, Console& console) {
  const auto feature = load_feature(file);
  if (!feature) return console.fault(feature.error());
  const FeatureMeta& meta = feature->meta;
  const FeatureStatistics s = statistics_of(feature->rows.view());
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(file, error);
  if (options.json) {
    nlohmann::ordered_json out;
    out["path"] = file.string();
    out["kind"] = "feature";
    out["feature_id"] = meta.id.hex();
    out["vision_digest"] = meta.vision_digest.hex();
    out["preprocess_digest"] = meta.preprocess_digest.hex();
    out["image_digest"] = meta.image_digest.hex();
    out["grid_thw"] = meta.grid_thw;
    out["model"] = meta.model;
    if (!meta.arithmetic.empty()) out["arithmetic"] = meta.arithmetic;
    out["dtype"] = dtype_name(meta.dtype);
    out["bytes"] = size;
    out["rows"] = s.rows;
    out["width"] = s.width;
    out["statistics"] = {{"min", s.min},
                         {"max", s.max},
                         {"mean", s.mean},
                         {"stddev", s.stddev},
                         {"zeros", s.zeros},
                         {"row_norm", {{"min", s.row_norm_min}, {"mean", s.row_norm_mean}, {"max", s.row_norm_max}}}};
    console.line("{}", json_text(out));
    return kExitSuccess;
  }
  console.line("{}: a feature of {} rows of {} values, {}, {}", console.strong(file.string()), s.rows, s.width,
               dtype_name(meta.dtype), readable_bytes(static_cast<double>(size)));
  console.line("model              {}", meta.model);
  if (!meta.arithmetic.empty()) console.line("arithmetic         {}", meta.arithmetic);
  console.line("grid_thw           {} x {} x {} patches", meta.grid_thw[0], meta.grid_thw[1], meta.grid_thw[2]);
  console.line("feature_id         {}", meta.id.hex());
  console.line("vision_digest      {}", meta.vision_digest.hex());
  console.line("preprocess_digest  {}", meta.preprocess_digest.hex());
  console.line("image_digest       {}", meta.image_digest.hex());
  console.line("values             {:.4g} to {:.4g}, mean {:.4g}, standard deviation {:.4g}, {} zeros", s.min, s.max,
               s.mean, s.stddev, s.zeros);
  console.line("length of a row    {:.4g} to {:.4g}, mean {:.4g}", s.row_norm_min, s.row_norm_max, s.row_norm_mean);
  console.line("checksums          as they should be");
  return kExitSuccess;
}

}  // namespace chiasm
