// What the tests of this folder share: small features whose values follow from a seed, and feature files rebuilt
// with edited fields.
#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/test_support.h"
#include "features/feature.h"
#include "features/feature_file.h"
#include "tensor/safetensors.h"

namespace chiasm {

using Metadata = std::map<std::string, std::string, std::less<>>;

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

inline FeatureKey sample_key(int seed, std::string_view tenant = "t") {
  const std::string picture = "picture " + std::to_string(seed);
  const std::span<const std::byte> file = bytes_of(picture);
  return feature_key(tenant, digest_of(bytes_of("vision")), digest_of(bytes_of("preprocess")), {&file, 1});
}

// grid_thw 1,2h,2w and h * w rows; values in (-4, 4) that follow from the seed.
inline Feature sample_feature(int seed, std::int64_t width = 8, std::int64_t h = 2, std::int64_t w = 3) {
  Matrix rows(h * w, width);
  std::uint32_t state = static_cast<std::uint32_t>(seed) * 2654435761U + 1;
  for (std::int64_t i = 0; i < rows.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    rows.data()[i] = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-29F;
  }
  return make_feature(sample_key(seed), {1, 2 * h, 2 * w}, "sample", std::move(rows));
}

inline std::vector<float> values_of(const Feature& feature) {
  return {feature.rows.data(), feature.rows.data() + feature.rows.size()};
}

inline void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(file.good()) << path;
}

// The same file with other metadata or another tensor; xxh3 and xxh3_metadata are made right again unless `keep_sums`.
inline std::vector<std::byte> rebuild(std::span<const std::byte> file,
                                      const std::function<void(Metadata&, NamedTensor&)>& edit,
                                      bool keep_sums = false) {
  const auto view = SafetensorsView::parse(file, "sample").value();
  Metadata metadata(view.metadata().begin(), view.metadata().end());
  NamedTensor tensor{std::string(kFeatureTensor), view.tensor(kFeatureTensor).value()};
  edit(metadata, tensor);
  if (!keep_sums) {
    if (metadata.contains("xxh3")) metadata["xxh3"] = payload_checksum(tensor.tensor.bytes);
    if (metadata.contains("xxh3_metadata")) metadata["xxh3_metadata"] = metadata_checksum(metadata);
  }
  const std::string header = safetensors_header({&tensor, 1}, metadata).value();
  std::vector<std::byte> out(bytes_of(header).begin(), bytes_of(header).end());
  out.insert(out.end(), tensor.tensor.bytes.begin(), tensor.tensor.bytes.end());
  return out;
}

}  // namespace chiasm
