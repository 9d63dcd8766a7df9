// One picture of a request, in each of the forms it may have: data URI, URL, id, feature file, embeddings.
//
// Thread contract: plain functions.
#pragma once

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "api/chat_request.h"
#include "api/field_value.h"

namespace chiasm {

using Members = std::vector<std::pair<std::string_view, FieldValue>>;

const FieldValue* find_member(const Members& members, std::string_view name);

// The member "type", or where it is absent the one of `known` that is a member. `foreign` are refused as unsupported,
// others as wrong.
ApiResult<std::string_view> type_of_part(const FieldValue& part, const Members& members,
                                         std::span<const std::string_view> known,
                                         std::span<const std::string_view> foreign);

// A string (data URI or URL), {"url", "detail"}, or a part of one of the types image_url, image_id, image_features,
// image_embeds.
ApiResult<ImageInput> read_image(const FieldValue& field);

}  // namespace chiasm
