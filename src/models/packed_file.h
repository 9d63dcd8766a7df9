// A file of matrices as they lie in memory: made to be mapped and used where it is.
//
// magic (8 bytes), XXH3 of the bytes from 16 to the table's end (8), size of the file (8), size of the table (8), key
// (32); then the table, of each matrix: digest of its name (32), precision, outputs, inputs, place, size, XXH3 of its
// bytes (8 each); then the matrices, at multiples of 4096. Numbers are little-endian. parse() proves all but the
// matrices' bytes, verify() those. Thread contract: immutable after parse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/file.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/precision.h"

namespace chiasm {

struct PackedEntry {
  Digest name;  // digest_of() the name
  Precision precision = Precision::kExact;
  std::int64_t out_features = 0, in_features = 0;
  std::span<const std::byte> bytes;
  std::uint64_t checksum = 0;
};

class PackedFile {
 public:
  // `bytes` must outlive the file. kDataLoss: damaged or cut off; kFailedPrecondition: of another key.
  static Result<PackedFile> parse(std::span<const std::byte> bytes, const Digest& key);
  // Maps it.
  static Result<PackedFile> open(const std::filesystem::path& path, const Digest& key);

  // Reads every matrix. kDataLoss where one is not what was written.
  Status verify(ThreadPool& threads) const;

  const std::vector<PackedEntry>& entries() const { return entries_; }
  const PackedEntry* find(std::string_view name) const;          // null: not there
  std::shared_ptr<const void> owner() const { return mapped_; }  // of the entries' bytes, after open()

 private:
  std::shared_ptr<const MappedFile> mapped_;
  std::vector<PackedEntry> entries_;  // sorted by name
};

// A matrix to write.
struct NamedMatrix {
  std::string name;
  Precision precision = Precision::kExact;
  std::int64_t out_features = 0, in_features = 0;
  std::span<const std::byte> bytes;
};

std::uint64_t packed_file_size(std::span<const NamedMatrix> matrices);
// Appears complete or not at all.
Status write_packed_file(const std::filesystem::path& path, const Digest& key, std::span<const NamedMatrix> matrices,
                         ThreadPool& threads);

}  // namespace chiasm
