// What a language server sees with: the encoder in its own process, or vision servers. It only knows this.
//
// Thread contract: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.h"
#include "base/metrics.h"
#include "base/result.h"
#include "features/feature.h"
#include "models/config.h"

namespace chiasm {

struct LookRequest {
  std::span<const std::span<const std::byte>> files;   // one picture, or the frames of a video in order
  std::optional<std::int64_t> min_pixels, max_pixels;  // instead of the preprocessor's
  std::string_view tenant;
  Deadline deadline = kNoDeadline;
  const CancelFlag* cancel = nullptr;
};

struct Sight {
  std::shared_ptr<const Feature> feature;
  std::string source;  // "memory", "disk", "encoded", "vision_server"
  double ms = 0;       // from the raw bytes to the feature
};

// Counters for /v1/status; totals since the start.
struct EyeStatus {
  std::uint64_t memory_entries = 0, memory_bytes = 0, memory_hits = 0, disk_hits = 0, encoded = 0;
  std::uint64_t queued_tokens = 0, batches = 0, pictures = 0;  // of an encoder in this process
  struct Server {
    std::string name, state;
  };
  std::vector<Server> servers;
};

class Eye {
 public:
  virtual ~Eye() = default;

  // kUnavailable where no encoder can be reached, kResourceExhausted where its queue is full, kInvalidArgument where
  // the picture is at fault.
  virtual Result<Sight> look(const LookRequest& request) = 0;
  // What is kept under an id, of this tenant; kNotFound.
  virtual Result<Sight> find(const FeatureId& id, std::string_view tenant, Deadline deadline,
                             const CancelFlag* cancel) = 0;
  // Forgets it wherever it is kept; kNotFound where it is nowhere.
  virtual Status forget(const FeatureId& id, std::string_view tenant, Deadline deadline) = 0;

  virtual const PreprocessorConfig& preprocessor() const = 0;
  virtual EyeStatus status() const = 0;
  virtual void read_metrics(MetricReader& reader) const = 0;
};

}  // namespace chiasm
