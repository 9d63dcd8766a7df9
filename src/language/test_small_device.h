// For tests only: a device for engines that says how much memory it has, and computes nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "kernels/test_idle_ops.h"

namespace chiasm {

// A device whose pools take all their memory at once: it says what is free, and gives less where others were quicker.
class SmallDevice final : public IdleOps {
 public:
  SmallDevice(std::uint64_t says, std::uint64_t gives) : says_(says), gives_(gives) {}
  std::optional<std::uint64_t> free_for_kv() const override { return says_; }
  Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape& shape) const override {
    if (kv_block_bytes(shape) * static_cast<std::uint64_t>(shape.blocks) > gives_)
      return fail(Code::kResourceExhausted, "no memory");
    return host_->make_kv_pool(shape);
  }

  std::string_view name() const override { return "small"; }
  Result<Buffer> allocate(std::int64_t, std::int64_t, DType) const override { return Buffer(); }
  Result<std::unique_ptr<const Weight>> prepare(std::span<const TensorView>,
                                                std::span<const TensorView>) const override {
    return fail(Code::kUnimplemented, "no weights");
  }

 private:
  std::uint64_t says_, gives_;
  std::unique_ptr<Ops> host_ = make_ref_ops();
};

}  // namespace chiasm
