// Which KV blocks are in use, and by how many sequences. The blocks' contents live in the Ops' KvPool.
//
// Thread contract: one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/check.h"

namespace chiasm {

class KvBlocks {
 public:
  explicit KvBlocks(std::int64_t count) : holders_(static_cast<std::size_t>(count), 0) {
    for (std::int64_t block = count; block-- > 0;) free_.push_back(static_cast<std::int32_t>(block));
  }

  std::int64_t free() const { return static_cast<std::int64_t>(free_.size()); }

  // A block held once. There must be a free one.
  std::int32_t take() {
    CHECK(!free_.empty());
    const std::int32_t block = free_.back();
    free_.pop_back();
    holders_[static_cast<std::size_t>(block)] = 1;
    return block;
  }
  void share(std::int32_t block) {
    CHECK(holders_[static_cast<std::size_t>(block)] > 0);
    ++holders_[static_cast<std::size_t>(block)];
  }
  void give_back(std::int32_t block) {
    CHECK(holders_[static_cast<std::size_t>(block)] > 0);
    if (--holders_[static_cast<std::size_t>(block)] == 0) free_.push_back(block);
  }

 private:
  std::vector<std::int32_t> free_;
  std::vector<std::int32_t> holders_;
};

}  // namespace chiasm
