#include "fleet/roster.h"

#include <algorithm>
#include <random>

#include "fleet/feature_calls.h"

namespace chiasm {
namespace {

constexpr std::size_t kMaxLine = 1000;
constexpr std::chrono::milliseconds kBetweenTrials{500};  // of one ejected server out of turn

std::vector<std::string> origins_of(const std::vector<Url>& servers) {
  std::vector<std::string> out;
  out.reserve(servers.size());
  for (const Url& url : servers) out.push_back(url.origin());
  return out;
}

std::uint64_t system_seed() {
  std::random_device device;
  return static_cast<std::uint64_t>(device()) << 32 | device();
}

}  // namespace

Roster::Roster(const FleetOptions& options) : options_(options), origins_(origins_of(options.servers)) {
  const std::uint64_t seed = options.seed != 0 ? options.seed : system_seed();
  const Deadline now = options.clock();
  entries_.reserve(origins_.size());
  for (std::size_t i = 0; i < origins_.size(); ++i)
    entries_.push_back({.health = ServerHealth(options.health, seed + i, now), .counts = {.origin = origins_[i]}});
}

void Roster::log(std::size_t server, std::string_view what) const {
  if (options_.log) options_.log(fmt::format("vision server {}: {}", origins_[server], one_line(what, kMaxLine)));
}

Roster::Standing Roster::standing(std::size_t server) const {
  const Deadline now = options_.clock();
  const std::lock_guard lock(mutex_);
  const Entry& entry = entries_[server];
  return {entry.health.condition(now), entry.info, entry.mismatch};
}

std::vector<ServerState> Roster::states() const {
  const Deadline now = options_.clock();
  std::vector<ServerState> out;
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) {
    ServerState& state = out.emplace_back(entry.counts);
    state.condition = entry.health.condition(now);
    state.consecutive_failures = entry.health.consecutive_failures();
    if (entry.info) state.vision_digest = entry.info->vision_digest;
  }
  return out;
}

std::shared_ptr<const VisionInfo> Roster::preferred_info() const {
  const Deadline now = options_.clock();
  std::shared_ptr<const VisionInfo> best;
  int best_rank = -1;
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) {
    if (!entry.info || !entry.mismatch.message.empty()) continue;
    const bool expected = !options_.vision_digest || entry.info->vision_digest == *options_.vision_digest;
    const bool healthy = entry.health.condition(now) != ServerCondition::kEjected;
    const int rank = (healthy ? 2 : 0) + (expected ? 1 : 0);
    if (rank <= best_rank) continue;
    best = entry.info;
    best_rank = rank;
  }
  return best;
}

Error Roster::misfit(const VisionInfo& info) const {
  const auto& accepted = options_.accepted_digests;
  if (options_.vision_digest && info.vision_digest != *options_.vision_digest &&
      std::find(accepted.begin(), accepted.end(), info.vision_digest) == accepted.end())
    return {Code::kFailedPrecondition,
            fmt::format("expected vision_digest {}{}, the vision server has {}", options_.vision_digest->hex(),
                        accepted.empty() ? "" : fmt::format(" or one of {} further accepted", accepted.size()),
                        info.vision_digest.hex())};
  if (options_.preprocess_digest && info.preprocess_digest != *options_.preprocess_digest)
    return {Code::kFailedPrecondition, fmt::format("expected preprocess_digest {}, the vision server has {}",
                                                   options_.preprocess_digest->hex(), info.preprocess_digest.hex())};
  if (options_.width != 0 && info.hidden_size != options_.width)
    return {Code::kFailedPrecondition, fmt::format("expected features of width {}, the vision server's have {}",
                                                   options_.width, info.hidden_size)};
  if (options_.merge != 0 && info.preprocessor.merge_size != options_.merge)
    return {Code::kFailedPrecondition, fmt::format("expected merge_size {}, the vision server has {}", options_.merge,
                                                   info.preprocessor.merge_size)};
  return {};
}

// Servers of one fleet that resize differently make different features of one picture: legal, but hardly meant.
void Roster::note_preprocessors(std::size_t server, const VisionInfo& info) const {
  std::string line;
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < entries_.size() && line.empty(); ++i) {
      const auto& other = entries_[i].info;
      if (i != server && other && other->vision_digest == info.vision_digest &&
          other->preprocess_digest != info.preprocess_digest)
        line = fmt::format("preprocess_digest {}, but {} has {}: their features are kept apart",
                           info.preprocess_digest.hex(), origins_[i], other->preprocess_digest.hex());
    }
  }
  if (!line.empty()) log(server, line);
}

Status Roster::learn(std::size_t server, const VisionInfo& info) {
  Error misfit = this->misfit(info);
  const bool fits = misfit.message.empty();
  bool fresh = false, kept_out = false, let_in = false;
  {
    const Deadline now = options_.clock();
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[server];
    fresh = !entry.info || entry.info->vision_digest != info.vision_digest ||
            entry.info->preprocess_digest != info.preprocess_digest;
    kept_out = !fits && misfit.message != entry.mismatch.message;
    let_in = entry.health.set_mismatch(!fits) && fits;
    entry.info = std::make_shared<const VisionInfo>(info);
    entry.info_read = now;
    entry.info_stale = !fits;  // so that a server that was put right is seen at its next probe
    entry.mismatch = misfit;
    if (!fits) entry.counts.last_error = misfit.message;
  }
  if (kept_out) log(server, "kept out: " + misfit.message);
  if (let_in) log(server, fmt::format("taken back: vision_digest {}", info.vision_digest.hex()));
  if (fresh && fits) note_preprocessors(server, info);
  if (!fits) return tl::unexpected(std::move(misfit));
  return {};
}

bool Roster::info_due(std::size_t server) const {
  const Deadline now = options_.clock();
  const std::lock_guard lock(mutex_);
  const Entry& entry = entries_[server];
  return !entry.info || entry.info_stale || now - entry.info_read >= options_.info_interval;
}

void Roster::info_outdated(std::size_t server) {
  const std::lock_guard lock(mutex_);
  entries_[server].info_stale = true;
}

void Roster::count_request(std::size_t server) {
  const std::lock_guard lock(mutex_);
  ++entries_[server].counts.requests;
}

void Roster::request_succeeded(std::size_t server) {
  const std::lock_guard lock(mutex_);
  entries_[server].health.request_succeeded();
}

void Roster::request_failed(std::size_t server, std::string_view what, std::uint64_t picture) {
  bool ejected = false;
  {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[server];
    ++entry.counts.failures;
    entry.counts.last_error = one_line(what, kMaxLine);
    entry.info_stale = true;  // it may have been started anew
    ejected = entry.health.request_failed(picture);
    follow(entry, options_.clock());
  }
  log(server, fmt::format("{}{}", what, ejected ? "; not asked again until its probes are good" : ""));
}

void Roster::follow(Entry& entry, Deadline now) {
  const bool ejected = entry.health.condition(now) == ServerCondition::kEjected;
  if (ejected == *entry.ejection) return;
  if (ejected)
    *entry.ejection = true;
  else
    entry.ejection = std::make_shared<CancelFlag>(false);
}

void Roster::request_late(std::size_t server, std::string_view what) {
  bool ejected = false;
  {
    const Deadline now = options_.clock();
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[server];
    entry.counts.last_error = one_line(what, kMaxLine);
    ejected = entry.health.request_late();
    follow(entry, now);
  }
  if (ejected)
    log(server, "no answer in the time that requests had, again and again; not asked until its probes are good");
}

std::shared_ptr<const CancelFlag> Roster::ejection(std::size_t server) const {
  const std::lock_guard lock(mutex_);
  return entries_[server].ejection;
}

bool Roster::begin_retrial(std::size_t server) {
  const Deadline now = options_.clock();
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[server];
  if (entry.health.condition(now) != ServerCondition::kEjected || entry.on_trial || now < entry.next_trial)
    return false;
  entry.on_trial = true;
  return true;
}

bool Roster::end_retrial(std::size_t server, bool ready) {
  const Deadline now = options_.clock();
  {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[server];
    entry.on_trial = false;
    entry.next_trial = now + kBetweenTrials;
    if (!ready) return false;
    entry.health.readmit(now);
    entry.info_stale = true;
    follow(entry, now);
  }
  log(server, "healthy again, found when no other was left");
  return true;
}

void Roster::overloaded(std::size_t server, std::optional<std::chrono::milliseconds> retry_after,
                        std::string_view what) {
  const Deadline now = options_.clock();
  bool changed = false;
  {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[server];
    entry.counts.last_error = one_line(what, kMaxLine);
    changed = entry.health.overloaded(now, retry_after);
  }
  if (changed) log(server, fmt::format("{}; not asked for a while", what));
}

bool Roster::begin_probe(std::size_t server) {
  const Deadline now = options_.clock();
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[server];
  if (entry.probing || now < entry.health.next_probe()) return false;
  entry.probing = true;
  return true;
}

void Roster::probe_succeeded(std::size_t server) {
  const Deadline now = options_.clock();
  bool back = false;
  {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[server];
    entry.probing = false;
    ++entry.counts.probes;
    back = entry.health.probe_succeeded(now);
    follow(entry, now);
  }
  if (back) log(server, "healthy again");
}

void Roster::probe_failed(std::size_t server, std::string_view what) {
  const Deadline now = options_.clock();
  bool ejected = false, first = false;
  {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[server];
    entry.probing = false;
    ++entry.counts.probes;
    ++entry.counts.failed_probes;
    entry.counts.last_error = one_line(what, kMaxLine);
    entry.info_stale = true;
    first = entry.health.consecutive_failures() == 0;
    ejected = entry.health.probe_failed(now);
    follow(entry, now);
  }
  if (first || ejected)
    log(server, fmt::format("probe failed: {}{}", what, ejected ? "; not asked until its probes are good" : ""));
}

void Roster::probe_abandoned(std::size_t server) {
  const std::lock_guard lock(mutex_);
  entries_[server].probing = false;
}

Deadline Roster::next_probe(std::size_t server) const {
  const std::lock_guard lock(mutex_);
  return entries_[server].health.next_probe();
}

}  // namespace chiasm
