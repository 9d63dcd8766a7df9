#include "fleet/vision_fleet.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <set>
#include <system_error>

#include "base/stopwatch.h"
#include "fleet/rendezvous.h"

namespace chiasm {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxServers = 64;
constexpr std::uint64_t kMaxInfo = 64 << 10;    // bytes of a GET /v1/info
constexpr std::uint64_t kMaxAnswer = 64 << 10;  // of answers that carry no feature
// A feature's file beside its rows.
constexpr std::uint64_t kFileHead = 1 << 20;

Status check_options(const FleetOptions& options) {
  if (options.servers.empty() || options.servers.size() > kMaxServers)
    return fail(Code::kInvalidArgument, "expected 1 to {} vision servers, got {}", kMaxServers, options.servers.size());
  std::set<std::string> seen;
  for (const Url& url : options.servers) {
    if (url.target != "/")
      return fail(Code::kInvalidArgument, "vision server {}: expected no path, got '{}'", url.origin(), url.target);
    if (!seen.insert(url.origin()).second)
      return fail(Code::kInvalidArgument, "vision server {} is listed twice", url.origin());
  }
  for (const char c : options.secret)
    if (c <= 0x20 || c >= 0x7f)
      return fail(Code::kInvalidArgument, "the vision servers' secret holds characters other than visible ASCII");
  const HealthOptions& health = options.health;
  if (health.eject_after < 1 || health.eject_late < 1 || health.return_after < 1 ||
      health.probe_interval < milliseconds(1) || health.max_probe_interval < health.probe_interval ||
      health.jitter < 0 || health.jitter > 0.5)
    return fail(Code::kInvalidArgument,
                "vision servers: expected counts and a probe interval of at least 1, a longest interval not below it, "
                "and a jitter from 0 to 0.5");
  if (options.request_timeout < milliseconds(1) || options.probe_timeout < milliseconds(1))
    return fail(Code::kInvalidArgument, "vision servers: expected timeouts of at least 1 ms");
  return {};
}

Outcome mismatch(std::string_view what, const Digest& expected, const Digest& got) {
  return {Verdict::kMismatch,
          {Code::kFailedPrecondition,
           fmt::format("expected {} {}, the vision server has {}", what, expected.hex(), got.hex())},
          {}};
}

// Never 0.
std::uint64_t name_of(const FeatureId& id) {
  std::uint64_t out = 0;
  std::memcpy(&out, id.digest.bytes.data(), sizeof out);
  return out | 1;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

// One request on its way through the servers.
struct VisionFleet::Question {
  const FeatureId& id;
  std::string_view tenant;
  Deadline deadline;
  const CancelFlag* cancel;
  // To encode, not just to look up:
  const FeatureKey* key = nullptr;
  FileBytes files{};
  std::optional<std::int64_t> min_pixels, max_pixels;
};

// Why nobody answered.
struct VisionFleet::Tally {
  std::size_t failed = 0, busy = 0, other_model = 0, absent = 0;
  Error mismatch;  // the first

  void count(const Outcome& outcome) {
    switch (outcome.verdict) {
      case Verdict::kLate:
      case Verdict::kOverloaded: ++busy; break;
      case Verdict::kAbsent: ++absent; break;
      case Verdict::kMismatch:
        if (other_model++ == 0) mismatch = outcome.error;
        break;
      default: ++failed; break;
    }
  }

  Error error() const {
    const std::size_t all = failed + busy + other_model + absent;
    if (other_model == all) return mismatch;
    if (other_model + absent == all) return {Code::kNotFound, "no vision server has this feature"};
    return {Code::kUnavailable,
            fmt::format("no vision server can answer now: of {}, {} out of service, {} busy{}{}", all, failed, busy,
                        other_model != 0 ? fmt::format(", {} of another model", other_model) : "",
                        absent != 0 ? fmt::format(", {} without this feature", absent) : "")};
  }
};

Result<std::unique_ptr<VisionFleet>> VisionFleet::create(FleetOptions options, std::unique_ptr<HttpClient> client) {
  RETURN_IF_ERROR(check_options(options));
  if (!options.clock) options.clock = [] { return std::chrono::steady_clock::now(); };
  return std::unique_ptr<VisionFleet>(new VisionFleet(std::move(options), std::move(client)));
}

VisionFleet::VisionFleet(FleetOptions options, std::unique_ptr<HttpClient> client)
    : options_(std::move(options)), client_(std::move(client)), roster_(options_) {}

VisionFleet::~VisionFleet() { stop(); }

Status VisionFleet::start() {
  if (!threads_.empty()) return {};
  try {
    for (std::size_t i = 0; i < roster_.size(); ++i) threads_.emplace_back([this, i] { probe_loop(i); });
  } catch (const std::system_error& e) {
    stop();
    return fail(Code::kResourceExhausted, "cannot start {} threads for vision servers: {}", roster_.size(), e.what());
  }
  return {};
}

void VisionFleet::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  stopping_ = false;
}

void VisionFleet::probe_loop(std::size_t server) {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    if (roster_.begin_probe(server)) probe(server);
    const Deadline::duration left = roster_.next_probe(server) - options_.clock();
    lock.lock();
    // Bounded both ways, whatever the clock says: neither a busy loop nor a thread that never looks again.
    const auto wait = std::clamp<Deadline::duration>(left, milliseconds(1), std::chrono::minutes(1));
    wake_.wait_until(lock, std::chrono::steady_clock::now() + wait, [&] { return stopping_.load(); });
  }
}

Deadline VisionFleet::probe_due() {
  Deadline next = Deadline::max();
  for (std::size_t i = 0; i < roster_.size(); ++i) {
    if (roster_.begin_probe(i)) probe(i);
    next = std::min(next, roster_.next_probe(i));
  }
  return next;
}

void VisionFleet::probe(std::size_t server) {
  const ClientCall call = call_to(server, "GET", "/health/ready", "", options_.probe_timeout, kNoDeadline, &stopping_);
  const auto answer = client_->send(call);
  if (!answer && answer.error().code == Code::kCancelled) return roster_.probe_abandoned(server);
  if (!answer || answer->status != 200) {
    // Not ready is not overloaded: it is on its way up or down.
    roster_.probe_failed(server, judge(answer, Asked::kInfo, false).error.message);
    return;
  }
  if (roster_.info_due(server)) {
    const Outcome outcome = read_info(server, kNoDeadline, &stopping_);
    if (outcome.verdict == Verdict::kGivenUp) return roster_.probe_abandoned(server);
    if (outcome.verdict == Verdict::kFailed) return roster_.probe_failed(server, outcome.error.message);
  }
  roster_.probe_succeeded(server);
}

Status VisionFleet::still_wanted(Deadline deadline, const CancelFlag* cancel) const {
  if (cancel != nullptr && *cancel) return fail(Code::kCancelled, "the request was cancelled");
  if (options_.clock() >= deadline)
    return fail(Code::kDeadlineExceeded, "the deadline passed before a vision server answered");
  return {};
}

ClientCall VisionFleet::call_to(std::size_t server, std::string method, std::string target, std::string_view tenant,
                                milliseconds timeout, Deadline deadline, const CancelFlag* cancel) const {
  const Deadline now = options_.clock();
  ClientCall call;
  call.method = std::move(method);
  call.url = options_.servers[server];
  call.url.target = std::move(target);
  call.deadline = std::min(deadline, now + timeout);
  call.cancel = cancel;
  call.max_body = kMaxAnswer;
  if (!options_.secret.empty()) call.headers.add("Authorization", "Bearer " + options_.secret);
  if (!tenant.empty()) call.headers.add("X-Chiasm-Tenant", std::string(tenant));
  const auto left = std::chrono::duration_cast<milliseconds>(call.deadline - now).count();
  call.headers.add("x-request-timeout-ms", std::to_string(std::max<std::int64_t>(left, 1)));
  return call;
}

Outcome VisionFleet::read_info(std::size_t server, Deadline deadline, const CancelFlag* cancel) {
  ClientCall call = call_to(server, "GET", "/v1/info", "", options_.probe_timeout, deadline, cancel);
  call.max_body = kMaxInfo;
  const auto answer = client_->send(call);
  Outcome outcome = judge(answer, Asked::kInfo, call.deadline == deadline);
  if (outcome.verdict != Verdict::kGood) {
    outcome.error.message.insert(0, "/v1/info: ");
    return outcome;
  }
  const auto info = parse_vision_info(answer->body, "/v1/info");
  if (!info) return {Verdict::kFailed, info.error(), {}};
  if (const Status fits = roster_.learn(server, *info); !fits) return {Verdict::kMismatch, fits.error(), {}};
  return {};
}

void VisionFleet::record(std::size_t server, const Outcome& outcome, const FeatureId* about) {
  switch (outcome.verdict) {
    case Verdict::kGood:
    case Verdict::kRefused:
    case Verdict::kAbsent: return roster_.request_succeeded(server);
    case Verdict::kMismatch: return roster_.info_outdated(server);
    case Verdict::kOverloaded: return roster_.overloaded(server, outcome.retry_after, outcome.error.message);
    case Verdict::kFailed:
      return roster_.request_failed(server, outcome.error.message,
                                    about != nullptr && outcome.server_error ? name_of(*about) : 0);
    case Verdict::kGivenUp:
    case Verdict::kAbandoned:
    case Verdict::kLate: return;
  }
}

Result<VisionInfo> VisionFleet::info(Deadline deadline, const CancelFlag* cancel) {
  if (const Info known = roster_.preferred_info()) return *known;
  Tally tally;
  for (std::size_t i = 0; i < roster_.size(); ++i) {
    RETURN_IF_ERROR(still_wanted(deadline, cancel));
    const Roster::Standing standing = roster_.standing(i);
    Outcome outcome;
    switch (standing.condition) {
      case ServerCondition::kEjected: outcome.verdict = Verdict::kFailed; break;
      case ServerCondition::kOverloaded: outcome.verdict = Verdict::kOverloaded; break;
      case ServerCondition::kMismatch: outcome = {Verdict::kMismatch, standing.mismatch, {}}; break;
      case ServerCondition::kHealthy:
        outcome = read_info(i, deadline, cancel);
        record(i, outcome);
        break;
    }
    if (outcome.verdict == Verdict::kGivenUp) return tl::unexpected(outcome.error);
    if (const Info known = roster_.preferred_info()) return *known;
    tally.count(outcome);
  }
  return tl::unexpected(tally.error());
}

// Whether this server is to be asked: it is well, and what it says of itself fits the key. Reads its info where that is
// not known yet.
Outcome VisionFleet::admit(std::size_t server, const Question& question, Info& info) {
  Roster::Standing standing = roster_.standing(server);
  switch (standing.condition) {
    case ServerCondition::kEjected: return {Verdict::kFailed, {}, {}};
    case ServerCondition::kOverloaded: return {Verdict::kOverloaded, {}, {}};
    case ServerCondition::kMismatch: return {Verdict::kMismatch, std::move(standing.mismatch), {}};
    case ServerCondition::kHealthy: break;
  }
  if (!standing.info) {
    Outcome outcome = read_info(server, question.deadline, question.cancel);
    record(server, outcome);
    if (outcome.verdict != Verdict::kGood) return outcome;
    standing = roster_.standing(server);
  }
  info = standing.info;
  if (question.key == nullptr) return {};
  if (info->vision_digest != question.key->vision_digest)
    return mismatch("vision_digest", question.key->vision_digest, info->vision_digest);
  const Digest preprocess = info->preprocess_digest_with(question.min_pixels, question.max_pixels);
  if (preprocess != question.key->preprocess_digest)
    return mismatch("preprocess_digest", question.key->preprocess_digest, preprocess);
  // A server that refuses a body may close before it is all sent, and would look broken.
  if (const std::uint64_t size = encode_body_size(question.id, question.files); size > info->limits.max_body)
    return {Verdict::kRefused,
            {Code::kInvalidArgument,
             fmt::format("the picture has {} bytes, the vision server takes at most {}", size, info->limits.max_body)},
            {}};
  return {};
}

void VisionFleet::share_folder(std::string name, std::function<Result<Feature>(const FeatureKey&)> read) {
  folder_ = std::move(name);
  read_folder_ = std::move(read);
}

Outcome VisionFleet::ask(std::size_t server, const Question& question, const VisionInfo& info, RemoteFeature& out,
                         bool by_folder) {
  const bool encodes = question.key != nullptr;
  ClientCall call =
      call_to(server, encodes ? "POST" : "GET",
              encodes ? encode_target(question.min_pixels, question.max_pixels) : feature_target(question.id),
              question.tenant, options_.request_timeout, question.deadline, question.cancel);
  call.max_body = options_.max_feature;
  call.headers.add("Accept", "application/octet-stream");
  std::string joined;
  if (encodes) {
    call.headers.add("Content-Type", encode_content_type(question.id, question.files));
    if (by_folder) call.headers.add(std::string(kFolderHeader), folder_);
    if (question.files.size() > 1) joined = join_frames(question.id, question.files);
    call.body = question.files.size() > 1 ? std::string_view(joined) : text_of(question.files[0]);
  }
  // No feature of one picture is larger; for what is only looked up the limit stays.
  if (encodes)
    call.max_body = std::min(call.max_body, static_cast<std::uint64_t>(info.limits.max_picture_tokens) *
                                                    static_cast<std::uint64_t>(info.hidden_size) * sizeof(float) +
                                                kFileHead);
  roster_.count_request(server);
  // Who waits on a server that its probes find dead waits no longer.
  const std::shared_ptr<const CancelFlag> ejected = roster_.ejection(server);
  call.abandon = ejected.get();
  const auto answer = client_->send(call);
  const bool client_gave_up = question.cancel != nullptr && *question.cancel;
  if (!answer && answer.error().code == Code::kCancelled && *ejected && !client_gave_up)
    return {Verdict::kAbandoned, {Code::kUnavailable, "it was found dead while it was asked"}, {}};
  Outcome outcome = judge(answer, encodes ? Asked::kEncode : Asked::kFeature, call.deadline == question.deadline);

  if (outcome.verdict == Verdict::kGood && by_folder && answer->headers.find(kFolderHeader) == folder_) {
    auto feature = read_folder_(*question.key);
    if (!feature) return ask(server, question, info, out, false);
    out.feature = std::move(*feature);
    out.source = feature_source(answer->headers);
    out.server = roster_.origins()[server];
    return outcome;
  }
  if (outcome.verdict == Verdict::kGood) {
    FeatureExpectations expected = encodes ? FeatureExpectations::of(*question.key) : FeatureExpectations{};
    expected.id = question.id;
    expected.merge = info.preprocessor.merge_size;
    expected.width = info.hidden_size;
    expected.dtype = options_.dtype;
    auto feature = read_feature(answer->body, expected, options_.max_feature);
    if (feature) {
      out.feature = std::move(*feature);
      out.source = feature_source(answer->headers);
      out.server = roster_.origins()[server];
      return outcome;
    }
    outcome.error = feature.error();
    outcome.verdict = Verdict::kFailed;
    if (outcome.error.code == Code::kFailedPrecondition) outcome.verdict = Verdict::kMismatch;
    // Within the limit and still too large: it is our memory that is short.
    if (outcome.error.code == Code::kResourceExhausted && answer->body.size() <= options_.max_feature)
      outcome.verdict = Verdict::kGivenUp;
  }
  if (outcome.verdict != Verdict::kMismatch) return outcome;

  // Its info promised otherwise, so that is read again: the server was exchanged, or contradicts itself.
  roster_.info_outdated(server);
  const Outcome again = read_info(server, question.deadline, question.cancel);
  if (again.verdict == Verdict::kMismatch || again.verdict == Verdict::kGivenUp) return again;
  const Info now = roster_.standing(server).info;
  if (again.verdict == Verdict::kGood && now->vision_digest != info.vision_digest)
    return mismatch("vision_digest", info.vision_digest, now->vision_digest);
  roster_.request_failed(server, outcome.error.message, 0);
  return outcome;
}

bool VisionFleet::answers_probe(std::size_t server, Deadline deadline, const CancelFlag* cancel) {
  const auto answer =
      client_->send(call_to(server, "GET", "/health/ready", "", options_.probe_timeout, deadline, cancel));
  return answer && answer->status == 200;
}

Result<RemoteFeature> VisionFleet::ask_each(const Question& question) {
  RETURN_IF_ERROR(check_tenant(question.tenant));
  const Stopwatch watch;
  RemoteFeature out;
  Tally tally;
  for (const std::size_t server : rendezvous_order(question.id, roster_.origins())) {
    RETURN_IF_ERROR(still_wanted(question.deadline, question.cancel));
    Info info;
    Outcome outcome = admit(server, question, info);
    if (outcome.verdict == Verdict::kGood) {
      // A server is not to blame for what a hasty caller gave it no time for.
      const bool patient = question.deadline - options_.clock() >= options_.probe_timeout;
      outcome = ask(server, question, *info, out, !folder_.empty() && question.key != nullptr);
      record(server, outcome, &question.id);
      if (patient && outcome.verdict == Verdict::kGivenUp && outcome.error.code == Code::kDeadlineExceeded)
        roster_.request_late(server, outcome.error.message);
    }
    switch (outcome.verdict) {
      case Verdict::kGood: out.vision_ms = watch.ms(); return out;
      case Verdict::kRefused:
      case Verdict::kGivenUp: return tl::unexpected(std::move(outcome.error));
      default: tally.count(outcome);
    }
  }
  RETURN_IF_ERROR(still_wanted(question.deadline, question.cancel));
  return tl::unexpected(tally.error());
}

Result<RemoteFeature> VisionFleet::ask_in_order(const Question& question) try {
  auto out = ask_each(question);
  if (out || out.error().code != Code::kUnavailable) return out;
  // Before a client is told that nobody sees: a server that was ejected may have come back since its last probe.
  bool back = false;
  for (std::size_t server = 0; server < roster_.size(); ++server)
    if (roster_.begin_retrial(server)) {
      const bool ready = answers_probe(server, question.deadline, question.cancel);
      back = roster_.end_retrial(server, ready) || back;
    }
  return back ? ask_each(question) : std::move(out);
} catch (const std::bad_alloc&) {
  return fail(Code::kResourceExhausted, "feature {}: not enough memory to ask for it", question.id.hex());
}

Result<RemoteFeature> VisionFleet::encode(const FeatureKey& key, FileBytes files,
                                          std::optional<std::int64_t> min_pixels,
                                          std::optional<std::int64_t> max_pixels, std::string_view tenant,
                                          Deadline deadline, const CancelFlag* cancel) {
  if (files.empty()) return fail(Code::kInvalidArgument, "expected a picture's bytes or a video's frames, got none");
  return ask_in_order({.id = key.id,
                       .tenant = tenant,
                       .deadline = deadline,
                       .cancel = cancel,
                       .key = &key,
                       .files = files,
                       .min_pixels = min_pixels,
                       .max_pixels = max_pixels});
}

Result<RemoteFeature> VisionFleet::get(const FeatureId& id, std::string_view tenant, Deadline deadline,
                                       const CancelFlag* cancel) {
  auto out = ask_in_order({.id = id, .tenant = tenant, .deadline = deadline, .cancel = cancel});
  // The id names the encoder too: no other server could have it otherwise.
  if (out && options_.vision_digest)
    RETURN_IF_ERROR(check_feature(out->feature.meta, *options_.vision_digest, options_.accepted_digests));
  return out;
}

Outcome VisionFleet::send_removal(std::size_t server, const FeatureId& id, std::string_view tenant, Deadline deadline,
                                  const CancelFlag* cancel) {
  const ClientCall call =
      call_to(server, "DELETE", feature_target(id), tenant, options_.request_timeout, deadline, cancel);
  roster_.count_request(server);
  Outcome outcome = judge(client_->send(call), Asked::kFeature, call.deadline == deadline);
  record(server, outcome);
  return outcome;
}

Status VisionFleet::remove(const FeatureId& id, std::string_view tenant, Deadline deadline, const CancelFlag* cancel) {
  RETURN_IF_ERROR(check_tenant(tenant));
  std::size_t removed = 0, asked = 0;
  Tally tally;
  for (std::size_t i = 0; i < roster_.size(); ++i) {
    RETURN_IF_ERROR(still_wanted(deadline, cancel));
    const Roster::Standing standing = roster_.standing(i);
    if (standing.condition == ServerCondition::kMismatch) {
      tally.count({Verdict::kMismatch, standing.mismatch, {}});
      continue;
    }
    if (standing.condition == ServerCondition::kEjected) {
      roster_.log(i, fmt::format("ejected: feature {} was not removed from it", id.hex()));
      continue;
    }
    const Outcome outcome = send_removal(i, id, tenant, deadline, cancel);
    if (outcome.verdict == Verdict::kGivenUp) return tl::unexpected(outcome.error);
    ++asked;
    if (outcome.verdict == Verdict::kGood) {
      ++removed;
    } else {
      tally.count(outcome);
    }
  }
  if (tally.failed + tally.busy != 0 || (asked == 0 && tally.other_model != roster_.size()))
    return fail(Code::kUnavailable, "the feature could be removed from {} of {} vision servers",
                asked - tally.failed - tally.busy, roster_.size());
  if (removed != 0) return {};
  return tl::unexpected(tally.error());
}

}  // namespace chiasm
