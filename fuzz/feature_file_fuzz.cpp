// Any bytes through the feature file's parser. What parses is written and read again, and must be the same. As
// checksums keep a fuzzer out, each input is also tried with its checksums made right.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "expect.h"
#include "features/feature_file.h"
#include "tensor/safetensors.h"

namespace {

using namespace chiasm;
using fuzz::expect;

void try_parse(std::span<const std::byte> bytes) {
  const auto feature = parse_feature(bytes, "fuzz");
  if (!feature) {
    expect(!feature.error().message.empty() && feature.error().fault != FeatureFault::kAbsent);
    return;
  }
  const auto written = serialize_feature(*feature, feature->meta.dtype);
  expect(written.has_value());
  const auto again = parse_feature(*written, "again");
  expect(again.has_value() && again->meta == feature->meta && again->rows.rows() == feature->rows.rows() &&
         again->rows.cols() == feature->rows.cols());
  expect(std::memcmp(again->rows.data(), feature->rows.data(),
                     static_cast<std::size_t>(feature->rows.size()) * sizeof(float)) == 0);
}

// The same tensors and metadata under checksums that hold; nothing where the bytes are no safetensors file.
std::vector<std::byte> with_right_checksums(std::span<const std::byte> bytes) {
  std::vector<std::byte> out;
  const auto view = SafetensorsView::parse(bytes, "fuzz");
  if (!view || !view->contains(kFeatureTensor)) return out;
  std::map<std::string, std::string, std::less<>> metadata(view->metadata().begin(), view->metadata().end());
  const NamedTensor tensor{std::string(kFeatureTensor), *view->tensor(kFeatureTensor)};
  metadata["xxh3"] = payload_checksum(tensor.tensor.bytes);
  metadata["xxh3_metadata"] = metadata_checksum(metadata);
  const auto header = safetensors_header({&tensor, 1}, metadata);
  if (!header) return out;
  const auto head = std::as_bytes(std::span(*header));
  out.assign(head.begin(), head.end());
  out.insert(out.end(), tensor.tensor.bytes.begin(), tensor.tensor.bytes.end());
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try_parse(bytes);
  if (const auto repaired = with_right_checksums(bytes); !repaired.empty()) try_parse(repaired);
  return 0;
}
