#include "models/packed_file.h"

#include <cstring>
#include <fstream>

#include <gtest/gtest.h>

#include "base/test_support.h"

namespace chiasm {
namespace {

std::vector<std::byte> some_bytes(std::size_t count, unsigned seed) {
  std::vector<std::byte> out(count);
  for (auto& byte : out) byte = static_cast<std::byte>((seed = seed * 1664525U + 1013904223U) >> 24);
  return out;
}

class PackedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    must(write_packed_file(path_, key_, matrices_, threads_));
    bytes_ = must(read_file(path_, 1 << 20));
  }

  TemporaryFolder folder_;
  ThreadPool threads_{2};
  const std::filesystem::path path_ = folder_.path() / "a.panels";
  const Digest key_ = digest_of({});
  const std::vector<std::byte> first_ = some_bytes(5000, 1), second_ = some_bytes(64, 2);
  const std::vector<NamedMatrix> matrices_{{"model.b", Precision::kInt8, 33, 100, first_},
                                           {"model.a", Precision::kInt8Fine, 7, 9, second_}};
  std::vector<std::byte> bytes_;
};

TEST_F(PackedFileTest, WhatWasWrittenIsReadWhereItLies) {
  EXPECT_EQ(bytes_.size(), packed_file_size(matrices_));
  const PackedFile file = must(PackedFile::open(path_, key_));
  must(file.verify(threads_));
  EXPECT_EQ(file.find("model.c"), nullptr);
  for (const NamedMatrix& matrix : matrices_) {
    const PackedEntry* entry = file.find(matrix.name);
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->precision, matrix.precision);
    EXPECT_EQ(entry->out_features, matrix.out_features);
    EXPECT_EQ(entry->in_features, matrix.in_features);
    ASSERT_EQ(entry->bytes.size(), matrix.bytes.size());
    EXPECT_EQ(std::memcmp(entry->bytes.data(), matrix.bytes.data(), matrix.bytes.size()), 0);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(entry->bytes.data()) % 4096, 0U);
  }
}

// Every bit that means something is held by one of the checks; the rest lies between matrices.
TEST_F(PackedFileTest, EveryFlippedBitIsFound) {
  for (std::size_t at = 0; at < bytes_.size(); ++at) {
    const bool head = at < 64 + 2 * 80, first = at >= 4096 && at < 4096 + first_.size();
    const std::size_t second = (4096 + first_.size() + 4095) / 4096 * 4096;
    if (!head && !first && at < second) continue;
    std::vector<std::byte> broken = bytes_;
    broken[at] ^= std::byte{1} << (at % 8);
    const auto file = PackedFile::parse(broken, key_);
    ASSERT_FALSE(file && file->verify(threads_)) << "at " << at;
    if (!file) {
      ASSERT_EQ(file.error().code, Code::kDataLoss);
    }
  }
}

TEST_F(PackedFileTest, WhatIsCutOffOrAnothersIsNotTaken) {
  for (std::size_t size = 0; size < bytes_.size(); size += 61)
    EXPECT_EQ(PackedFile::parse(std::span(bytes_).first(size), key_).error().code, Code::kDataLoss);
  std::vector<std::byte> longer = bytes_;
  longer.push_back({});
  EXPECT_FALSE(PackedFile::parse(longer, key_));
  const Digest other = digest_of(bytes_);
  EXPECT_EQ(PackedFile::parse(bytes_, other).error().code, Code::kFailedPrecondition);
  EXPECT_EQ(PackedFile::open(folder_.path() / "none", key_).error().code, Code::kNotFound);
  std::ofstream(folder_.path() / "text") << "no such file at all, but as long as a header is, and longer than that";
  EXPECT_EQ(PackedFile::open(folder_.path() / "text", key_).error().code, Code::kDataLoss);
}

}  // namespace
}  // namespace chiasm
