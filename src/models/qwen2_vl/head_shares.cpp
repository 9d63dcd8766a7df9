#include "models/qwen2_vl/head_shares.h"

#include <algorithm>

#include "base/check.h"

namespace chiasm {

Result<HeadShares> head_shares(std::int64_t heads, std::int64_t kv_heads, int parts) {
  CHECK(kv_heads > 0 && heads % kv_heads == 0);
  const std::int64_t group = heads / kv_heads;
  HeadShares out;
  if (kv_heads % parts == 0) {
    out.kv = even_shares(kv_heads, parts);
    out.query = scaled(out.kv, group);
    return out;
  }
  if (parts % kv_heads != 0 || parts > heads)
    return fail(Code::kInvalidArgument,
                "a language model of {} heads and {} kv heads cannot be divided among {} devices: their number has to "
                "divide the kv heads, or be a multiple of them of at most {}",
                heads, kv_heads, parts, heads);
  const std::int64_t copies = parts / kv_heads;
  out.kv.width = 1;
  out.query.width = (group + copies - 1) / copies;
  for (std::int64_t i = 0; i < parts; ++i) {
    const std::int64_t kv = i / copies, first = std::min(group, i % copies * out.query.width);
    out.kv.of_part.push_back({kv, 1});
    out.query.of_part.push_back({kv * group + first, std::min(out.query.width, group - first)});
  }
  return out;
}

Shares scaled(const Shares& heads, std::int64_t size) {
  Shares out{heads.width * size, {}};
  for (const Share& share : heads.of_part) out.of_part.push_back({share.begin * size, share.count * size});
  return out;
}

}  // namespace chiasm
