// A request while its fields are read, before what spans several of them is checked.
//
// Thread contract: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "api/chat_request.h"
#include "api/field_value.h"

namespace chiasm {

struct RequestDraft {
  explicit RequestDraft(const RequestLimits& given) : limits(given) {}

  const RequestLimits& limits;
  std::string model;
  SamplingFields sampling;
  bool stream = false, include_usage = false, stream_options = false, logprobs = false;
  std::int64_t n = 1, top_logprobs = 0;
  std::optional<std::int64_t> min_pixels, max_pixels, max_tokens, max_completion_tokens;

  std::vector<RequestMessage> messages;  // chat
  std::optional<std::string> system;     // ask
  std::vector<ContentPart> pictures;     // ask
  std::vector<std::string> questions;    // ask
  std::optional<ImageInput> image;       // upload

  // Counts what the request as a whole may have of; an error names the field that is too much.
  ApiStatus count_text(const FieldValue& field, std::size_t bytes);
  ApiStatus count_image(const FieldValue& field);

 private:
  std::size_t text_bytes_ = 0, images_ = 0;
};

}  // namespace chiasm
