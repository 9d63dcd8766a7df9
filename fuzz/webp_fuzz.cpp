#include "image_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return chiasm::fuzz::try_picture(data, size, chiasm::Format::kWebp);
}
