// Rounded weights kept on disk as they lie in memory, so that the next start maps them and rounds nothing
// (docs/adr/0014-kept-weights.md).
//
// A file is of one side of one checkpoint in one precision; its name tells which files of the checkpoint it was made
// of, so what is stale is not found, and goes when the next one is written. A cache that cannot be read or written
// costs time only. Thread contract: any thread, any number of processes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include "base/digest.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "models/checkpoint.h"
#include "models/packed_file.h"

namespace chiasm {

struct WeightCacheOptions {
  std::filesystem::path dir;
  std::uint64_t budget = 32ULL << 30;          // bytes of all files; the least recently used go first
  std::uint64_t reserve = 2ULL << 30;          // bytes that stay free on the disk
  std::function<void(std::string_view)> warn;  // may be null
};

class WeightCache {
 public:
  WeightCache(WeightCacheOptions options, ThreadPool& threads) : options_(std::move(options)), threads_(threads) {}

  // What one side of a checkpoint becomes in a precision, in the layout of that name.
  struct Key {
    std::filesystem::path file;
    Digest digest;
  };
  Result<Key> key_of(const Checkpoint& checkpoint, Role side, Precision precision, std::string_view layout) const;

  // Checked in every byte. Nothing where there is none; what is damaged is removed, and said.
  std::optional<PackedFile> find(const Key& key) const;
  // Writes it, unless there is no room. Older files of this side and precision go.
  void keep(const Key& key, std::span<const NamedMatrix> matrices) const;

 private:
  void warn(std::string_view message) const {
    if (options_.warn) options_.warn(message);
  }
  void tidy(const Key& key, std::uint64_t coming) const;

  const WeightCacheOptions options_;
  ThreadPool& threads_;
};

}  // namespace chiasm
