#include "features/feature_source.h"

#include <exception>
#include <utility>

namespace chiasm {
namespace {

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::string_view source_name(Source source) {
  switch (source) {
    case Source::kEncoded: return "encoded";
    case Source::kMemory: return "memory";
    case Source::kDisk: return "disk";
  }
  return "";
}

TieredFeatureSource::TieredFeatureSource(std::shared_ptr<MemoryTier> memory, std::shared_ptr<DiskTier> disk,
                                         FeatureSourceOptions options)
    : memory_(std::move(memory)), disk_(std::move(disk)), options_(options) {}

Result<Fetched> TieredFeatureSource::get(const FeatureKey& key, const EncodeFn& encode, Deadline deadline,
                                         const CancelFlag* cancel) try {
  const auto start = std::chrono::steady_clock::now();
  auto landed = flights_.run(
      key.id, [&] { return produce(key, encode); },
      [&](const Fetched& fetched) {
        // Waiters have their answer already; a folder that cannot be written costs later requests, not this one.
        if (fetched.source == Source::kEncoded && disk_ != nullptr) (void)disk_->put(*fetched.feature);
      },
      deadline, cancel);
  if (!landed.result) return landed.result;
  landed.result->joined = landed.joined;
  landed.result->ms = milliseconds_since(start);
  if (landed.joined) {
    const std::lock_guard lock(mutex_);
    ++counters_.joined;
  }
  return landed.result;
} catch (const std::exception& e) {
  return fail(Code::kInternal, "feature {}: {}", key.id.hex(), e.what());
}

// The one that works for all who ask: memory, disk, encoder. Looking into memory here, and not before, means that a
// request that comes just after another one landed finds its feature.
Result<Fetched> TieredFeatureSource::produce(const FeatureKey& key, const EncodeFn& encode) {
  const auto count = [this](std::uint64_t FeatureSourceCounters::* counter) {
    const std::lock_guard lock(mutex_);
    ++(counters_.*counter);
  };
  if (memory_ != nullptr) {
    if (auto feature = memory_->get(key.id)) {
      count(&FeatureSourceCounters::from_memory);
      return Fetched{std::move(feature), Source::kMemory};
    }
  }
  Fetched fetched;
  if (disk_ != nullptr) {
    FeatureExpectations expected = FeatureExpectations::of(key);
    expected.merge = options_.merge;
    expected.width = options_.width;
    fetched = {disk_->get(key.id, expected), Source::kDisk};
  }
  if (fetched.feature == nullptr) {
    auto encoded = checked_encode(key, encode);
    if (!encoded) {
      count(&FeatureSourceCounters::encode_errors);
      return tl::unexpected(std::move(encoded).error());
    }
    fetched = {std::make_shared<const Feature>(std::move(*encoded)), Source::kEncoded};
  }
  count(fetched.source == Source::kDisk ? &FeatureSourceCounters::from_disk : &FeatureSourceCounters::encoded);
  if (memory_ != nullptr) memory_->put(fetched.feature);
  return fetched;
}

Result<Feature> TieredFeatureSource::checked_encode(const FeatureKey& key, const EncodeFn& encode) {
  Result<Feature> feature = [&]() -> Result<Feature> {
    try {
      return encode();
    } catch (const std::exception& e) {
      return fail(Code::kInternal, "feature {}: the encoder failed: {}", key.id.hex(), e.what());
    } catch (...) {
      return fail(Code::kInternal, "feature {}: the encoder failed", key.id.hex());
    }
  }();
  if (!feature) return feature;
  const FeatureMeta& meta = feature->meta;
  const FeatureKey made{meta.id, meta.vision_digest, meta.preprocess_digest, meta.image_digest};
  if (made != key)
    return fail(Code::kInternal, "feature {}: the encoder answered with feature {} of another key", key.id.hex(),
                meta.id.hex());
  if (auto ok = check_rows(meta, feature->rows.view(), options_.merge, options_.width); !ok)
    return fail(Code::kInternal, "feature {}: the encoder's output is not a feature: {}", key.id.hex(),
                ok.error().message);
  // A value that does not fit the disk tier's type is left as it is: put() will refuse the feature, so that no later
  // request can get it in another rounding.
  if (disk_ != nullptr) (void)round_feature(*feature, disk_->options().dtype);
  return feature;
}

std::shared_ptr<const Feature> TieredFeatureSource::find(const FeatureId& id) try {
  if (memory_ != nullptr)
    if (auto feature = memory_->get(id)) return feature;
  if (disk_ == nullptr) return nullptr;
  FeatureExpectations expected;
  expected.merge = options_.merge;
  expected.width = options_.width;
  auto feature = disk_->get(id, expected);
  if (feature != nullptr && memory_ != nullptr) memory_->put(feature);
  return feature;
} catch (const std::exception&) {
  return nullptr;
}

// Disk first: the other way round a request in between would bring it back into memory.
Result<bool> TieredFeatureSource::erase(const FeatureId& id) try {
  Result<bool> on_disk = false;
  if (disk_ != nullptr) on_disk = disk_->erase(id);
  const bool in_memory = memory_ != nullptr && memory_->erase(id);
  if (!on_disk) return on_disk;
  return *on_disk || in_memory;
} catch (const std::exception& e) {
  return fail(Code::kInternal, "feature {}: {}", id.hex(), e.what());
}

FeatureSourceCounters TieredFeatureSource::counters() const {
  const std::lock_guard lock(mutex_);
  FeatureSourceCounters out = counters_;
  out.waiting = static_cast<std::uint64_t>(flights_.waiting());
  return out;
}

}  // namespace chiasm
