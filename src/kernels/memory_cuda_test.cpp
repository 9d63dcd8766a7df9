// Bytes to the card and back, memory that is not there, and the names of devices.
#include "kernels/test_cuda.h"

namespace chiasm {
namespace {

class MemoryCudaTest : public CudaTest {};

TEST_F(MemoryCudaTest, UploadAndDownloadInEveryDtype) {
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const std::int64_t extra : {0, 3}) {
      const Matrix values = rounded(random(pick(1, 40), pick(1, 70)));
      const OnCard there = on_card(values, dtype, extra);
      expect_near(back(there.view), values, 0, 0);
      expect_untouched(there, extra);
    }
  // More than one piece of what travels at once.
  const Matrix large = rounded(random(3000, 1500));
  for (const DType dtype : {DType::kF32, DType::kBF16}) expect_near(back(on_card(large, dtype).view), large, 0, 0);
  const auto brought = cuda_->bring(large.view());
  ASSERT_TRUE(brought);
  expect_near(back(brought->view), large, 0, 0);
}

TEST_F(MemoryCudaTest, MemoryThatIsNotThereIsAnErrorAndWorkGoesOn) {
  const auto huge = cuda_->allocate(std::int64_t{1} << 20, std::int64_t{1} << 22);  // 16 TiB
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code, Code::kResourceExhausted);
  EXPECT_FALSE(cuda_->allocate(std::int64_t{1} << 40, std::int64_t{1} << 40));
  EXPECT_FALSE(cuda_->make_kv_pool({80, 8, 128, std::int64_t{1} << 40}));
  EXPECT_FALSE(cuda_->make_kv_pool({1, 1, 256, 4}));
  const std::vector<std::byte> bytes(64);
  const TensorView integers{DType::kI32, {4, 4}, bytes};
  EXPECT_FALSE(prepare(*cuda_, integers));
  const Matrix values = rounded(random(3, 3));
  expect_near(back(on_card(values, DType::kF32).view), values, 0, 0);
}

TEST(Devices, NamesAreChecked) {
  for (const char* good : {"auto", "cpu", "cuda", "cuda:0", "cuda:7"}) EXPECT_TRUE(check_device(good)) << good;
  for (const char* bad : {"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "CPU", "cuda:99999"})
    EXPECT_FALSE(check_device(bad)) << bad;
  ThreadPool threads(1);
  const auto cpu = make_ops("cpu", threads);
  ASSERT_TRUE(cpu);
  EXPECT_EQ((*cpu)->name(), "cpu");
  EXPECT_TRUE(make_ops("auto", threads));
  const auto absent = make_ops("cuda:1023", threads);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace chiasm
