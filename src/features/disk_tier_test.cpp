#include "features/disk_tier.h"

#include <chrono>
#include <csignal>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/file.h"
#include "features/test_features.h"

namespace chiasm {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

std::uint64_t file_bytes() { return serialize_feature(sample_feature(1), DType::kF32).value().size(); }

FeatureId id(int seed) { return sample_key(seed).id; }

void age(const fs::path& path, std::chrono::seconds by) {
  fs::last_write_time(path, fs::file_time_type::clock::now() - by);
}

std::uint64_t count_of(const DiskTierCounters& counters, FeatureFault fault) {
  return counters.bad[static_cast<std::size_t>(fault)];
}

// Everything in the folder that is a file.
std::vector<fs::path> files_in(const fs::path& dir) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::recursive_directory_iterator(dir))
    if (entry.is_regular_file()) out.push_back(entry.path());
  return out;
}

std::uint64_t bytes_in(const fs::path& dir) {
  std::uint64_t out = 0;
  for (const auto& path : files_in(dir)) out += fs::file_size(path);
  return out;
}

TEST(DiskTier, KinIsTheSamePictureUnderOtherNames) {
  const TemporaryFolder folder;
  DiskTier tier({.dir = folder.path()});
  const FeatureKey key = sample_key(1);
  EXPECT_TRUE(tier.kin_of(key.image_digest).empty());
  for (const std::string_view weights : {"one", "two"}) {
    FeatureKey seen = key;
    seen.vision_digest = digest_of(bytes_of(weights));
    seen.id = FeatureId{digest_of(bytes_of(weights))};
    ASSERT_TRUE(tier.put(make_feature(seen, {1, 4, 6}, "other", Matrix(sample_feature(1).rows))).has_value());
  }
  ASSERT_TRUE(tier.put(sample_feature(2)).has_value());
  write_bytes(tier.path_of(sample_key(3).id), bytes_of("no feature"));
  std::set<std::string> found;
  for (const FeatureMeta& meta : tier.kin_of(key.image_digest)) {
    EXPECT_EQ(meta.image_digest, key.image_digest);
    found.insert(meta.vision_digest.hex());
  }
  EXPECT_EQ(found, (std::set{digest_of(bytes_of("one")).hex(), digest_of(bytes_of("two")).hex()}));
}

TEST(DiskTier, StoresUnderItsId) {
  const TemporaryFolder folder;
  DiskTier tier({.dir = folder.path() / "not yet there"});
  EXPECT_EQ(tier.get(id(1)), nullptr);
  ASSERT_TRUE(tier.put(sample_feature(1)).has_value());
  const std::string hex = id(1).hex();
  EXPECT_TRUE(fs::exists(folder.path() / "not yet there" / hex.substr(0, 2) / (hex + ".safetensors")));
  const auto feature = tier.get(id(1), FeatureExpectations::of(sample_key(1)));
  ASSERT_NE(feature, nullptr);
  EXPECT_EQ(feature->meta, sample_feature(1).meta);
  EXPECT_EQ(values_of(*feature), values_of(sample_feature(1)));
  const auto counters = tier.counters();
  EXPECT_EQ(counters.hits, 1U);
  EXPECT_EQ(counters.misses, 1U);
  EXPECT_EQ(counters.all_bad(), 0U);
  EXPECT_EQ(counters.writes, 1U);
  EXPECT_EQ(counters.bytes, file_bytes());
}

TEST(DiskTier, BadFilesAreCountedMissesAndReplaced) {
  const TemporaryFolder folder;
  std::vector<std::string> warnings;
  DiskTier tier({.dir = folder.path(), .max_file = 2 * file_bytes(), .warn = [&](std::string_view line) {
                   warnings.emplace_back(line);
                 }});
  const fs::path path = tier.path_of(id(1));
  const auto sound = serialize_feature(sample_feature(1), DType::kF32).value();
  auto flipped = sound;
  flipped[flipped.size() - 5] ^= std::byte{4};
  std::vector<std::byte> oversized(2 * file_bytes() + 1);
  std::copy(sound.begin(), sound.end(), oversized.begin());
  const std::vector<std::pair<FeatureFault, std::vector<std::byte>>> cases = {
      {FeatureFault::kTruncated, {sound.begin(), sound.end() - 1}},
      {FeatureFault::kTruncated, {}},
      {FeatureFault::kCorrupt, flipped},
      {FeatureFault::kForeign, std::vector(20, std::byte{'x'})},
      {FeatureFault::kOversized, oversized},
      {FeatureFault::kMismatch, serialize_feature(sample_feature(2), DType::kF32).value()},  // under 1's name
      {FeatureFault::kMismatch, serialize_feature(sample_feature(1), DType::kF16).value()},  // less exact
  };
  std::uint64_t misses = 0;
  for (const auto& [fault, bytes] : cases) {
    const auto before = count_of(tier.counters(), fault);
    write_bytes(path, bytes);
    EXPECT_EQ(tier.get(id(1)), nullptr) << fault_name(fault);
    EXPECT_EQ(count_of(tier.counters(), fault), before + 1) << fault_name(fault);
    EXPECT_EQ(tier.counters().misses, ++misses);
    ASSERT_EQ(warnings.size(), misses);
    EXPECT_THAT(warnings.back(), ::testing::HasSubstr(fault_name(fault)));
    ASSERT_TRUE(tier.put(sample_feature(1)).has_value());
    EXPECT_EQ(values_of(*tier.get(id(1))), values_of(sample_feature(1)));
  }
  EXPECT_EQ(tier.counters().all_bad(), cases.size());
}

TEST(DiskTier, AFolderInTheWayIsAMissAndStays) {
  const TemporaryFolder folder;
  DiskTier tier({.dir = folder.path()});
  fs::create_directories(tier.path_of(id(1)));
  EXPECT_EQ(tier.get(id(1)), nullptr);
  EXPECT_EQ(count_of(tier.counters(), FeatureFault::kForeign), 1U);
  EXPECT_FALSE(tier.put(sample_feature(1)).has_value());
  EXPECT_EQ(tier.counters().failed_writes, 1U);
  EXPECT_TRUE(fs::is_directory(tier.path_of(id(1))));
  EXPECT_TRUE(files_in(folder.path()).empty());  // the temporary is gone
}

TEST(DiskTier, LeastRecentlyUsedGoesFirst) {
  const TemporaryFolder folder;
  DiskTier tier({.dir = folder.path(), .budget = 3 * file_bytes()});
  for (int i = 1; i <= 3; ++i) {
    ASSERT_TRUE(tier.put(sample_feature(i)).has_value());
    age(tier.path_of(id(i)), 100s - std::chrono::seconds(i));
  }
  EXPECT_EQ(bytes_in(folder.path()), 3 * file_bytes());
  EXPECT_NE(tier.get(id(1)), nullptr);  // used: 2 is the oldest now
  ASSERT_TRUE(tier.put(sample_feature(4)).has_value());
  EXPECT_FALSE(fs::exists(tier.path_of(id(2))));
  ASSERT_TRUE(tier.put(sample_feature(5)).has_value());
  EXPECT_FALSE(fs::exists(tier.path_of(id(3))));
  EXPECT_NE(tier.get(id(1)), nullptr);
  EXPECT_NE(tier.get(id(4)), nullptr);
  EXPECT_NE(tier.get(id(5)), nullptr);
  EXPECT_EQ(tier.counters().evictions, 2U);
  EXPECT_EQ(tier.counters().bytes, bytes_in(folder.path()));
}

TEST(DiskTier, TheBudgetHoldsAfterEveryWrite) {
  const TemporaryFolder folder;
  const std::uint64_t budget = 40 * file_bytes();  // a sixteenth is more than one file: scans are rare
  DiskTier tier({.dir = folder.path(), .budget = budget});
  for (int i = 0; i < 60; ++i) {
    ASSERT_TRUE(tier.put(sample_feature(i)).has_value());
    if (i % 3 == 0) {  // replaced: counted once
      ASSERT_TRUE(tier.put(sample_feature(i)).has_value());
    }
    ASSERT_LE(bytes_in(folder.path()), budget) << i;
  }
  EXPECT_EQ(bytes_in(folder.path()), budget);
  for (int i = 20; i < 60; ++i) EXPECT_TRUE(fs::exists(tier.path_of(id(i)))) << i;
  EXPECT_EQ(tier.counters().evictions, 20U);
}

TEST(DiskTier, ErasedFilesAreGoneAndNoLongerCounted) {
  const TemporaryFolder folder;
  DiskTier tier({.dir = folder.path(), .budget = 3 * file_bytes()});
  EXPECT_FALSE(must(tier.erase(id(1))));
  for (int i = 1; i <= 3; ++i) {
    ASSERT_TRUE(tier.put(sample_feature(i)).has_value());
    age(tier.path_of(id(i)), 100s - std::chrono::seconds(i));
  }
  DiskTier other({.dir = folder.path(), .budget = 3 * file_bytes()});
  ASSERT_TRUE(other.put(sample_feature(3)).has_value());  // scans: 1 is the first to go
  EXPECT_TRUE(must(other.erase(id(1))));
  EXPECT_FALSE(must(other.erase(id(1))));
  EXPECT_EQ(other.get(id(1)), nullptr);
  EXPECT_FALSE(fs::exists(other.path_of(id(1))));
  EXPECT_EQ(other.counters().erased, 1U);
  EXPECT_EQ(other.counters().bytes, 2 * file_bytes());
  ASSERT_TRUE(other.put(sample_feature(4)).has_value());  // fits in what was erased
  EXPECT_EQ(other.counters().evictions, 0U);
  ASSERT_TRUE(other.put(sample_feature(5)).has_value());
  EXPECT_EQ(other.counters().evictions, 1U);
  EXPECT_EQ(other.counters().bytes, bytes_in(folder.path()));
  EXPECT_LE(bytes_in(folder.path()), 3 * file_bytes());
}

TEST(DiskTier, WhatIsNoFileIsNotErased) {
  const TemporaryFolder folder;
  DiskTier tier({.dir = folder.path()});
  fs::create_directories(tier.path_of(id(1)));
  EXPECT_FALSE(must(tier.erase(id(1))));
  EXPECT_TRUE(fs::is_directory(tier.path_of(id(1))));
}

TEST(DiskTier, WhatDoesNotFitIsRefusedAndPushesNothingOut) {
  const TemporaryFolder folder;
  DiskTier tier({.dir = folder.path(), .budget = 2 * file_bytes()});
  ASSERT_TRUE(tier.put(sample_feature(1)).has_value());
  EXPECT_EQ(tier.put(sample_feature(2, 8000)).error().code, Code::kResourceExhausted);
  EXPECT_EQ(tier.counters().refused, 1U);
  EXPECT_NE(tier.get(id(1)), nullptr);
  DiskTier limited({.dir = folder.path(), .max_file = file_bytes() - 1});
  EXPECT_FALSE(limited.put(sample_feature(3)).has_value());
}

TEST(DiskTier, ANewProcessTakesOverWhatIsThere) {
  const TemporaryFolder folder;
  {
    DiskTier first({.dir = folder.path()});
    for (int i = 0; i < 6; ++i) {
      ASSERT_TRUE(first.put(sample_feature(i)).has_value());
      age(first.path_of(id(i)), 100s - std::chrono::seconds(i));
    }
  }
  DiskTier second({.dir = folder.path(), .budget = 4 * file_bytes()});
  EXPECT_NE(second.get(id(0)), nullptr);
  ASSERT_TRUE(second.put(sample_feature(9)).has_value());
  EXPECT_EQ(bytes_in(folder.path()), 4 * file_bytes());
  for (const int i : {0, 4, 5, 9}) EXPECT_TRUE(fs::exists(second.path_of(id(i)))) << i;
}

TEST(DiskTier, LeavesForeignNamesAlone) {
  const TemporaryFolder folder;
  const std::string hex = id(1).hex();
  const std::vector<fs::path> theirs = {folder.path() / "notes.txt",
                                        folder.path() / "ab" / "model.safetensors",
                                        folder.path() / (hex + ".safetensors"),
                                        folder.path() / "photos" / (hex + ".safetensors"),
                                        folder.path() / hex.substr(0, 2) / (hex + ".safetensors.bak"),
                                        folder.path() / (hex[0] == '0' ? "11" : "00") / (hex + ".safetensors"),
                                        folder.path() / hex.substr(0, 2) / ("." + hex + ".swp")};
  const std::string content(5000, 'x');
  for (const auto& path : theirs) {
    write_bytes(path, bytes_of(content));
    age(path, 48h);
  }
  DiskTier tier({.dir = folder.path(), .budget = file_bytes()});
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(tier.put(sample_feature(i)).has_value());
  for (const auto& path : theirs) EXPECT_TRUE(fs::exists(path)) << path;
  EXPECT_EQ(tier.counters().bytes, file_bytes());
  EXPECT_EQ(tier.counters().swept, 0U);
}

// A process that dies in the middle of a write: of its limit on file sizes, so that it happens every time.
void die_while_writing(const fs::path& dir, int seed) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit none{0, 0}, small{100, 100};
    ::setrlimit(RLIMIT_CORE, &none);
    ::setrlimit(RLIMIT_FSIZE, &small);
    ::signal(SIGXFSZ, SIG_DFL);
    DiskTier tier({.dir = dir});
    (void)tier.put(sample_feature(seed));
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the writer did not die";
}

TEST(DiskTier, SweepsWhatDeadWritersLeft) {
  const TemporaryFolder folder;
  die_while_writing(folder.path(), 1);
  ASSERT_EQ(files_in(folder.path()).size(), 1U);
  const fs::path old = files_in(folder.path())[0];
  age(old, 2h);
  die_while_writing(folder.path(), 2);  // its file is young: the writer might be alive
  ASSERT_EQ(files_in(folder.path()).size(), 2U);
  DiskTier tier({.dir = folder.path()});
  EXPECT_EQ(tier.get(id(1)), nullptr);
  ASSERT_TRUE(tier.put(sample_feature(3)).has_value());
  EXPECT_FALSE(fs::exists(old));
  EXPECT_EQ(files_in(folder.path()).size(), 2U);
  EXPECT_EQ(tier.counters().swept, 1U);
  EXPECT_EQ(tier.counters().all_bad(), 0U);
}

TEST(DiskTier, HalvesReadAsTheyWouldFromMemory) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const TemporaryFolder folder;
    Feature rounded = sample_feature(1);
    ASSERT_TRUE(round_feature(rounded, dtype).has_value());
    DiskTier half({.dir = folder.path(), .dtype = dtype});
    DiskTier full({.dir = folder.path()});
    ASSERT_TRUE(half.put(sample_feature(1)).has_value());
    EXPECT_EQ(values_of(*half.get(id(1))), values_of(rounded));
    EXPECT_EQ(full.get(id(1)), nullptr);  // less exact than asked for
    ASSERT_TRUE(full.put(sample_feature(1)).has_value());
    EXPECT_EQ(values_of(*half.get(id(1))), values_of(rounded));
    EXPECT_EQ(half.get(id(1))->meta, rounded.meta);
    EXPECT_EQ(values_of(*full.get(id(1))), values_of(sample_feature(1)));
    EXPECT_EQ(half.put([&] {
                    Feature wide = sample_feature(2);
                    wide.rows.data()[0] = std::numeric_limits<float>::max();
                    return wide;
                  }())
                  .has_value(),
              false);
    EXPECT_EQ(half.counters().failed_writes, 1U);
  }
}

TEST(DiskTier, FromManyThreads) {
  const TemporaryFolder folder;
  DiskTier tier({.dir = folder.path(), .budget = 4 * file_bytes()});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&tier, t] {
      for (int i = 0; i < 25; ++i) {
        const int seed = (i * 7 + t * 3) % 10;
        if (const auto feature = tier.get(id(seed))) {
          EXPECT_EQ(values_of(*feature), values_of(sample_feature(seed)));
        } else {
          EXPECT_TRUE(tier.put(sample_feature(seed)).has_value());
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(tier.counters().all_bad(), 0U);
  EXPECT_EQ(tier.counters().hits + tier.counters().misses, 100U);
  EXPECT_LE(bytes_in(folder.path()), 4 * file_bytes());
}

// What one of several processes does: reads, writes and evicts as fast as it can. The answer is its exit status.
int share_folder(const fs::path& dir, std::uint64_t budget, int process) {
  DiskTier tier({.dir = dir, .budget = budget});
  for (int i = 0; i < 40; ++i) {
    const int seed = (i * 5 + process * 3) % 12;
    if (const auto feature = tier.get(id(seed), FeatureExpectations::of(sample_key(seed)))) {
      if (values_of(*feature) != values_of(sample_feature(seed))) return 2;
    } else if (!tier.put(sample_feature(seed)).has_value()) {
      return 3;
    }
  }
  return tier.counters().all_bad() == 0 ? 0 : 4;
}

TEST(DiskTier, SeveralProcessesInOneFolder) {
  const TemporaryFolder folder;
  const std::uint64_t budget = 5 * file_bytes();
  std::vector<pid_t> children;
  for (int process = 0; process < 4; ++process) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) ::_exit(share_folder(folder.path(), budget, process));
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
  EXPECT_LE(bytes_in(folder.path()), budget);
  EXPECT_FALSE(files_in(folder.path()).empty());
  for (const auto& path : files_in(folder.path())) EXPECT_TRUE(load_feature(path).has_value()) << path;
}

// A writer killed at any moment leaves the old file, the new one or none: never a part of one.
TEST(DiskTier, KilledWritersLeaveNothingHalf) {
  const TemporaryFolder folder;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      DiskTier tier({.dir = folder.path()});
      for (int i = 0;; ++i) (void)tier.put(sample_feature(i % 5, 2000));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + 3 * round));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    DiskTier tier({.dir = folder.path()});
    for (int i = 0; i < 5; ++i) {
      const auto feature = tier.get(id(i));
      if (feature != nullptr) {
        EXPECT_EQ(values_of(*feature), values_of(sample_feature(i, 2000)));
      }
    }
    EXPECT_EQ(tier.counters().all_bad(), 0U);
  }
}

TEST(DiskTier, AFolderKnowsItsName) {
  const TemporaryFolder folder;
  const auto name_of = [&](const std::filesystem::path& dir) {
    DiskTierOptions options;
    options.dir = dir;
    return must(DiskTier(options).folder_name());
  };
  const std::string name = name_of(folder.path() / "a");
  EXPECT_EQ(name.size(), 32U);
  EXPECT_EQ(name_of(folder.path() / "a"), name);
  EXPECT_NE(name_of(folder.path() / "b"), name);
  std::filesystem::create_directory_symlink(folder.path() / "a", folder.path() / "link");
  EXPECT_EQ(name_of(folder.path() / "link"), name);
  folder.write("a/.folder", "damaged");
  const std::string again = name_of(folder.path() / "a");
  EXPECT_EQ(again.size(), 32U);
  EXPECT_EQ(name_of(folder.path() / "link"), again);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path() / "a"), {}), 1);  // no leftovers

  // Many at once agree.
  std::vector<std::string> names(8);
  std::vector<std::thread> threads;
  for (std::string& out : names) threads.emplace_back([&] { out = name_of(folder.path() / "c"); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), 1U);
}

}  // namespace
}  // namespace chiasm
