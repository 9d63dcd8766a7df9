// What the vision side is told by the options of commands and servers.
//
// Thread contract: plain values.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

#include "app/options.h"
#include "base/result.h"
#include "roles/vision_side.h"

namespace chiasm {

// Progress and warnings go to the console, which must outlive the side. `model` is the folder that `option` names.
Result<VisionSideOptions> vision_options(const std::filesystem::path& model, const ModelOption& option,
                                         const PictureOptions& options, Console& console);

}  // namespace chiasm
