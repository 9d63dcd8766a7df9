#include "fleet/feature_calls.h"

#include <algorithm>
#include <charconv>

#include "base/json.h"

namespace chiasm {
namespace {

constexpr std::size_t kMaxTenant = 256;
constexpr std::size_t kMaxErrorBody = 64 << 10;
constexpr std::size_t kMaxMessage = 400;

// At most 70 characters (RFC 2046, section 5.1.1).
std::string boundary_of(const FeatureId& id) { return id.hex(); }

std::string part_head(const FeatureId& id, std::size_t index) {
  return fmt::format(
      "--{}\r\nContent-Disposition: form-data; name=\"frame\"; filename=\"frame-{}\"\r\n"
      "Content-Type: application/octet-stream\r\n\r\n",
      boundary_of(id), index);
}

std::string closing(const FeatureId& id) { return fmt::format("--{}--\r\n", boundary_of(id)); }

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

Outcome failed(std::string text) { return {Verdict::kFailed, {Code::kUnavailable, std::move(text)}, {}}; }

Outcome judge_error(const Error& error, bool last) {
  if (error.code == Code::kCancelled) return {Verdict::kGivenUp, {Code::kCancelled, "the request was cancelled"}, {}};
  if (error.code == Code::kDeadlineExceeded && last)
    return {Verdict::kGivenUp, {Code::kDeadlineExceeded, "the deadline passed while a vision server was asked"}, {}};
  return failed(fmt::format("{}: {}", code_name(error.code), error.message));
}

}  // namespace

std::uint64_t encode_body_size(const FeatureId& id, FileBytes files) {
  std::uint64_t size = 0;
  for (const auto& file : files) size += file.size();
  if (files.size() == 1) return size;
  for (std::size_t i = 0; i < files.size(); ++i) size += part_head(id, i).size() + 2;
  return size + closing(id).size();
}

std::string encode_content_type(const FeatureId& id, FileBytes files) {
  return files.size() == 1 ? "application/octet-stream" : "multipart/form-data; boundary=" + boundary_of(id);
}

std::string join_frames(const FeatureId& id, FileBytes files) {
  std::string out;
  out.reserve(encode_body_size(id, files));
  for (std::size_t i = 0; i < files.size(); ++i) {
    out += part_head(id, i);
    out.append(reinterpret_cast<const char*>(files[i].data()), files[i].size());
    out += "\r\n";
  }
  return out + closing(id);
}

std::string encode_target(std::optional<std::int64_t> min_pixels, std::optional<std::int64_t> max_pixels) {
  std::string out = "/v1/features";
  char mark = '?';
  for (const auto& [name, value] : {std::pair{"min_pixels", min_pixels}, {"max_pixels", max_pixels}}) {
    if (!value) continue;
    out += fmt::format("{}{}={}", mark, name, *value);
    mark = '&';
  }
  return out;
}

std::string feature_target(const FeatureId& id) { return "/v1/features/" + id.hex(); }

Status check_tenant(std::string_view tenant) {
  if (tenant.size() > kMaxTenant)
    return fail(Code::kInvalidArgument, "the tenant's name has {} bytes, the limit is {}", tenant.size(), kMaxTenant);
  if (std::any_of(tenant.begin(), tenant.end(), is_control) || tenant.starts_with(' ') || tenant.ends_with(' '))
    return fail(Code::kInvalidArgument,
                "the tenant's name has control characters, or blanks at its ends: expected neither");
  return {};
}

std::optional<std::chrono::milliseconds> retry_after(const Headers& headers) {
  const auto text = headers.find("Retry-After");
  if (!text) return std::nullopt;
  std::uint32_t seconds = 0;
  const char* const begin = text->data();
  const char* const stop = begin + text->size();
  const auto [end, error] = std::from_chars(begin, stop, seconds);
  if (end != stop || (error != std::errc() && error != std::errc::result_out_of_range)) return std::nullopt;
  if (error == std::errc::result_out_of_range) seconds = UINT32_MAX;
  return std::chrono::seconds(seconds);
}

std::string one_line(std::string_view text, std::size_t limit) {
  const bool whole = is_utf8(text);
  std::string out(text.substr(0, limit));
  // What was cut in the middle of a character loses all of it.
  if (whole && out.size() < text.size())
    while (!out.empty() && !is_utf8(out)) out.pop_back();
  for (char& c : out)
    if (is_control(c) || (!whole && static_cast<unsigned char>(c) >= 0x80)) c = '?';
  return out;
}

std::string error_message(std::string_view body) {
  if (body.size() > kMaxErrorBody) return {};
  const auto json = Json::parse(body, "error");
  if (!json) return {};
  const auto error = json->root().find("error");
  const auto message = error ? error->find("message") : std::nullopt;
  if (!message) return {};
  const auto text = message->string();
  return text ? one_line(*text, kMaxMessage) : std::string();
}

Outcome judge(const Result<HttpResponse>& answer, Asked asked, bool last) {
  if (!answer) return judge_error(answer.error(), last);
  const int status = answer->status;
  if (status >= 200 && status < 300) return {};
  std::string message = error_message(answer->body);
  const std::string told = fmt::format("HTTP {}{}{}", status, message.empty() ? "" : ": ", message);
  switch (status) {
    case 400:
    case 413:
    case 415:
    case 422:
      if (asked != Asked::kEncode) break;
      if (message.empty()) message = fmt::format("the vision server refused the picture with HTTP {}", status);
      return {Verdict::kRefused, {Code::kInvalidArgument, std::move(message)}, {}};
    case 404:
      if (asked != Asked::kFeature) break;
      return {Verdict::kAbsent, {Code::kNotFound, told}, {}};
    case 409:
      if (asked == Asked::kInfo) break;
      return {Verdict::kMismatch, {Code::kFailedPrecondition, told}, {}};
    case 408:
    case 504:
      if (!last) break;
      return {Verdict::kLate, {Code::kDeadlineExceeded, told}, {}};
    case 429:
    case 503: return {Verdict::kOverloaded, {Code::kUnavailable, told}, retry_after(answer->headers)};
    default: break;
  }
  Outcome out = failed(told);
  out.server_error = status >= 500;
  return out;
}

std::string feature_source(const Headers& headers) {
  const auto source = headers.find("X-Feature-Source");
  if (source && (*source == "encoded" || *source == "memory" || *source == "disk")) return std::string(*source);
  return "unknown";
}

Result<Feature> read_feature(std::string_view body, const FeatureExpectations& expected, std::uint64_t limit) {
  constexpr std::string_view kSource = "answered feature";
  const auto bytes = std::as_bytes(std::span(body));
  auto feature = parse_feature(bytes, kSource, expected, limit);
  if (feature) return std::move(*feature);
  if (feature.error().fault == FeatureFault::kMismatch && expected.vision_digest) {
    // Sound, but another one: whether by its vision encoder is told apart from everything else.
    const auto other = parse_feature(bytes, kSource, {}, limit);
    if (other && other->meta.vision_digest != *expected.vision_digest)
      return fail(Code::kFailedPrecondition, "expected vision_digest {}, the vision server's feature has {}",
                  expected.vision_digest->hex(), other->meta.vision_digest.hex());
  }
  return fail(feature.error().code == Code::kFailedPrecondition ? Code::kDataLoss : feature.error().code, "{}",
              feature.error().message);
}

}  // namespace chiasm
