// Two cards as a group: what they sum and gather, with and without NCCL's help, in recordings too. Skipped, with the
// reason, where there are no two.
#include <cstring>

#include "kernels/test_cuda.h"

namespace chiasm {
namespace {

class OpsGroupCudaTest : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    auto pair = make_ops("cuda:0,1", threads_);
    if (!pair) GTEST_SKIP() << pair.error().message;
    cuda_ = std::move(*pair);  // what the helpers use
  }

  // Divided by its inputs among the two.
  std::unique_ptr<const Weight> divided(const HostWeight& weight, std::int64_t inputs) {
    auto out = cuda_->prepare_split(weight.weights, weight.biases, {Split::Kind::kInputs, {even_shares(inputs, 2)}});
    EXPECT_TRUE(out) << out.error().message;
    return std::move(*out);
  }
};

// Both parts have the same x, the first `share` of each row; the halves of the weight differ.
TEST_F(OpsGroupCudaTest, SumsOfEverySize) {
  for (const auto& [rows, outputs] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {1, 8}, {1, 4}, {3, 7}, {1, 3584}, {64, 8192}, {700, 3584}, {2500, 3584}}) {
    const std::int64_t inputs = 64, share = 32;
    const HostWeight weight = random_weight(outputs, inputs, DType::kBF16, true);
    const Matrix x = rounded(random(rows, share)), residual = random(rows, outputs);
    Matrix twice(rows, inputs), want(rows, outputs);
    for (std::int64_t i = 0; i < rows; ++i)
      std::copy_n(x.row(i), share, twice.row(i)), std::copy_n(x.row(i), share, twice.row(i) + share);
    std::copy_n(residual.data(), residual.size(), want.data());
    ref_->matmul(twice.view(), **ref_->prepare(weight.weights, weight.biases), {.add_to_out = true}, want.view());
    const OnCard there = on_card(x, DType::kBF16);
    OnCard out = on_card(residual, DType::kF32);
    const auto split = divided(weight, inputs);
    for (int turn = 0; turn < 3; ++turn) {  // the halves of the inbox take turns
      cuda_->upload(values_of(residual), out.view);
      cuda_->matmul(there.view, *split, {.add_to_out = true}, out.view);
    }
    expect_near(back(out.view), want, 1e-5F, 1e-5F);
  }
}

TEST_F(OpsGroupCudaTest, JoinedOutputsOfEverySize) {
  for (const auto& [rows, outputs] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 64}, {5, 1088}, {64, 20000}, {3, 151}, {200, 152064}}) {
    const HostWeight weight = random_weight(outputs, 40, DType::kBF16, false);
    const Matrix x = rounded(random(rows, 40));
    Matrix want(rows, outputs);
    ref_->matmul(x.view(), **ref_->prepare(weight.weights, {}), {}, want.view());
    const auto joined = cuda_->prepare_split(weight.weights, {}, {Split::Kind::kJoined, {}});
    ASSERT_TRUE(joined) << joined.error().message;
    const OnCard there = on_card(x, DType::kBF16);
    OnCard out = poisoned(rows, outputs, DType::kF32);
    cuda_->matmul(there.view, **joined, {}, out.view);
    expect_near(back(out.view), want, 1e-5F, 1e-5F);
    std::vector<std::int32_t> best(static_cast<std::size_t>(rows)), expected(best.size());
    ASSERT_TRUE(cuda_->argmax(out.view, best));
    ASSERT_TRUE(ref_->argmax(back(out.view).view(), expected));
    EXPECT_EQ(best, expected);
  }
}

// A step of decoding in small: sums and a gather, recorded once, replayed many times, with others in between.
TEST_F(OpsGroupCudaTest, RecordingsHoldSums) {
  const std::int64_t width = 256, outputs = 1088;
  const HostWeight inner = random_weight(width, width, DType::kBF16, false),
                   head = random_weight(outputs, width, DType::kBF16, false);
  const auto split = divided(inner, width);
  const auto joined = *cuda_->prepare_split(head.weights, {}, {Split::Kind::kJoined, {}});
  const Matrix x = rounded(random(4, width / 2)), start = random(4, width), ones = [] {
    Matrix m(1, 256);
    std::fill_n(m.data(), m.size(), 1.0F);
    return m;
  }();
  const OnCard there = on_card(x, DType::kBF16), scale = on_card(ones, DType::kF32);
  OnCard sum = on_card(start, DType::kF32), normed = poisoned(4, width, DType::kBF16),
         logits = poisoned(4, outputs, DType::kF32);
  const auto body = [&] {
    for (int i = 0; i < 20; ++i) cuda_->matmul(there.view, *split, {.add_to_out = true}, sum.view);
    cuda_->rms_norm(sum.view, scale.buffer.f32(), 1e-6F, normed.view);
    cuda_->matmul(normed.view, *joined, {}, logits.view);
  };
  body();
  const Matrix want = back(logits.view);
  const auto recording = cuda_->record(body);
  ASSERT_TRUE(recording) << recording.error().message;
  for (int turn = 0; turn < 50; ++turn) {
    cuda_->upload(values_of(start), sum.view);
    if (turn % 7 == 3) cuda_->matmul(there.view, *split, {}, sum.view);
    cuda_->upload(values_of(start), sum.view);
    cuda_->replay(**recording);
    const Matrix got = back(logits.view);
    ASSERT_EQ(std::memcmp(got.data(), want.data(), static_cast<std::size_t>(got.size()) * sizeof(float)), 0) << turn;
  }
}

TEST_F(OpsGroupCudaTest, MemoryThatOneLacksIsAnErrorOfAll) {
  EXPECT_FALSE(cuda_->allocate(std::int64_t{1} << 20, std::int64_t{1} << 22));
  const auto free = cuda_->free_for_kv();
  ASSERT_TRUE(free);
  const KvShape block{1, 1, 128, 1};
  const std::uint64_t each = cuda_->kv_block_bytes(block);
  const auto pool = cuda_->make_kv_pool({1, 1, 128, static_cast<std::int64_t>(*free * 3 / each)});
  ASSERT_FALSE(pool);
  EXPECT_EQ(pool.error().code, Code::kResourceExhausted);
  const Matrix values = rounded(random(3, 3));
  expect_near(back(on_card(values, DType::kF32).view), values, 0, 0);
}

}  // namespace
}  // namespace chiasm
