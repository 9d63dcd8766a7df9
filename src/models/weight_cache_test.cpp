#include "models/weight_cache.h"

#include <chrono>
#include <fstream>

#include <gtest/gtest.h>

#include "base/test_support.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

class WeightCacheTest : public testing::Test {
 protected:
  WeightCache cache(std::uint64_t budget = 1 << 20, std::uint64_t reserve = 0) {
    return {{folder_.path() / "weights", budget, reserve, [this](std::string_view text) { said_ += text; }}, threads_};
  }
  WeightCache::Key key(const WeightCache& cache, Role side = Role::kLanguage, Precision precision = Precision::kInt8,
                       std::string_view layout = "layout/1") const {
    return must(cache.key_of(checkpoint_, side, precision, layout));
  }
  std::size_t files() const {
    const auto all = fs::directory_iterator(folder_.path() / "weights");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }

  TemporaryFolder folder_;
  ThreadPool threads_{2};
  const Checkpoint checkpoint_ = must(Checkpoint::open(toytown_dir(), Role::kWhole));
  const std::vector<std::byte> bytes_ = std::vector<std::byte>(9000, std::byte{7});
  const std::vector<NamedMatrix> matrices_{{"a", Precision::kInt8, 8, 8, bytes_}};
  std::string said_;
};

TEST_F(WeightCacheTest, KeepsWhatItIsGiven) {
  const WeightCache weights = cache();
  const auto own = key(weights);
  EXPECT_FALSE(weights.find(own));
  weights.keep(own, matrices_);
  const auto file = weights.find(own);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->entries().size(), 1U);
  for (const auto& other : {key(weights, Role::kVision), key(weights, Role::kLanguage, Precision::kInt4)})
    EXPECT_FALSE(weights.find(other));
  EXPECT_EQ(said_, "");
}

TEST_F(WeightCacheTest, WhatIsDamagedIsSaidRemovedAndMadeAnew) {
  const WeightCache weights = cache();
  const auto own = key(weights);
  weights.keep(own, matrices_);
  std::fstream(own.file, std::ios::in | std::ios::out | std::ios::binary).seekp(4096 + 100).put('x');
  EXPECT_FALSE(weights.find(own));
  EXPECT_NE(said_.find("checksum"), std::string::npos) << said_;
  EXPECT_FALSE(fs::exists(own.file));
  weights.keep(own, matrices_);
  EXPECT_TRUE(weights.find(own));
}

TEST_F(WeightCacheTest, AnotherLayoutTakesTheOldOnesPlace) {
  const WeightCache weights = cache();
  weights.keep(key(weights), matrices_);
  weights.keep(key(weights, Role::kVision), matrices_);
  const auto next = key(weights, Role::kLanguage, Precision::kInt8, "layout/2");
  EXPECT_FALSE(weights.find(next));
  weights.keep(next, matrices_);
  EXPECT_TRUE(weights.find(next));
  EXPECT_FALSE(weights.find(key(weights)));
  EXPECT_TRUE(weights.find(key(weights, Role::kVision)));
}

TEST_F(WeightCacheTest, TheLeastRecentlyUsedGoWhereAllWouldBeTooMuch) {
  const WeightCache weights = cache(2 * packed_file_size(matrices_));
  const auto vision = key(weights, Role::kVision), language = key(weights);
  weights.keep(vision, matrices_);
  weights.keep(language, matrices_);
  fs::last_write_time(language.file, fs::file_time_type::clock::now() - std::chrono::hours(2));
  fs::last_write_time(vision.file, fs::file_time_type::clock::now() - std::chrono::hours(3));
  EXPECT_TRUE(weights.find(vision));  // used now
  weights.keep(key(weights, Role::kLanguage, Precision::kInt4), matrices_);
  EXPECT_TRUE(weights.find(vision));
  EXPECT_FALSE(weights.find(language));
  EXPECT_EQ(files(), 2U);
}

TEST_F(WeightCacheTest, WithoutRoomNothingIsWritten) {
  for (const WeightCache& weights : {cache(100), cache(1 << 20, std::uint64_t{1} << 62)}) {
    said_.clear();
    weights.keep(key(weights), matrices_);
    EXPECT_EQ(files(), 0U);
    EXPECT_NE(said_.find("weights are not kept"), std::string::npos) << said_;
  }
}

TEST_F(WeightCacheTest, WhatNobodyFinishedGoesAndAFolderThatIsNoneCostsTimeOnly) {
  const WeightCache weights = cache();
  const auto own = key(weights);
  const fs::path unfinished = own.file.parent_path() / ("." + own.file.filename().string() + ".0123456789abcdef");
  fs::create_directories(own.file.parent_path());
  std::ofstream(unfinished) << "half";
  weights.keep(own, matrices_);
  EXPECT_TRUE(fs::exists(unfinished));  // it may still be written
  fs::last_write_time(unfinished, fs::file_time_type::clock::now() - std::chrono::hours(2));
  weights.keep(own, matrices_);
  EXPECT_FALSE(fs::exists(unfinished));
  std::ofstream(folder_.path() / "file") << "no folder";
  const WeightCache nowhere({.dir = folder_.path() / "file", .warn = [this](std::string_view text) { said_ += text; }},
                            threads_);
  said_.clear();
  nowhere.keep(key(nowhere), matrices_);
  EXPECT_FALSE(nowhere.find(key(nowhere)));
  EXPECT_NE(said_, "");
}

}  // namespace
}  // namespace chiasm
