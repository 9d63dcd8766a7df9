// Which heads of attention each part of an Ops computes. Thread contract: pure functions.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "kernels/ops.h"

namespace chiasm {

struct HeadShares {
  Shares query, kv;  // in heads; query.width is a multiple of kv.width
};

// Parts that divide the kv heads have their own ones, with the query heads that read them. Of more parts, several have
// a copy of one kv head and share out its query heads; where these do not come out even the last have heads of zeros.
// kInvalidArgument for any other number of parts.
Result<HeadShares> head_shares(std::int64_t heads, std::int64_t kv_heads, int parts);

// In units of which a head is `size`.
Shares scaled(const Shares& heads, std::int64_t size);

}  // namespace chiasm
