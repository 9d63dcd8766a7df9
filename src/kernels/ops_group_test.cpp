// A group of host Ops against the plain reference on its own: every way to divide a weight, fresh random inputs, odd
// sizes, views inside wider ones, poisoned outputs.
#include "kernels/ops_group.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/devices.h"
#include "kernels/split_tensors.h"
#include "kernels/test_idle_ops.h"

namespace chiasm {
namespace {

using testing::HasSubstr;

class OpsGroupTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    const auto seed = std::random_device{}();
    random_.seed(seed);
    RecordProperty("seed", static_cast<int>(seed));
    group_ = group_of(GetParam());
  }
  std::unique_ptr<Ops> group_of(int count) {
    std::vector<std::unique_ptr<Ops>> members;
    for (int i = 0; i < count; ++i) members.push_back(make_cpu_ops(threads_));
    return make_group_ops(std::move(members), make_host_collective(), threads_);
  }

  std::int64_t pick(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  Matrix random(std::int64_t rows, std::int64_t cols) {
    Matrix out(rows, cols);
    std::uniform_real_distribution<float> value(-1, 1);
    std::generate_n(out.data(), out.size(), [&] { return value(random_); });
    return out;
  }
  static TensorView tensor_of(const Matrix& m) {
    return {DType::kF32, {m.rows(), m.cols()}, std::as_bytes(std::span(m.data(), static_cast<std::size_t>(m.size())))};
  }
  static TensorView vector_of(const Matrix& m) {
    return {DType::kF32, {m.cols()}, std::as_bytes(std::span(m.data(), static_cast<std::size_t>(m.size())))};
  }
  // In the group's memory, `extra` columns of NaN behind each row.
  struct There {
    Buffer buffer;
    View view;
  };
  There there(const Matrix& values, std::int64_t extra) {
    There out = poisoned(values.rows(), values.cols(), extra);
    group_->upload({values.data(), static_cast<std::size_t>(values.size())}, out.view);
    return out;
  }
  There poisoned(std::int64_t rows, std::int64_t cols, std::int64_t extra) {
    There out{*group_->allocate(rows, cols + extra), {}};
    const std::vector<float> nan(static_cast<std::size_t>(out.buffer.size()), std::numeric_limits<float>::quiet_NaN());
    group_->upload(nan, out.buffer.view());
    out.view = out.buffer.view().col_range(0, cols);
    return out;
  }
  Matrix back(ConstView view) {
    Matrix out(view.rows, view.cols);
    EXPECT_TRUE(group_->download(view, {out.data(), static_cast<std::size_t>(out.size())}));
    return out;
  }
  // Sums of `depth` products of values up to 1, in another order.
  static void expect_near(const Matrix& got, const Matrix& want, std::int64_t depth) {
    ASSERT_EQ(got.rows(), want.rows());
    ASSERT_EQ(got.cols(), want.cols());
    const float limit =
        static_cast<float>(depth + 2) * std::sqrt(static_cast<float>(depth)) * std::numeric_limits<float>::epsilon();
    for (std::int64_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got.data()[i], want.data()[i], limit) << i;
  }

  ThreadPool threads_{2};
  std::unique_ptr<Ops> group_, ref_ = make_ref_ops();
  std::mt19937_64 random_;
};

// out = b(gelu(a(x))): a is divided by its outputs, so that b's inputs are, and the sum is whole again.
TEST_P(OpsGroupTest, OutputsThenInputsAreTheWholeProduct) {
  for (int turn = 0; turn < 8; ++turn) {
    const std::int64_t rows = pick(1, 9), width = pick(1, 50), hidden = pick(GetParam(), 70), out_width = pick(1, 40);
    const Matrix x = random(rows, width), a = random(hidden, width), b = random(out_width, hidden);
    const Matrix a_bias = random(1, hidden), b_bias = random(1, out_width), residual = random(rows, out_width);
    const TensorView at = tensor_of(a), ab = vector_of(a_bias), bt = tensor_of(b), bb = vector_of(b_bias);
    const bool add = turn % 2 == 0;
    const auto wa = *ref_->prepare({&at, 1}, {&ab, 1}), wb = *ref_->prepare({&bt, 1}, {&bb, 1});
    Matrix between(rows, hidden), want(rows, out_width);
    std::copy_n(residual.data(), residual.size(), want.data());
    ref_->matmul(x.view(), *wa, {.activation = Activation::kGelu}, between.view());
    ref_->matmul(between.view(), *wb, {.add_to_out = add}, want.view());

    const Shares shares = even_shares(hidden, GetParam());
    const auto ga = *group_->prepare_split({&at, 1}, {&ab, 1}, {Split::Kind::kOutputs, {shares}});
    const auto gb = *group_->prepare_split({&bt, 1}, {&bb, 1}, {Split::Kind::kInputs, {shares}});
    EXPECT_EQ(ga->out_features(), shares.width);
    const There from = there(x, pick(0, 3)), middle = poisoned(rows, shares.width, pick(0, 3));
    There to = there(residual, 0);
    group_->matmul(from.view, *ga, {.activation = Activation::kGelu}, middle.view);
    group_->matmul(middle.view, *gb, {.add_to_out = add}, to.view);
    expect_near(back(to.view), want, width * hidden);
  }
}

// The MLP of a layer: a norm in front, gate and up divided each for itself, the gate's product within a part.
TEST_P(OpsGroupTest, AGateIsDividedBesideWhatItGates) {
  const std::int64_t rows = pick(1, 9), width = pick(2, 40), hidden = pick(GetParam(), 60);
  const Matrix x = random(rows, width), norm = random(1, width), gate = random(hidden, width),
               up = random(hidden, width), down = random(width, hidden);
  const std::vector<TensorView> both{tensor_of(gate), tensor_of(up)};
  const TensorView back_again = tensor_of(down);
  Matrix normed(rows, width), between(rows, 2 * hidden), want(rows, width);
  std::copy_n(x.data(), x.size(), want.data());
  ref_->norm_matmul(x.view(), norm.data(), 1e-6F, normed.view(), **ref_->prepare(both, {}), {.gated = true},
                    between.view());
  ref_->matmul(between.view().col_range(0, hidden), **ref_->prepare({&back_again, 1}, {}), {.add_to_out = true},
               want.view());

  const Shares shares = even_shares(hidden, GetParam());
  const auto wide = *group_->prepare_split(both, {}, {Split::Kind::kOutputs, {shares, shares}});
  const auto narrow = *group_->prepare_split({&back_again, 1}, {}, {Split::Kind::kInputs, {shares}});
  const There scale = there(norm, 0), room = poisoned(rows, width, 0), middle = poisoned(rows, 2 * shares.width, 0);
  const There to = there(x, 0);
  group_->norm_matmul(to.view, scale.buffer.f32(), 1e-6F, room.view, *wide, {.gated = true}, middle.view);
  group_->matmul(middle.view.col_range(0, shares.width), *narrow, {.add_to_out = true}, to.view);
  expect_near(back(to.view), want, width * hidden);
}

TEST_P(OpsGroupTest, JoinedOutputsAreWholeForTheFirst) {
  const std::int64_t rows = pick(1, 5), width = pick(1, 30), outputs = 32 * GetParam() + pick(0, 40);
  const Matrix x = random(rows, width), w = random(outputs, width), bias = random(1, outputs);
  const TensorView tensor = tensor_of(w), bias_tensor = vector_of(bias);
  Matrix want(rows, outputs);
  ref_->matmul(x.view(), **ref_->prepare({&tensor, 1}, {&bias_tensor, 1}), {}, want.view());
  const auto weight = *group_->prepare_split({&tensor, 1}, {&bias_tensor, 1}, {Split::Kind::kJoined, {}});
  EXPECT_EQ(weight->out_features(), outputs);
  const There from = there(x, 1), to = poisoned(rows, outputs, 0);
  group_->matmul(from.view, *weight, {}, to.view);
  expect_near(back(to.view), want, width);
  std::vector<std::int32_t> best(static_cast<std::size_t>(rows)), expected(best.size());
  ASSERT_TRUE(group_->argmax(to.view, best));
  ASSERT_TRUE(ref_->argmax(back(to.view).view(), expected));
  EXPECT_EQ(best, expected);
}

// Two tensors under each other, divided each for itself; what both parts need both have, what none has is zero.
TEST_P(OpsGroupTest, SharesMayOverlapAndEndInZeros) {
  const std::int64_t width = pick(1, 20);
  const Matrix x = random(3, width), a = random(5, width), b = random(2, width);
  const std::vector<TensorView> tensors{tensor_of(a), tensor_of(b)};
  Shares of_a{4, {{0, 4}}}, of_b{2, {{0, 2}}};
  for (int i = 1; i < GetParam(); ++i) of_a.of_part.push_back({4, 1}), of_b.of_part.push_back({0, 2});
  const auto weight = *group_->prepare_split(tensors, {}, {Split::Kind::kOutputs, {of_a, of_b}});
  const There from = there(x, 0), parts = poisoned(3, 6, 0);
  group_->matmul(from.view, *weight, {}, parts.view);
  // The sum over all parts shows what the others hold.
  Matrix ones(1, 6 * 6);
  for (std::int64_t i = 0; i < 36; ++i) ones.data()[i] = i % 7 == 0 ? 1 : 0;
  const TensorView one{DType::kF32, {6, 6}, std::as_bytes(std::span(ones.data(), 36))};
  Shares all{6, {}};
  for (int i = 0; i < GetParam(); ++i) all.of_part.push_back({0, 6});
  const auto identity = *group_->prepare_split({&one, 1}, {}, {Split::Kind::kInputs, {all}});
  const There to = poisoned(3, 6, 0);
  group_->matmul(parts.view, *identity, {}, to.view);
  const Matrix got = back(to.view);
  const float others = static_cast<float>(GetParam() - 1);
  Matrix a_all(3, 5), b_all(3, 2), want(3, 6);
  ref_->matmul(x.view(), **ref_->prepare({tensors.data(), 1}, {}), {}, a_all.view());
  ref_->matmul(x.view(), **ref_->prepare({tensors.data() + 1, 1}, {}), {}, b_all.view());
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t j = 0; j < 4; ++j) want.row(i)[j] = a_all.row(i)[j] + (j == 0 ? others * a_all.row(i)[4] : 0);
    for (std::int64_t j = 0; j < 2; ++j) want.row(i)[4 + j] = (1 + others) * b_all.row(i)[j];
  }
  expect_near(got, want, width * 8);
}

// Bits of a row do not depend on the rows beside it, whatever is summed over parts.
TEST_P(OpsGroupTest, ARowsBitsAreItsOwn) {
  const std::int64_t width = pick(8, 64), outputs = pick(1, 40);
  const Matrix x = random(7, width), w = random(outputs, width);
  const TensorView tensor = tensor_of(w);
  const Shares shares = even_shares(width, GetParam());
  const auto weight = *group_->prepare_split({&tensor, 1}, {}, {Split::Kind::kInputs, {shares}});
  Matrix padded(7, shares.width);
  std::fill_n(padded.data(), padded.size(), 1.0F);
  for (std::int64_t i = 0; i < 7; ++i) std::copy_n(x.row(i), std::min(width, shares.width), padded.row(i));
  const There from = there(padded, 0), all = poisoned(7, outputs, 0), one = poisoned(1, outputs, 0);
  group_->matmul(from.view, *weight, {}, all.view);
  group_->matmul(from.view.row_range(4, 1), *weight, {}, one.view);
  const Matrix together = back(all.view), alone = back(one.view);
  EXPECT_EQ(std::memcmp(together.row(4), alone.data(), static_cast<std::size_t>(outputs) * sizeof(float)), 0);
}

TEST_P(OpsGroupTest, RowsAndTablesAreDoneEverywhere) {
  const Matrix x = random(4, 12), weight = random(1, 12), bias = random(1, 12), table = random(9, 12);
  const There from = there(x, 2), scale = there(weight, 0), shift = there(bias, 0), to = poisoned(4, 12, 2);
  Matrix want(4, 12);
  group_->layer_norm(from.view, scale.buffer.f32(), shift.buffer.f32(), 1e-5F, to.view);
  ref_->layer_norm(x.view(), weight.data(), bias.data(), 1e-5F, want.view());
  expect_near(back(to.view), want, 64);
  group_->silu_mul(to.view.row_range(1, 2), from.view.row_range(1, 2), to.view.row_range(1, 2));
  ref_->silu_mul(want.view().row_range(1, 2), x.view().row_range(1, 2), want.view().row_range(1, 2));
  expect_near(back(to.view), want, 64);
  const TensorView rows = tensor_of(table);
  const std::vector<std::int32_t> ids{8, 0, 3, 3};
  group_->embed(ids, **group_->prepare({&rows, 1}, {}), to.view);
  ref_->embed(ids, **ref_->prepare({&rows, 1}, {}), want.view());
  expect_near(back(to.view), want, 0);
  const auto brought = group_->bring(x.view());
  ASSERT_TRUE(brought);
  expect_near(back(brought->view), x, 0);
  EXPECT_FALSE(group_->records());
}

TEST_P(OpsGroupTest, PoolsAreCountedInAll) {
  const KvShape shape{2, 1, 8, 5};
  const auto alone = make_cpu_ops(threads_);
  const auto pool = *group_->make_kv_pool(shape);
  EXPECT_EQ(pool->bytes(), static_cast<std::uint64_t>(GetParam()) * (*alone->make_kv_pool(shape))->bytes());
  EXPECT_EQ(group_->kv_block_bytes(shape), static_cast<std::uint64_t>(GetParam()) * alone->kv_block_bytes(shape));
  EXPECT_EQ(group_->free_for_kv(), std::nullopt);
}

TEST_P(OpsGroupTest, WhatCannotBeDividedIsAnError) {
  const Matrix w = random(4, 6);
  const TensorView tensor = tensor_of(w);
  Shares beyond{4, {}};
  for (int i = 0; i < GetParam(); ++i) beyond.of_part.push_back({3, 4});
  for (const Split::Kind kind : {Split::Kind::kOutputs, Split::Kind::kInputs})
    EXPECT_FALSE(group_->prepare_split({&tensor, 1}, {}, {kind, {beyond}}));
  EXPECT_FALSE(group_->prepare_split({&tensor, 1}, {}, {Split::Kind::kJoined, {}}));  // parts begin at multiples of 32
  const TensorView scalar{DType::kF32, {}, tensor.bytes.first(4)}, integers{DType::kI32, {4, 6}, tensor.bytes};
  EXPECT_FALSE(group_->prepare({&scalar, 1}, {}));
  EXPECT_FALSE(group_->prepare({&integers, 1}, {}));
  const auto rounded = group_->quantise({&tensor, 1}, {}, Precision::kInt8);
  ASSERT_FALSE(rounded);
  EXPECT_THAT(rounded.error().message, HasSubstr(std::to_string(GetParam()) + " x cpu"));
  const auto fp8 = group_->quantise({&tensor, 1}, {}, Precision::kFp8);
  ASSERT_FALSE(fp8);
  EXPECT_THAT(fp8.error().message, HasSubstr("exact on several cards"));
  EXPECT_FALSE(group_->allocate(std::int64_t{1} << 40, std::int64_t{1} << 40));
}

INSTANTIATE_TEST_SUITE_P(Members, OpsGroupTest, testing::Values(2, 3, 5));

// Steps that are renewed in place, unless memory is short.
class RenewingOps final : public IdleOps {
 public:
  explicit RenewingOps(const std::atomic<bool>& short_of_memory) : short_of_memory_(short_of_memory) {}
  std::string_view name() const override { return "renewing"; }
  Result<Buffer> allocate(std::int64_t, std::int64_t, DType) const override { return Buffer(); }
  Result<std::unique_ptr<const Weight>> prepare(std::span<const TensorView>,
                                                std::span<const TensorView>) const override {
    return fail(Code::kUnimplemented, "no weights");
  }
  Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape&) const override {
    return fail(Code::kUnimplemented, "no pools");
  }
  Result<bool> renew_step(std::span<const SequenceRows> sequences, const StepTokens&, std::int64_t, const KvShape&,
                          std::unique_ptr<const StepRows>& step) const override {
    if (short_of_memory_) return fail(Code::kResourceExhausted, "no memory");
    if (step != nullptr) return true;
    step = std::make_unique<const StepRows>(sequences);
    return false;
  }

 private:
  const std::atomic<bool>& short_of_memory_;
};

// The first member's step may be another by the time the second has no memory: what was recorded holds for neither.
TEST(OpsGroup, AStepThatOneCouldNotRenewIsRecordedAnew) {
  ThreadPool threads(1);
  const std::atomic<bool> enough = false;
  std::atomic<bool> short_of_memory = false;
  std::vector<std::unique_ptr<Ops>> members;
  members.push_back(std::make_unique<RenewingOps>(enough));
  members.push_back(std::make_unique<RenewingOps>(short_of_memory));
  const auto group = make_group_ops(std::move(members), make_host_collective(), threads);
  std::unique_ptr<const StepRows> step;
  EXPECT_EQ(group->renew_step({}, {}, 1, {}, step).value(), false);
  EXPECT_EQ(group->renew_step({}, {}, 1, {}, step).value(), true);
  short_of_memory = true;
  EXPECT_FALSE(group->renew_step({}, {}, 1, {}, step));
  short_of_memory = false;
  EXPECT_EQ(group->renew_step({}, {}, 1, {}, step).value(), false);
  EXPECT_EQ(group->renew_step({}, {}, 1, {}, step).value(), true);
}

TEST(Shares, AreEvenOrEndInLess) {
  const Shares whole = even_shares(7, 1), two = even_shares(64, 2), three = even_shares(100, 3),
               many = even_shares(9, 4);
  EXPECT_EQ(whole.width, 7);
  EXPECT_EQ(two.width, 32);
  EXPECT_EQ(two.of_part[1].begin, 32);
  EXPECT_EQ(three.width, 40);
  EXPECT_EQ(three.of_part[2].count, 20);
  EXPECT_EQ(many.width, 8);
  EXPECT_EQ(many.of_part[1].count, 1);
  EXPECT_EQ(many.of_part[3].count, 0);
  EXPECT_THAT(joined_begins(100, 3), testing::ElementsAre(0, 32, 64, 100));
}

TEST(Devices, SeveralAreAGroup) {
  ThreadPool threads(1);
  for (const char* good : {"cuda:0,1", "cuda,1", "cuda:3,cuda:1,2", "cpu,cpu"}) {
    EXPECT_TRUE(check_device(good)) << good;
    EXPECT_FALSE(check_one_device(good)) << good;
  }
  for (const char* bad : {"cuda:0,", ",cuda:0", "cuda:0,0", "cuda,0", "cuda:0,cpu", "cpu,cuda:0", "cpu,1", "auto,auto",
                          "cuda:0,auto", "0,1", "cpu,"})
    EXPECT_FALSE(check_device(bad)) << bad;
  EXPECT_EQ(first_device("cuda:2,0"), "cuda:2");
  EXPECT_EQ(first_device("auto"), "auto");
  std::string crowd = "cpu";
  for (int i = 1; i < 65; ++i) crowd += ",cpu";
  EXPECT_FALSE(check_device(crowd));
  const auto group = make_ops("cpu,cpu,cpu", threads);
  ASSERT_TRUE(group);
  EXPECT_EQ((*group)->parts(), 3);
  EXPECT_EQ((*group)->name(), "3 x cpu");
}

}  // namespace
}  // namespace chiasm
