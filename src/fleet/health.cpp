#include "fleet/health.h"

#include <algorithm>
#include <array>

namespace chiasm {
namespace {

// splitmix64 (Steele, Lea and Flood, 2014), the upper 53 bits as a number in [0, 1).
double uniform(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15ULL;
  std::uint64_t z = state;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
  return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
}

}  // namespace

std::string_view condition_name(ServerCondition condition) {
  static constexpr std::array<std::string_view, 4> kNames = {"healthy", "overloaded", "ejected", "mismatch"};
  return kNames[static_cast<std::size_t>(condition)];
}

ServerHealth::ServerHealth(const HealthOptions& options, std::uint64_t seed, Deadline now)
    : options_(options), random_(seed), back_off_(options.probe_interval), next_probe_(now) {}

ServerCondition ServerHealth::condition(Deadline now) const {
  if (ejected_) return ServerCondition::kEjected;
  if (mismatch_) return ServerCondition::kMismatch;
  return now < overloaded_until_ ? ServerCondition::kOverloaded : ServerCondition::kHealthy;
}

int ServerHealth::consecutive_failures() const { return std::max(failed_requests_, failed_probes_); }

bool ServerHealth::eject_if(bool enough) {
  if (!enough || ejected_) return false;
  ejected_ = true;
  good_probes_ = 0;
  back_off_ = options_.probe_interval;
  return true;
}

void ServerHealth::schedule(Deadline now, std::chrono::milliseconds interval) {
  const double factor = 1 + options_.jitter * (2 * uniform(random_) - 1);
  next_probe_ = now + std::chrono::duration_cast<Deadline::duration>(interval * factor);
}

void ServerHealth::request_succeeded() {
  failed_requests_ = late_requests_ = 0;
  failed_pictures_.clear();
}

bool ServerHealth::request_late() {
  late_requests_ = std::min(late_requests_ + 1, 1'000'000);
  return eject_if(late_requests_ >= options_.eject_late);
}

void ServerHealth::readmit(Deadline now) {
  failed_probes_ = 0;
  good_probes_ = options_.return_after - 1;
  probe_succeeded(now);
}

bool ServerHealth::request_failed(std::uint64_t picture) {
  if (picture != 0) {
    if (std::find(failed_pictures_.begin(), failed_pictures_.end(), picture) != failed_pictures_.end()) return false;
    if (failed_pictures_.size() < static_cast<std::size_t>(options_.eject_after)) failed_pictures_.push_back(picture);
  }
  failed_requests_ = std::min(failed_requests_ + 1, 1'000'000);
  return eject_if(failed_requests_ >= options_.eject_after);
}

bool ServerHealth::overloaded(Deadline now, std::optional<std::chrono::milliseconds> retry_after) {
  const bool before = now < overloaded_until_;
  const auto wait =
      std::clamp(retry_after.value_or(options_.retry_after), std::chrono::milliseconds(0), options_.max_retry_after);
  overloaded_until_ = std::max(overloaded_until_, now + wait);
  return !before && now < overloaded_until_ && condition(now) == ServerCondition::kOverloaded;
}

bool ServerHealth::probe_succeeded(Deadline now) {
  failed_probes_ = 0;
  schedule(now, options_.probe_interval);
  if (!ejected_) return false;
  back_off_ = options_.probe_interval;
  if (++good_probes_ < options_.return_after) return false;
  ejected_ = false;
  failed_requests_ = std::max(options_.eject_after - 1, 0);
  late_requests_ = std::max(options_.eject_late - 1, 0);
  failed_pictures_.clear();
  return true;
}

bool ServerHealth::probe_failed(Deadline now) {
  failed_probes_ = std::min(failed_probes_ + 1, 1'000'000);
  good_probes_ = 0;
  const bool changed = eject_if(failed_probes_ >= options_.eject_after);
  if (ejected_ && !changed) back_off_ = std::min(back_off_ * 2, options_.max_probe_interval);
  schedule(now, ejected_ ? back_off_ : options_.probe_interval);
  return changed;
}

bool ServerHealth::set_mismatch(bool mismatch) {
  const bool changed = mismatch_ != mismatch;
  mismatch_ = mismatch;
  return changed;
}

}  // namespace chiasm
