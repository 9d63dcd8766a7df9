// The KV pool of the cpu Ops: per layer and block the keys [kv_head][head_dim][32] and values [kv_head][32][padded
// head_dim], so that a block is an operand of the kernels as it lies. Memory is taken from the system as blocks are
// used.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/attention_cpu.h"
#include "kernels/ops.h"

namespace chiasm {

class KvPoolCpu final : public KvPool {
 public:
  static Result<std::unique_ptr<KvPool>> make(const KvShape& shape);

  std::uint64_t bytes() const override {
    return static_cast<std::uint64_t>(shape().layers * shape().blocks * block_floats()) * sizeof(float);
  }
  KeyValueBlock at(std::int64_t layer, std::int64_t block, std::int64_t kv_head) const {
    const float* base = data_.get() + (layer * shape().blocks + block) * block_floats();
    return {base + kv_head * key_floats(), base + shape().kv_heads * key_floats() + kv_head * value_floats()};
  }
  float* keys(std::int64_t layer, std::int64_t block, std::int64_t kv_head) {
    return const_cast<float*>(at(layer, block, kv_head).keys);
  }
  float* values(std::int64_t layer, std::int64_t block, std::int64_t kv_head) {
    return const_cast<float*>(at(layer, block, kv_head).values);
  }
  std::int64_t block_floats() const { return shape().kv_heads * (key_floats() + value_floats()); }

 private:
  struct Free {
    std::size_t bytes;
    void operator()(float* p) const;
  };
  KvPoolCpu(const KvShape& shape, float* data, std::size_t bytes) : KvPool(shape), data_(data, Free{bytes}) {}
  std::int64_t key_floats() const { return shape().head_dim * kKvBlock; }
  std::int64_t value_floats() const { return padded_head_dim(shape().head_dim) * kKvBlock; }
  std::unique_ptr<float[], Free> data_;
};

}  // namespace chiasm
