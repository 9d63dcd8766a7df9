// Features on disk: DIR/ab/abcdef....safetensors, a byte budget, least recently used first out.
//
// Several processes may share a folder without a lock: files appear by rename and are never changed in place; a file's
// modification time is its last use; whoever exceeds the budget removes the oldest, and a file that vanished meanwhile
// is only a miss. Names that are not a feature's are neither counted nor touched. Thread contract: any thread.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "features/feature.h"
#include "features/feature_file.h"

namespace chiasm {

struct DiskTierOptions {
  std::filesystem::path dir;
  std::uint64_t budget = 10ULL << 30;          // bytes of files
  std::uint64_t max_file = kMaxFeatureFile;    // a larger one is neither read nor written
  DType dtype = DType::kF32;                   // F32 is exact; F16 and BF16 halve the size
  std::function<void(std::string_view)> warn;  // one line per bad file or failed write; may be null
};

struct DiskTierCounters {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;                         // absent and bad
  std::array<std::uint64_t, kFeatureFaults> bad{};  // of the misses, by FeatureFault; kAbsent stays 0
  std::uint64_t writes = 0, failed_writes = 0;
  std::uint64_t refused = 0;  // larger than max_file or the budget: not written
  std::uint64_t evictions = 0;
  std::uint64_t erased = 0;
  std::uint64_t swept = 0;  // temporaries of writers that died
  std::uint64_t bytes = 0;  // in the folder, as far as this process knows

  std::uint64_t all_bad() const;
};

class DiskTier {
 public:
  // Touches nothing before the first use; DIR need not exist.
  explicit DiskTier(DiskTierOptions options);

  // Null: a miss. A file that is truncated, corrupt, foreign, oversized or not what `expected` says is a counted miss;
  // it stays until put() replaces it. expected.id and expected.dtype are set here.
  std::shared_ptr<const Feature> get(const FeatureId& id, FeatureExpectations expected = {});

  // Publishes the feature in options.dtype, then evicts until the folder fits the budget. The folder is scanned at the
  // first put and after each sixteenth of the budget written, so P processes that write at once may together exceed it
  // by P/16 for a while. An error (disk full, a value that F16 cannot hold) is counted; the caller may go on without.
  Status put(const Feature& feature);

  // Removes the feature's file; false where there was none. An error (a folder that we may only read) leaves it.
  Result<bool> erase(const FeatureId& id);

  // What is kept of the same picture under other names: looked at by other weights, or at another size. Reads the
  // beginning of every file of the folder, so it is for saying why a picture is not known, not for finding one.
  std::vector<FeatureMeta> kin_of(const Digest& image_digest) const;

  // A random name that stands in the folder, written by whoever asks first: two processes that read the same name use
  // the same folder, whatever each calls it. kUnavailable where it can be neither read nor written.
  Result<std::string> folder_name() const;

  // Whether files can be written, made sure of by making the folder: for saying so when a server starts.
  Status check_writable() const;

  std::filesystem::path path_of(const FeatureId& id) const;
  const DiskTierOptions& options() const { return options_; }
  DiskTierCounters counters() const;

 private:
  struct Candidate {
    std::filesystem::path path;
    std::int64_t used = 0;  // ns since the epoch
    std::uint64_t size = 0;
  };
  Status publish(const Feature& feature);
  void scan();
  void evict();
  void warn(std::string_view line) const;

  const DiskTierOptions options_;
  mutable std::mutex mutex_;          // counters
  std::mutex evict_mutex_;            // what follows; taken before mutex_
  std::deque<Candidate> candidates_;  // of the last scan, oldest first
  std::uint64_t bytes_ = 0;           // in the folder: the last scan and what this process did since
  std::uint64_t written_since_scan_ = 0;
  bool scanned_ = false;
  DiskTierCounters counters_;
};

}  // namespace chiasm
