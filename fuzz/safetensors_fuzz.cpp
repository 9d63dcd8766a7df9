// Any bytes are either refused or a container whose every tensor lies inside them and survives being written again.
#include <algorithm>
#include <cstdint>

#include "expect.h"
#include "tensor/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace chiasm;
  using fuzz::expect;
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto view = SafetensorsView::parse(bytes, "fuzz");
  if (!view) {
    expect(!view.error().message.empty());
    return 0;
  }
  std::vector<NamedTensor> tensors;
  std::size_t covered = 0;
  for (const auto& [name, info] : view->tensors()) {
    const auto tensor = view->tensor(name);
    expect(tensor.has_value());
    expect(byte_count(tensor->shape, tensor->dtype).value() == tensor->bytes.size());
    // data() of an empty part may be anything; otherwise every byte is the input's.
    for (const std::byte& byte : tensor->bytes) expect(&byte >= bytes.data() && &byte < bytes.data() + bytes.size());
    covered += tensor->bytes.size();
    (void)to_f32(*tensor);
    tensors.push_back({name, *tensor});
  }
  expect(covered == view->data().size());

  auto written = safetensors_header(tensors, view->metadata());
  expect(written.has_value());
  for (const NamedTensor& tensor : tensors)
    written->append(reinterpret_cast<const char*>(tensor.tensor.bytes.data()), tensor.tensor.bytes.size());
  const auto again = SafetensorsView::parse(std::as_bytes(std::span(*written)), "again");
  expect(again.has_value() && again->metadata() == view->metadata() && again->tensors().size() == tensors.size());
  for (const NamedTensor& tensor : tensors) {
    const auto same = again->tensor(tensor.name);
    expect(same && same->dtype == tensor.tensor.dtype && same->shape == tensor.tensor.shape);
    expect(std::equal(same->bytes.begin(), same->bytes.end(), tensor.tensor.bytes.begin(), tensor.tensor.bytes.end()));
  }
  return 0;
}
