// Any text is either refused or an info that keys can be made of, and that reads the same when it is written again.
#include <cstdint>
#include <string_view>

#include "expect.h"
#include "fleet/vision_info.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace chiasm;
  using fuzz::expect;
  const auto info = parse_vision_info({reinterpret_cast<const char*>(data), size}, "/v1/info");
  if (!info) {
    expect(!info.error().message.empty());
    return 0;
  }
  const PreprocessorConfig& preprocessor = info->preprocessor;
  expect(preprocessor.digest() == info->preprocess_digest);
  expect(preprocessor.min_pixels >= 1 && preprocessor.min_pixels <= preprocessor.max_pixels);
  expect(preprocessor.patch_size > 0 && preprocessor.temporal_patch_size > 0 && preprocessor.merge_size > 0);
  for (const double std : preprocessor.image_std) expect(std > 0);
  expect(info->hidden_size > 0 && info->limits.max_body > 0 && info->limits.max_picture_tokens > 0);
  expect(info->limits.max_megapixels > 0);

  const std::string text = vision_info_json(*info);
  const auto again = parse_vision_info(text, "/v1/info");
  expect(again && again->preprocessor == info->preprocessor && again->vision_digest == info->vision_digest);
  expect(again->model == info->model && again->version == info->version && vision_info_json(*again) == text);
  return 0;
}
