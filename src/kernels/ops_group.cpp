#include "kernels/ops_group.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "kernels/split_tensors.h"

namespace chiasm {
namespace {

// What each member has of one thing of the group's, in their order.
template <class T>
using Each = std::vector<std::unique_ptr<T>>;

class GroupWeight final : public Weight {
 public:
  GroupWeight(Each<const Weight> parts, Split::Kind kind, std::vector<std::int64_t> begins)
      : Weight(begins.empty() ? parts.front()->out_features() : begins.back(), parts.front()->in_features()),
        parts_(std::move(parts)),
        kind_(kind),
        begins_(std::move(begins)) {}
  std::uint64_t bytes() const override {
    std::uint64_t sum = 0;
    for (const auto& part : parts_) sum += part->bytes();
    return sum;
  }
  bool in_place() const override {
    return std::any_of(parts_.begin(), parts_.end(), [](const auto& part) { return part->in_place(); });
  }
  const Weight& part(std::size_t i) const { return *parts_[i]; }
  Split::Kind kind() const { return kind_; }
  const std::vector<std::int64_t>& begins() const { return begins_; }  // of kJoined, else none

 private:
  Each<const Weight> parts_;
  Split::Kind kind_;
  std::vector<std::int64_t> begins_;
};

class GroupKvPool final : public KvPool {
 public:
  GroupKvPool(const KvShape& shape, Each<KvPool> parts) : KvPool(shape), parts_(std::move(parts)) {}
  std::uint64_t bytes() const override {
    std::uint64_t sum = 0;
    for (const auto& part : parts_) sum += part->bytes();
    return sum;
  }
  KvPool& part(std::size_t i) const { return *parts_[i]; }

 private:
  Each<KvPool> parts_;
};

class GroupStep final : public StepRows {
 public:
  explicit GroupStep(std::span<const SequenceRows> sequences) : StepRows(sequences) {}
  Each<const StepRows> parts;
};

class GroupSegments final : public Segments {
 public:
  explicit GroupSegments(std::span<const std::int64_t> cu_seqlens) : Segments(cu_seqlens) {}
  Each<const Segments> parts;
};

class GroupRecording final : public Recording {
 public:
  Each<const Recording> parts;
};

// Where the other members keep what the first has at an address.
class Mirrors {
 public:
  void add(const std::byte* first, std::vector<Buffer> buffers) {
    const std::unique_lock lock(mutex_);
    const bool is_new = by_address_.emplace(first, std::move(buffers)).second;
    CHECK(is_new);
  }
  void remove(const std::byte* first) {
    std::map<const std::byte*, std::vector<Buffer>>::node_type gone;  // given back when the lock is
    const std::unique_lock lock(mutex_);
    gone = by_address_.extract(first);
    CHECK(!gone.empty());
  }
  std::byte* at(const std::byte* first, std::size_t member) const {
    if (member == 0 || first == nullptr) return const_cast<std::byte*>(first);
    const std::shared_lock lock(mutex_);
    auto found = by_address_.upper_bound(first);
    CHECK(found != by_address_.begin());
    --found;
    const Buffer& own = found->second[0];
    const std::ptrdiff_t offset = first - found->first;
    CHECK(offset <= own.size() * static_cast<std::ptrdiff_t>(size_of(own.dtype())));
    return const_cast<std::byte*>(found->second[member].view().data) + offset;
  }

 private:
  mutable std::shared_mutex mutex_;
  std::map<const std::byte*, std::vector<Buffer>> by_address_;
};

class GroupOps final : public Ops {
 public:
  GroupOps(std::vector<std::unique_ptr<Ops>> members, std::unique_ptr<Collective> collective, ThreadPool& threads)
      : members_(std::move(members)), collective_(std::move(collective)), threads_(threads) {
    name_ = fmt::format("{} x {}", members_.size(), members_[0]->name());
  }

  std::string_view name() const override { return name_; }
  int parts() const override { return static_cast<int>(members_.size()); }
  DType activations() const override { return members_[0]->activations(); }
  std::int64_t filling_rows() const override { return members_[0]->filling_rows(); }

  // --- memory
  Result<Buffer> allocate(std::int64_t rows, std::int64_t cols, DType dtype) const override {
    std::vector<Buffer> buffers;
    for (const auto& member : members_) {
      ASSIGN_OR_RETURN(Buffer buffer, member->allocate(rows, cols, dtype));
      buffers.push_back(std::move(buffer));
    }
    std::byte* const first = buffers[0].view().data;
    if (first == nullptr) return std::move(buffers[0]);
    mirrors_.add(first, std::move(buffers));
    const BufferFree free{[](void* mirrors, std::byte* data) { static_cast<Mirrors*>(mirrors)->remove(data); },
                          &mirrors_};
    return Buffer(first, free, rows, cols, dtype);
  }

  void upload(std::span<const float> from, View to) const override {
    each([&](const Ops& ops, std::size_t i) { ops.upload(from, at(to, i)); });
  }

  Result<Operand> bring(ConstMatrixView host) const override {
    CHECK(host.stride == host.cols);
    Operand out;
    ASSIGN_OR_RETURN(out.copy, allocate(host.rows, host.cols, activations()));
    out.view = std::as_const(out.copy).view();
    upload({host.data, static_cast<std::size_t>(host.rows * host.cols)}, out.copy.view());
    return out;
  }

  Status download(ConstView from, std::span<float> to) const override {
    return after_all(members_[0]->download(from, to));
  }

  Result<std::unique_ptr<const Weight>> prepare(std::span<const TensorView> weights,
                                                std::span<const TensorView> biases) const override {
    return prepare_split(weights, biases, {});
  }

  Result<std::unique_ptr<const Weight>> prepare_split(std::span<const TensorView> weights,
                                                      std::span<const TensorView> biases,
                                                      const Split& split) const override {
    Each<const Weight> out;
    for (int i = 0; i < parts(); ++i) {
      ASSIGN_OR_RETURN(const TensorShare share, share_of(weights, biases, split, i, parts(), threads_));
      ASSIGN_OR_RETURN(auto part, members_[static_cast<std::size_t>(i)]->prepare(share.weights, share.biases));
      out.push_back(std::move(part));
    }
    std::vector<std::int64_t> begins;
    if (split.kind == Split::Kind::kJoined) begins = joined_begins(weights[0].shape[0], parts());
    return std::make_unique<const GroupWeight>(std::move(out), split.kind, std::move(begins));
  }

  Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape& shape) const override {
    Each<KvPool> out;
    for (const auto& member : members_) {
      ASSIGN_OR_RETURN(auto part, member->make_kv_pool(shape));
      out.push_back(std::move(part));
    }
    return std::make_unique<GroupKvPool>(shape, std::move(out));
  }

  std::uint64_t kv_block_bytes(const KvShape& shape) const override {
    return members_.size() * members_[0]->kv_block_bytes(shape);
  }

  // A pool takes the same of each.
  std::optional<std::uint64_t> free_for_kv() const override {
    std::optional<std::uint64_t> least;
    for (const auto& member : members_) {
      const auto free = member->free_for_kv();
      if (!free) return std::nullopt;
      least = std::min(least.value_or(*free), *free);
    }
    return members_.size() * *least;
  }

  Result<std::unique_ptr<const StepRows>> make_step(std::span<const SequenceRows> sequences, std::int64_t heads,
                                                    const KvShape& shape) const override {
    auto out = std::make_unique<GroupStep>(sequences);
    for (const auto& member : members_) {
      ASSIGN_OR_RETURN(auto part, member->make_step(sequences, heads, shape));
      out->parts.push_back(std::move(part));
    }
    return out;
  }

  // Nothing is left of a step that one of them could not renew: recordings with it hold for nobody.
  Result<bool> renew_step(std::span<const SequenceRows> sequences, const StepTokens& tokens, std::int64_t heads,
                          const KvShape& shape, std::unique_ptr<const StepRows>& step) const override {
    auto next = std::make_unique<GroupStep>(sequences);
    next->parts.resize(members_.size());
    if (step != nullptr) next->parts = std::move(const_cast<GroupStep&>(static_cast<const GroupStep&>(*step)).parts);
    step.reset();
    bool hold = true;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      ASSIGN_OR_RETURN(const bool holds, members_[i]->renew_step(sequences, tokens, heads, shape, next->parts[i]));
      hold &= holds;
    }
    step = std::move(next);
    return hold;
  }

  Result<std::unique_ptr<const Segments>> make_segments(std::span<const std::int64_t> cu_seqlens) const override {
    auto out = std::make_unique<GroupSegments>(cu_seqlens);
    for (const auto& member : members_) {
      ASSIGN_OR_RETURN(auto part, member->make_segments(cu_seqlens));
      out->parts.push_back(std::move(part));
    }
    return out;
  }

  // --- recordings
  bool records() const override {
    return std::all_of(members_.begin(), members_.end(), [](const auto& member) { return member->records(); });
  }

  Result<std::unique_ptr<const Recording>> record(const std::function<void()>& body) const override {
    auto out = std::make_unique<GroupRecording>();
    out->parts.resize(members_.size());
    RETURN_IF_ERROR(record_from(0, body, out->parts));
    return out;
  }

  void replay(const Recording& recording) const override {
    const auto& parts = static_cast<const GroupRecording&>(recording).parts;
    each([&](const Ops& ops, std::size_t i) { ops.replay(*parts[i]); });
  }

  void begin_step(const StepRows& step, const Weight& table, View x, View cos, View sin) const override {
    const auto& parts = static_cast<const GroupStep&>(step).parts;
    const auto& w = static_cast<const GroupWeight&>(table);
    CHECK(w.kind() == Split::Kind::kNone);
    each(
        [&](const Ops& ops, std::size_t i) { ops.begin_step(*parts[i], w.part(i), at(x, i), at(cos, i), at(sin, i)); });
  }
  void end_step(ConstView logits, const StepRows& step) const override {
    members_[0]->end_step(logits, *static_cast<const GroupStep&>(step).parts[0]);
  }
  Status likeliest(const StepRows& step, std::span<std::int32_t> out) const override {
    return after_all(members_[0]->likeliest(*static_cast<const GroupStep&>(step).parts[0], out));
  }

  // --- products
  void matmul(ConstView x, const Weight& weight, const Epilogue& epilogue, View out) const override {
    product(weight, epilogue, out, [&](const Ops& ops, std::size_t i, const Weight& own, const Epilogue& how, View to) {
      ops.matmul(at(x, i), own, how, to);
    });
  }
  void norm_matmul(ConstView x, const float* norm_weight, float eps, View normed, const Weight& weight,
                   const Epilogue& epilogue, View out) const override {
    product(weight, epilogue, out, [&](const Ops& ops, std::size_t i, const Weight& own, const Epilogue& how, View to) {
      ops.norm_matmul(at(x, i), at(norm_weight, i), eps, at(normed, i), own, how, to);
    });
  }

  void rope_matmul(ConstView x, const Weight& weight, const Epilogue& epilogue, std::int64_t heads,
                   const RopeTable& table, View out) const override {
    const auto& w = static_cast<const GroupWeight&>(weight);
    CHECK(w.kind() == Split::Kind::kNone);
    each([&](const Ops& ops, std::size_t i) {
      ops.rope_matmul(at(x, i), w.part(i), epilogue, heads, at(table, i), at(out, i));
    });
  }

  void embed(std::span<const std::int32_t> ids, const Weight& table, View out) const override {
    const auto& w = static_cast<const GroupWeight&>(table);
    CHECK(w.kind() == Split::Kind::kNone);
    each([&](const Ops& ops, std::size_t i) { ops.embed(ids, w.part(i), at(out, i)); });
  }

  // --- rows
  void layer_norm(ConstView x, const float* weight, const float* bias, float eps, View out) const override {
    each([&](const Ops& ops, std::size_t i) { ops.layer_norm(at(x, i), at(weight, i), at(bias, i), eps, at(out, i)); });
  }
  void rms_norm(ConstView x, const float* weight, float eps, View out) const override {
    each([&](const Ops& ops, std::size_t i) { ops.rms_norm(at(x, i), at(weight, i), eps, at(out, i)); });
  }
  void silu_mul(ConstView gate, ConstView up, View out) const override {
    each([&](const Ops& ops, std::size_t i) { ops.silu_mul(at(gate, i), at(up, i), at(out, i)); });
  }
  void rope_table(const RopeAngles& angles, View cos, View sin) const override {
    each([&](const Ops& ops, std::size_t i) { ops.rope_table(angles, at(cos, i), at(sin, i)); });
  }
  void rope(View x, std::int64_t heads, const RopeTable& table) const override {
    each([&](const Ops& ops, std::size_t i) { ops.rope(at(x, i), heads, at(table, i)); });
  }
  void gather_rows(ConstView from, std::span<const std::int32_t> rows, View to) const override {
    each([&](const Ops& ops, std::size_t i) { ops.gather_rows(at(from, i), rows, at(to, i)); });
  }
  Status argmax(ConstView x, std::span<std::int32_t> out) const override {
    return after_all(members_[0]->argmax(x, out));
  }

  // --- attention
  void attention(ConstView q, ConstView k, ConstView v, std::int64_t heads, float scale, const Segments& segments,
                 View out) const override {
    const auto& parts = static_cast<const GroupSegments&>(segments).parts;
    each([&](const Ops& ops, std::size_t i) {
      ops.attention(at(q, i), at(k, i), at(v, i), heads, scale, *parts[i], at(out, i));
    });
  }
  void kv_write(ConstView k, ConstView v, const StepRows& step, std::int64_t layer, KvPool& pool) const override {
    const auto& parts = static_cast<const GroupStep&>(step).parts;
    each([&](const Ops& ops, std::size_t i) {
      ops.kv_write(at(k, i), at(v, i), *parts[i], layer, static_cast<GroupKvPool&>(pool).part(i));
    });
  }
  void paged_attention(ConstView q, std::int64_t heads, float scale, const StepRows& step, std::int64_t layer,
                       const KvPool& pool, View out) const override {
    const auto& parts = static_cast<const GroupStep&>(step).parts;
    each([&](const Ops& ops, std::size_t i) {
      ops.paged_attention(at(q, i), heads, scale, *parts[i], layer, static_cast<const GroupKvPool&>(pool).part(i),
                          at(out, i));
    });
  }
  void step_attention(View qkv, std::int64_t heads, const RopeTable& table, float scale, const StepRows& step,
                      std::int64_t layer, KvPool& pool, View out) const override {
    const auto& parts = static_cast<const GroupStep&>(step).parts;
    each([&](const Ops& ops, std::size_t i) {
      ops.step_attention(at(qkv, i), heads, at(table, i), scale, *parts[i], layer,
                         static_cast<GroupKvPool&>(pool).part(i), at(out, i));
    });
  }
  void copy_kv_block(std::int32_t from, std::int32_t to, KvPool& pool) const override {
    each([&](const Ops& ops, std::size_t i) { ops.copy_kv_block(from, to, static_cast<GroupKvPool&>(pool).part(i)); });
  }

 private:
  template <class Do>
  void each(const Do& one) const {
    for (std::size_t i = 0; i < members_.size(); ++i) one(*members_[i], i);
  }

  View at(View v, std::size_t i) const { return {mirrors_.at(v.data, i), v.rows, v.cols, v.stride, v.dtype}; }
  ConstView at(ConstView v, std::size_t i) const { return {mirrors_.at(v.data, i), v.rows, v.cols, v.stride, v.dtype}; }
  const float* at(const float* values, std::size_t i) const {
    return reinterpret_cast<const float*>(mirrors_.at(reinterpret_cast<const std::byte*>(values), i));
  }

  RopeTable at(const RopeTable& table, std::size_t i) const { return {at(table.cos, i), at(table.sin, i)}; }

  // one(member, its number, weight, epilogue, out) has a member multiply what is its own.
  template <class One>
  void product(const Weight& weight, const Epilogue& epilogue, View out, const One& one) const {
    const auto& w = static_cast<const GroupWeight&>(weight);
    std::vector<View> outs;
    for (std::size_t i = 0; i < members_.size(); ++i) outs.push_back(at(out, i));
    switch (w.kind()) {
      case Split::Kind::kNone:
      case Split::Kind::kOutputs:
        each([&](const Ops& ops, std::size_t i) { one(ops, i, w.part(i), epilogue, outs[i]); });
        return;
      case Split::Kind::kInputs:
        CHECK(epilogue.activation == Activation::kNone && !epilogue.gated && out.dtype == DType::kF32);
        // What the sum is added to comes in once.
        each([&](const Ops& ops, std::size_t i) {
          Epilogue own = epilogue;
          own.add_to_out &= i == 0;
          one(ops, i, w.part(i), own, outs[i]);
        });
        if (out.rows > 0) collective_->sum(outs);
        return;
      case Split::Kind::kJoined:
        CHECK(out.cols == w.out_features() && !epilogue.gated && out.dtype == DType::kF32);
        each([&](const Ops& ops, std::size_t i) {
          const std::int64_t begin = w.begins()[i], count = w.begins()[i + 1] - begin;
          one(ops, i, w.part(i), epilogue, outs[i].col_range(begin, count));
        });
        if (out.rows > 0) collective_->gather(outs, w.begins());
        return;
    }
  }

  // What the first has said, or what went wrong elsewhere; waits for all.
  Status after_all(Status first) const {
    for (std::size_t i = 1; i < members_.size(); ++i) {
      Status other = members_[i]->download({}, {});
      if (first && !other) first = std::move(other);
    }
    return first;
  }

  // Every member listens while the body asks all of them.
  Status record_from(std::size_t i, const std::function<void()>& body, Each<const Recording>& parts) const {
    if (i == members_.size()) {
      body();
      return {};
    }
    Status inner;
    auto own = members_[i]->record([&] { inner = record_from(i + 1, body, parts); });
    RETURN_IF_ERROR(inner);
    ASSIGN_OR_RETURN(parts[i], std::move(own));
    return {};
  }

  std::vector<std::unique_ptr<Ops>> members_;
  std::unique_ptr<Collective> collective_;  // destroyed before them
  ThreadPool& threads_;
  std::string name_;
  mutable Mirrors mirrors_;
};

}  // namespace

std::unique_ptr<Ops> make_group_ops(std::vector<std::unique_ptr<Ops>> members, std::unique_ptr<Collective> collective,
                                    ThreadPool& threads) {
  CHECK(members.size() >= 2);
  return std::make_unique<GroupOps>(std::move(members), std::move(collective), threads);
}

}  // namespace chiasm
