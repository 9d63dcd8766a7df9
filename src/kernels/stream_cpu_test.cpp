#include "kernels/stream_cpu.h"

#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tensor/dtype.h"

namespace chiasm {
namespace {

// Every length and every place in a vector; what stands around is left alone.
TEST(StreamCpu, CopiesAndRoundsAtAnyAddress) {
  std::mt19937 random(std::random_device{}());
  std::uniform_int_distribution<std::uint32_t> bits;
  constexpr std::size_t kMost = 300, kAround = 64;
  std::vector<float> values(kMost);
  for (float& value : values) {
    const std::uint32_t any = bits(random);
    std::memcpy(&value, &any, 4);
  }
  values[0] = std::numeric_limits<float>::quiet_NaN(), values[1] = -std::numeric_limits<float>::infinity();
  values[2] = std::numeric_limits<float>::max(), values[3] = -0.0F,
  values[4] = std::numeric_limits<float>::denorm_min();
  const auto* const bytes = reinterpret_cast<const std::byte*>(values.data());
  for (std::size_t count = 0; count < kMost; count += 1 + count / 16) {
    for (std::size_t place = 0; place < kAround; place += 2) {
      std::vector<std::byte> out(kMost * 4 + 2 * kAround, std::byte{0xA5}), expected = out;
      std::memcpy(expected.data() + place, bytes + 4, count);
      copy_past_caches(bytes + 4, count, out.data() + place);
      ASSERT_EQ(out, expected) << count << " bytes at " << place;
      for (std::size_t i = 0; i < count; ++i) {
        const std::uint16_t rounded = f32_to_bf16(values[i]);
        std::memcpy(expected.data() + place + 2 * i, &rounded, 2);
      }
      round_past_caches(values.data(), static_cast<std::int64_t>(count), out.data() + place);
      ASSERT_EQ(out, expected) << count << " values at " << place;
    }
  }
}

}  // namespace
}  // namespace chiasm
