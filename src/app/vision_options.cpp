#include "app/vision_options.h"

#include "app/console.h"

namespace chiasm {

Result<VisionSideOptions> vision_options(const std::filesystem::path& model, const ModelOption& option,
                                         const PictureOptions& options, Console& console) {
  VisionSideOptions out;
  out.model = model;
  out.device = vision_device_of(option);
  out.precision = option.vision();
  ASSIGN_OR_RETURN(out.weights, weights_folder(option));
  ASSIGN_OR_RETURN(out.features, features_folder(options));
  if (!out.features && !options.features)
    console.warn("neither XDG_CACHE_HOME nor HOME is set: what is seen will not be kept (--features DIR keeps it)");
  out.disk_bytes = options.features_size.value_or(out.disk_bytes);
  if (options.max_megapixels) out.limits.max_pixels = static_cast<std::uint64_t>(*options.max_megapixels) * 1'000'000;
  out.min_pixels = options.min_pixels;
  out.max_pixels = options.max_pixels;
  out.on_warning = [&console](std::string_view message) { console.warn(message); };
  out.on_load = progress_of_loading(console, "the vision encoder");
  return out;
}

}  // namespace chiasm
