// Any bytes are either refused or an array with as many values as its shape says, none of them from outside the bytes.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "expect.h"
#include "tensor/npy.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace chiasm;
  using fuzz::expect;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  constexpr std::uint64_t kLimit = 1 << 16;
  const auto array = parse_npy(bytes, kLimit);
  if (!array) {
    expect(!array.error().message.empty());
    return 0;
  }
  const bool empty = std::find(array->shape.begin(), array->shape.end(), 0) != array->shape.end();
  std::uint64_t count = empty ? 0 : 1;
  for (const std::int64_t dimension : array->shape) {
    expect(dimension >= 0);
    if (!empty) count *= static_cast<std::uint64_t>(dimension);
    expect(count <= kLimit);
  }
  expect(array->values.size() == count && count <= size);
  // A limit below the number of values refuses them.
  expect(count == 0 || !parse_npy(bytes, count - 1).has_value());
  return 0;
}
