// The fields about how tokens are chosen that are more than one number: logit_bias, seed, stop, response_format.
//
// Readers of the table in request_fields.cpp. Thread contract: plain functions.
#pragma once

#include "api/request_draft.h"

namespace chiasm {

inline constexpr std::size_t kMaxStops = 16, kLongestStop = 1024, kMaxStopTokens = 256;
inline constexpr double kMaxBias = 100;

ApiStatus read_logit_bias(const FieldValue& field, RequestDraft& draft);
ApiStatus read_seed(const FieldValue& field, RequestDraft& draft);
ApiStatus read_stop(const FieldValue& field, RequestDraft& draft);
ApiStatus read_stop_token_ids(const FieldValue& field, RequestDraft& draft);
ApiStatus read_logprobs(const FieldValue& field, RequestDraft& draft);
ApiStatus read_response_format(const FieldValue& field, RequestDraft& draft);

}  // namespace chiasm
