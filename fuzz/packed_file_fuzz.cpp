// Any bytes as a file of kept weights: refused, or every matrix lies inside. As a checksum keeps a fuzzer out, each
// input is also tried with its checksum made right, under the key and the size that it has.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/digest.h"
#include "expect.h"
#include "models/packed_file.h"

namespace {

using namespace chiasm;
using fuzz::expect;

void try_parse(std::span<const std::byte> bytes, const Digest& key) {
  const auto file = PackedFile::parse(bytes, key);
  if (!file) {
    expect(!file.error().message.empty());
    return;
  }
  for (const PackedEntry& entry : file->entries()) {
    expect(entry.out_features > 0 && entry.in_features > 0 && entry.precision != Precision::kExact);
    expect(entry.bytes.empty() || (entry.bytes.data() > bytes.data() && &entry.bytes.back() <= &bytes.back()));
    (void)checksum_of(entry.bytes);
  }
  (void)file->find("model");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  Digest key;
  if (size >= 64) std::memcpy(key.bytes.data(), data + 32, key.bytes.size());
  try_parse(bytes, key);
  if (size < 64) return 0;
  std::vector<std::byte> right(bytes.begin(), bytes.end());
  std::uint64_t table = 0;
  std::memcpy(&table, right.data() + 24, sizeof(table));
  const std::uint64_t whole = size;
  std::memcpy(right.data() + 16, &whole, sizeof(whole));
  const std::uint64_t covered = 48 + std::min<std::uint64_t>(table, size - 64);
  const std::uint64_t checksum = checksum_of(std::span<const std::byte>(right).subspan(16, covered));
  std::memcpy(right.data() + 8, &checksum, sizeof(checksum));
  try_parse(right, key);
  return 0;
}
