// Where features come from: memory, then disk, then the encoder, with one encoding per feature however many ask.
//
// The encoder is a function handed in with each request, so that the key is made and looked up before anything is
// decoded. Thread contract: every method may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>

#include "base/result.h"
#include "features/disk_tier.h"
#include "features/feature.h"
#include "features/memory_tier.h"
#include "features/single_flight.h"

namespace chiasm {

enum class Source : std::uint8_t { kEncoded, kMemory, kDisk };
std::string_view source_name(Source source);  // "encoded", "memory", "disk"

struct Fetched {
  std::shared_ptr<const Feature> feature;
  Source source = Source::kEncoded;
  bool joined = false;  // waited for another request's work instead of doing it; `source` is that request's
  double ms = 0;        // from call to answer
};

// Decodes and encodes. Its feature's metadata must be the key's (make_feature sees to that); rows are F32.
using EncodeFn = std::function<Result<Feature>()>;

class FeatureSource {
 public:
  virtual ~FeatureSource() = default;

  // `encode` runs on the calling thread, and only where nothing kept answers; two requests for one id never encode at
  // the same time. An error of `encode` is given to all who wait for it and is not remembered; where it is kCancelled
  // or kDeadlineExceeded, which concern the request that encoded, those who wait try with their own `encode`. An
  // exception becomes kInternal. A request that waits for another's work gives up at `deadline` (kDeadlineExceeded)
  // and when `cancel` is raised (kCancelled; may be null); the one that encodes leaves both to `encode`.
  virtual Result<Fetched> get(const FeatureKey& key, const EncodeFn& encode, Deadline deadline,
                              const CancelFlag* cancel = nullptr) = 0;
};

struct FeatureSourceOptions {
  std::int64_t merge = 0;  // spatial_merge_size and row width that every feature must have; 0: any
  std::int64_t width = 0;
};

struct FeatureSourceCounters {
  std::uint64_t encoded = 0, encode_errors = 0;
  std::uint64_t from_memory = 0, from_disk = 0;
  std::uint64_t joined = 0;   // waited for another request and got its feature
  std::uint64_t waiting = 0;  // wait now
};

// Either tier may be null. With a disk tier of F16 or BF16 fresh features are rounded alike before anybody sees them:
// where a feature came from never changes an answer.
class TieredFeatureSource : public FeatureSource {
 public:
  TieredFeatureSource(std::shared_ptr<MemoryTier> memory, std::shared_ptr<DiskTier> disk,
                      FeatureSourceOptions options = {});

  Result<Fetched> get(const FeatureKey& key, const EncodeFn& encode, Deadline deadline,
                      const CancelFlag* cancel = nullptr) override;

  // What is kept under this id, memory first; null when nothing is. For those who have an id but no picture.
  std::shared_ptr<const Feature> find(const FeatureId& id);

  // Forgets what is kept under this id, on disk and in memory; false where it was in neither. A request that is being
  // answered meanwhile may keep it again.
  Result<bool> erase(const FeatureId& id);

  FeatureSourceCounters counters() const;
  const std::shared_ptr<MemoryTier>& memory() const { return memory_; }
  const std::shared_ptr<DiskTier>& disk() const { return disk_; }

 private:
  Result<Fetched> produce(const FeatureKey& key, const EncodeFn& encode);
  Result<Feature> checked_encode(const FeatureKey& key, const EncodeFn& encode);

  const std::shared_ptr<MemoryTier> memory_;
  const std::shared_ptr<DiskTier> disk_;
  const FeatureSourceOptions options_;
  SingleFlight<FeatureId, Fetched> flights_;
  mutable std::mutex mutex_;  // counters
  FeatureSourceCounters counters_;
};

}  // namespace chiasm
