// The words between the two sides: how a picture is asked about, and what an answer means.
//
// Nothing here sends anything or remembers anything. Messages for callers hold no addresses. Thread contract: pure
// functions.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "features/feature.h"
#include "features/feature_file.h"
#include "http/message.h"

namespace chiasm {

// In a question: the folder from which the asking side reads features. In an answer without a body: it is in there.
inline constexpr std::string_view kFolderHeader = "X-Chiasm-Folder";

using FileBytes = std::span<const std::span<const std::byte>>;

// The body of POST /v1/features: one file as it is, several as parts "frame" of multipart/form-data. The boundary is
// the feature's id, which no file can contain that the id is made from.
std::uint64_t encode_body_size(const FeatureId& id, FileBytes files);
std::string encode_content_type(const FeatureId& id, FileBytes files);
std::string join_frames(const FeatureId& id, FileBytes files);

// "/v1/features?min_pixels=…"
std::string encode_target(std::optional<std::int64_t> min_pixels, std::optional<std::int64_t> max_pixels);
std::string feature_target(const FeatureId& id);

// A tenant travels in a header: no control characters, no blanks at its ends, at most 256 bytes. kInvalidArgument.
Status check_tenant(std::string_view tenant);

// What an HTTP answer, or the lack of one, says.
enum class Verdict : std::uint8_t {
  kGood,
  kRefused,     // the caller's input is at fault: no other server will take it
  kAbsent,      // no such feature here
  kMismatch,    // this server serves another model
  kOverloaded,  // not now
  kFailed,      // this server's fault
  kAbandoned,   // it was ejected while it was asked
  kLate,        // it says that the time this request had was too short for it
  kGivenUp,     // the caller's deadline or cancellation
};

struct Outcome {
  Verdict verdict = Verdict::kGood;
  Error error;  // kRefused, kGivenUp: for the caller; otherwise for the log
  std::optional<std::chrono::milliseconds> retry_after;
  bool server_error = false;  // kFailed, and it is there: it answered 5xx
};

enum class Asked : std::uint8_t { kEncode, kFeature, kInfo };

// `last` says that the call's deadline was the caller's own: a server is not to blame for what a hasty caller gave it
// no time for, and nothing is left to try when the deadline passed.
Outcome judge(const Result<HttpResponse>& answer, Asked asked, bool last);

// Retry-After in seconds; nothing for a date or nonsense.
std::optional<std::chrono::milliseconds> retry_after(const Headers& headers);

// The message of {"error":{"message":…}} in one line of at most 400 bytes; "" where there is none.
std::string error_message(std::string_view body);

// `text` with control characters and broken UTF-8 as '?', at most `limit` bytes: for logs and foreign messages.
std::string one_line(std::string_view text, std::size_t limit);

// "encoded", "memory" or "disk" as X-Feature-Source has it, else "unknown".
std::string feature_source(const Headers& headers);

// The feature in an answer's body. kFailedPrecondition: it is sound but of another vision digest than expected, both
// named; any other code: the bytes are no good.
Result<Feature> read_feature(std::string_view body, const FeatureExpectations& expected, std::uint64_t limit);

}  // namespace chiasm
