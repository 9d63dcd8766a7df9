#include "roles/tier_metrics.h"

namespace chiasm {
namespace {

double number(std::uint64_t value) { return static_cast<double>(value); }

void events(MetricReader& reader, const std::string& tier, std::uint64_t hits, std::uint64_t misses,
            std::uint64_t evictions) {
  const MetricLabels labels{{"tier", tier}};
  reader.counter("chiasm_feature_tier_hits_total", "Features found in this tier", number(hits), labels);
  reader.counter("chiasm_feature_tier_misses_total", "Features not found in this tier", number(misses), labels);
  reader.counter("chiasm_feature_tier_evictions_total", "Features that made room for others", number(evictions),
                 labels);
}

}  // namespace

EyeStatus tier_status(const TieredFeatureSource& source) {
  const FeatureSourceCounters counters = source.counters();
  EyeStatus out;
  out.encoded = counters.encoded;
  if (source.memory() != nullptr) {
    const MemoryTierCounters memory = source.memory()->counters();
    out.memory_hits = memory.hits;
    out.memory_entries = memory.entries;
    out.memory_bytes = memory.bytes;
  }
  if (source.disk() != nullptr) out.disk_hits = source.disk()->counters().hits;
  return out;
}

void read_tier_metrics(const TieredFeatureSource& source, MetricReader& reader) {
  const FeatureSourceCounters counters = source.counters();
  const auto fetched = [&](const char* from, std::uint64_t total) {
    reader.counter("chiasm_features_total", "Features handed out, by where they came from", number(total),
                   {{"source", from}});
  };
  fetched("memory", counters.from_memory);
  fetched("disk", counters.from_disk);
  fetched("encoded", counters.encoded);
  fetched("joined", counters.joined);
  reader.counter("chiasm_feature_errors_total", "Features that could not be made", number(counters.encode_errors));
  reader.gauge("chiasm_feature_waiters", "Requests that wait for a feature that another one is making",
               number(counters.waiting));
  if (source.memory() != nullptr) {
    const MemoryTierCounters memory = source.memory()->counters();
    events(reader, "memory", memory.hits, memory.misses, memory.evictions);
    reader.gauge("chiasm_feature_tier_bytes", "Bytes of features in this tier", number(memory.bytes),
                 {{"tier", "memory"}});
    reader.gauge("chiasm_feature_tier_entries", "Features in this tier", number(memory.entries), {{"tier", "memory"}});
  }
  if (source.disk() != nullptr) {
    const DiskTierCounters disk = source.disk()->counters();
    events(reader, "disk", disk.hits, disk.misses, disk.evictions);
    reader.gauge("chiasm_feature_tier_bytes", "Bytes of features in this tier", number(disk.bytes), {{"tier", "disk"}});
    reader.counter("chiasm_feature_files_bad_total", "Feature files that were damaged or foreign, and not used",
                   number(disk.all_bad()));
    reader.counter("chiasm_feature_files_written_total", "Feature files written", number(disk.writes));
    reader.counter("chiasm_feature_file_write_failures_total", "Feature files that could not be written",
                   number(disk.failed_writes));
  }
}

}  // namespace chiasm
