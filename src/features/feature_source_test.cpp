#include "features/feature_source.h"

#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>

#include <gmock/gmock.h>

#include "features/test_features.h"

namespace chiasm {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr std::uint64_t kPlenty = 1 << 20;

Deadline in(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }

// Stands for decoding and encoding a picture: counts how often it is asked.
struct Encoder {
  std::atomic<int> calls = 0;
  EncodeFn of(int seed) {
    return [this, seed]() -> Result<Feature> {
      ++calls;
      return sample_feature(seed);
    };
  }
};

Result<Feature> must_not_run() {
  ADD_FAILURE() << "a hit opened the decoder";
  return fail(Code::kInternal, "a hit opened the decoder");
}

// Returns when `count` requests wait for the one that encodes.
void until_waiting(const TieredFeatureSource& source, std::uint64_t count) {
  const Deadline give_up = in(20s);
  while (source.counters().waiting < count && std::chrono::steady_clock::now() < give_up)
    std::this_thread::sleep_for(1ms);
  EXPECT_EQ(source.counters().waiting, count);
}

TEST(FeatureSource, EncodedThenMemoryThenDisk) {
  const TemporaryFolder folder;
  Encoder encoder;
  {
    TieredFeatureSource source(std::make_shared<MemoryTier>(kPlenty),
                               std::make_shared<DiskTier>(DiskTierOptions{.dir = folder.path()}),
                               {.merge = 2, .width = 8});
    const auto first = source.get(sample_key(1), encoder.of(1), kNoDeadline).value();
    EXPECT_EQ(first.source, Source::kEncoded);
    EXPECT_FALSE(first.joined);
    const auto second = source.get(sample_key(1), must_not_run, kNoDeadline).value();
    EXPECT_EQ(second.source, Source::kMemory);
    EXPECT_EQ(second.feature, first.feature);
    EXPECT_EQ(source.counters().encoded, 1U);
    EXPECT_EQ(source.counters().from_memory, 1U);
  }
  TieredFeatureSource later(std::make_shared<MemoryTier>(kPlenty),
                            std::make_shared<DiskTier>(DiskTierOptions{.dir = folder.path()}),
                            {.merge = 2, .width = 8});
  const auto third = later.get(sample_key(1), must_not_run, kNoDeadline).value();
  EXPECT_EQ(third.source, Source::kDisk);
  EXPECT_EQ(third.feature->meta, sample_feature(1).meta);
  EXPECT_EQ(values_of(*third.feature), values_of(sample_feature(1)));
  EXPECT_EQ(later.get(sample_key(1), must_not_run, kNoDeadline).value().source, Source::kMemory);
  EXPECT_EQ(later.find(sample_key(1).id), third.feature);
  EXPECT_EQ(later.find(sample_key(2).id), nullptr);
  EXPECT_EQ(encoder.calls, 1);
}

// The key of a file that no codec can open is as good as any: a hit on it proves that nothing looked inside.
TEST(FeatureSource, AHitOpensNoDecoder) {
  const std::string file = "\x89PNG\r\n\x1a\n, and then nothing that a decoder could read";
  const std::span<const std::byte> bytes = bytes_of(file);
  const auto key = [&] { return feature_key("t", digest_of(bytes_of("v")), digest_of(bytes_of("p")), {&bytes, 1}); };
  TieredFeatureSource source(std::make_shared<MemoryTier>(kPlenty), nullptr);
  const FeatureKey first = key();
  ASSERT_TRUE(source
                  .get(
                      first,
                      [&]() -> Result<Feature> {
                        Feature feature = sample_feature(1);
                        return make_feature(first, {1, 4, 6}, "sample", std::move(feature.rows));
                      },
                      kNoDeadline)
                  .has_value());
  EXPECT_EQ(source.get(key(), must_not_run, kNoDeadline).value().source, Source::kMemory);
}

TEST(FeatureSource, WhatIsErasedIsNowhere) {
  const TemporaryFolder folder;
  Encoder encoder;
  TieredFeatureSource source(std::make_shared<MemoryTier>(kPlenty),
                             std::make_shared<DiskTier>(DiskTierOptions{.dir = folder.path()}));
  ASSERT_TRUE(source.get(sample_key(1), encoder.of(1), kNoDeadline).has_value());
  EXPECT_TRUE(must(source.erase(sample_key(1).id)));
  EXPECT_FALSE(must(source.erase(sample_key(1).id)));
  EXPECT_EQ(source.find(sample_key(1).id), nullptr);
  EXPECT_EQ(source.get(sample_key(1), encoder.of(1), kNoDeadline).value().source, Source::kEncoded);
  ASSERT_TRUE(source.memory()->erase(sample_key(1).id));
  EXPECT_TRUE(must(source.erase(sample_key(1).id)));  // on disk alone
  TieredFeatureSource none(nullptr, nullptr);
  EXPECT_FALSE(must(none.erase(sample_key(1).id)));
}

TEST(FeatureSource, WithoutTiersEveryRequestEncodes) {
  Encoder encoder;
  TieredFeatureSource source(nullptr, nullptr);
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(source.get(sample_key(1), encoder.of(1), kNoDeadline).value().source, Source::kEncoded);
  EXPECT_EQ(encoder.calls, 3);
  EXPECT_EQ(source.find(sample_key(1).id), nullptr);
}

TEST(FeatureSource, DamagedFilesAreEncodedAgainAndReplaced) {
  const TemporaryFolder folder;
  const auto disk = std::make_shared<DiskTier>(DiskTierOptions{.dir = folder.path()});
  TieredFeatureSource source(nullptr, disk, {.merge = 2, .width = 8});
  Encoder encoder;
  ASSERT_TRUE(source.get(sample_key(1), encoder.of(1), kNoDeadline).has_value());
  const auto sound = serialize_feature(sample_feature(1), DType::kF32).value();
  std::vector<std::vector<std::byte>> damaged;
  for (std::size_t size = 0; size < sound.size(); size += 211)
    damaged.emplace_back(sound.begin(), sound.begin() + size);
  for (std::size_t at = 3; at < sound.size(); at += 173) {
    damaged.push_back(sound);
    damaged.back()[at] ^= std::byte{1} << (at % 8);
  }
  damaged.push_back(serialize_feature(sample_feature(2), DType::kF32).value());
  const auto relabelled = [&](const char* field) {
    return rebuild(sound, [&](Metadata& m, NamedTensor&) { m[field] = std::string(64, '0'); });
  };
  damaged.push_back(relabelled("vision_digest"));
  damaged.push_back(relabelled("preprocess_digest"));
  damaged.push_back(relabelled("image_digest"));
  int encoded = 1;
  for (const auto& bytes : damaged) {
    write_bytes(disk->path_of(sample_key(1).id), bytes);
    const auto fetched = source.get(sample_key(1), encoder.of(1), kNoDeadline).value();
    EXPECT_EQ(fetched.source, Source::kEncoded);
    EXPECT_EQ(values_of(*fetched.feature), values_of(sample_feature(1)));
    EXPECT_EQ(encoder.calls, ++encoded);
    EXPECT_EQ(source.get(sample_key(1), must_not_run, kNoDeadline).value().source, Source::kDisk);
  }
  EXPECT_EQ(disk->counters().all_bad(), damaged.size());
}

TEST(FeatureSource, WhereAFeatureComesFromNeverChangesIt) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const TemporaryFolder folder;
    const auto make = [&] {
      return TieredFeatureSource(std::make_shared<MemoryTier>(kPlenty),
                                 std::make_shared<DiskTier>(DiskTierOptions{.dir = folder.path(), .dtype = dtype}));
    };
    Encoder encoder;
    auto source = make(), later = make();
    const auto encoded = source.get(sample_key(1), encoder.of(1), kNoDeadline).value();
    const auto memory = source.get(sample_key(1), must_not_run, kNoDeadline).value();
    const auto disk = later.get(sample_key(1), must_not_run, kNoDeadline).value();
    EXPECT_EQ(encoded.source, Source::kEncoded);
    EXPECT_EQ(memory.source, Source::kMemory);
    EXPECT_EQ(disk.source, Source::kDisk);
    EXPECT_EQ(values_of(*encoded.feature), values_of(*memory.feature));
    EXPECT_EQ(values_of(*encoded.feature), values_of(*disk.feature));
    EXPECT_EQ(encoded.feature->meta, disk.feature->meta);
  }
}

TEST(FeatureSource, AFolderThatCannotBeWrittenCostsNoAnswer) {
  const TemporaryFolder folder;
  write_bytes(folder.path() / "file", bytes_of("in the way"));
  const auto disk = std::make_shared<DiskTier>(DiskTierOptions{.dir = folder.path() / "file"});
  TieredFeatureSource source(std::make_shared<MemoryTier>(kPlenty), disk);
  Encoder encoder;
  EXPECT_TRUE(source.get(sample_key(1), encoder.of(1), kNoDeadline).has_value());
  EXPECT_TRUE(source.get(sample_key(1), encoder.of(1), kNoDeadline).has_value());
  EXPECT_EQ(encoder.calls, 1);
  EXPECT_EQ(disk->counters().failed_writes, 1U);
}

TEST(FeatureSource, EncodersAreChecked) {
  TieredFeatureSource source(std::make_shared<MemoryTier>(kPlenty), nullptr, {.merge = 2, .width = 8});
  Encoder encoder;
  const auto answer = [&](const EncodeFn& encode) { return source.get(sample_key(1), encode, kNoDeadline); };
  EXPECT_EQ(answer(encoder.of(2)).error().code, Code::kInternal);  // of another picture
  EXPECT_THAT(answer([]() -> Result<Feature> { return sample_feature(1, 9); }).error().message, HasSubstr("width 8"));
  EXPECT_THAT(answer([]() -> Result<Feature> {
                Feature feature = sample_feature(1);
                feature.rows.row(2)[1] = std::numeric_limits<float>::quiet_NaN();
                return feature;
              })
                  .error()
                  .message,
              HasSubstr("row 2, column 1"));
  EXPECT_THAT(answer([]() -> Result<Feature> { throw std::runtime_error("boom"); }).error().message, HasSubstr("boom"));
  EXPECT_FALSE(answer([]() -> Result<Feature> { throw 7; }).has_value());
  EXPECT_EQ(answer([]() -> Result<Feature> { return fail(Code::kInvalidArgument, "no picture"); }).error().message,
            "no picture");
  EXPECT_EQ(source.counters().encode_errors, 6U);
  EXPECT_TRUE(answer(encoder.of(1)).has_value());  // no error is remembered
}

TEST(FeatureSource, ConcurrentRequestsEncodeOnce) {
  const TemporaryFolder folder;
  TieredFeatureSource source(std::make_shared<MemoryTier>(kPlenty),
                             std::make_shared<DiskTier>(DiskTierOptions{.dir = folder.path()}));
  std::atomic<int> calls = 0;
  const EncodeFn slow = [&]() -> Result<Feature> {
    ++calls;
    until_waiting(source, 7);
    return sample_feature(1);
  };
  std::vector<std::future<Result<Fetched>>> answers;
  for (int i = 0; i < 8; ++i)
    answers.push_back(std::async(std::launch::async, [&] { return source.get(sample_key(1), slow, in(20s)); }));
  const Feature* feature = nullptr;
  for (auto& answer : answers) {
    const auto fetched = answer.get().value();
    if (feature == nullptr) feature = fetched.feature.get();
    EXPECT_EQ(fetched.feature.get(), feature);
  }
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(source.counters().encoded, 1U);
  EXPECT_EQ(source.counters().joined, 7U);
}

TEST(FeatureSource, DifferentPicturesDoNotWaitForEachOther) {
  TieredFeatureSource source(nullptr, nullptr);
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  std::promise<void> begun;
  auto slow = std::async(std::launch::async, [&] {
    return source.get(
        sample_key(1),
        [&]() -> Result<Feature> {
          begun.set_value();
          released.wait();
          return sample_feature(1);
        },
        kNoDeadline);
  });
  begun.get_future().wait();
  Encoder encoder;
  EXPECT_TRUE(source.get(sample_key(2), encoder.of(2), in(20s)).has_value());
  release.set_value();
  EXPECT_TRUE(slow.get().has_value());
}

// One request encodes until `finish` gives its answer; `others` wait for it.
struct Shared {
  explicit Shared(TieredFeatureSource& source_in) : source(source_in) {}
  TieredFeatureSource& source;
  std::promise<Result<Feature>> finish;
  std::promise<void> begun;
  std::future<Result<Fetched>> leader;
  void start() {
    leader = std::async(std::launch::async, [this] {
      return source.get(
          sample_key(1),
          [this]() -> Result<Feature> {
            begun.set_value();
            return finish.get_future().get();
          },
          kNoDeadline);
    });
    begun.get_future().wait();
  }
};

TEST(FeatureSource, AnErrorGoesToAllWhoWaitAndIsForgotten) {
  TieredFeatureSource source(std::make_shared<MemoryTier>(kPlenty), nullptr);
  Shared shared(source);
  shared.start();
  std::vector<std::future<Result<Fetched>>> others;
  for (int i = 0; i < 4; ++i)
    others.push_back(std::async(std::launch::async, [&] { return source.get(sample_key(1), must_not_run, in(20s)); }));
  until_waiting(source, 4);
  shared.finish.set_value(fail(Code::kInvalidArgument, "not a picture"));
  EXPECT_EQ(shared.leader.get().error().message, "not a picture");
  for (auto& other : others) EXPECT_EQ(other.get().error().message, "not a picture");
  Encoder encoder;
  EXPECT_EQ(source.get(sample_key(1), encoder.of(1), kNoDeadline).value().source, Source::kEncoded);
}

TEST(FeatureSource, AThrowingEncoderReachesAllWhoWait) {
  TieredFeatureSource source(nullptr, nullptr);
  Shared shared(source);
  shared.start();
  auto other = std::async(std::launch::async, [&] { return source.get(sample_key(1), must_not_run, in(20s)); });
  until_waiting(source, 1);
  shared.finish.set_exception(std::make_exception_ptr(std::runtime_error("the device is gone")));
  EXPECT_THAT(shared.leader.get().error().message, HasSubstr("the device is gone"));
  EXPECT_THAT(other.get().error().message, HasSubstr("the device is gone"));
}

TEST(FeatureSource, AWaitEndsAtItsDeadline) {
  TieredFeatureSource source(std::make_shared<MemoryTier>(kPlenty), nullptr);
  Shared shared(source);
  shared.start();
  const auto late = source.get(sample_key(1), must_not_run, in(20ms));
  EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(source.get(sample_key(1), must_not_run, in(-1ms)).error().code, Code::kDeadlineExceeded);
  shared.finish.set_value(sample_feature(1));
  EXPECT_TRUE(shared.leader.get().has_value());
  EXPECT_TRUE(source.get(sample_key(1), must_not_run, in(-1ms)).has_value());  // a hit needs no time
}

// The client of the request that encodes goes away: those who wait did not ask for that.
TEST(FeatureSource, CancellingOneRequestCancelsNoOther) {
  TieredFeatureSource source(std::make_shared<MemoryTier>(kPlenty), nullptr);
  Shared shared(source);
  shared.start();
  Encoder encoder;
  std::vector<std::future<Result<Fetched>>> others;
  for (int i = 0; i < 4; ++i)
    others.push_back(std::async(std::launch::async, [&] { return source.get(sample_key(1), encoder.of(1), in(20s)); }));
  until_waiting(source, 4);
  shared.finish.set_value(fail(Code::kCancelled, "the client went away"));
  EXPECT_EQ(shared.leader.get().error().code, Code::kCancelled);
  for (auto& other : others) EXPECT_TRUE(other.get().has_value());
  EXPECT_EQ(encoder.calls, 1);
}

TEST(FeatureSource, ManyThreadsManyPicturesSmallBudgets) {
  const TemporaryFolder folder;
  const std::uint64_t cost = MemoryTier::cost(sample_feature(1));
  TieredFeatureSource source(std::make_shared<MemoryTier>(2 * cost),
                             std::make_shared<DiskTier>(DiskTierOptions{.dir = folder.path(), .budget = 8000}));
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&source, t] {
      Encoder encoder;
      for (int i = 0; i < 30; ++i) {
        const int seed = (i * (t + 1)) % 7;
        const auto fetched = source.get(sample_key(seed), encoder.of(seed), in(20s));
        ASSERT_TRUE(fetched.has_value()) << fetched.error().message;
        EXPECT_EQ(values_of(*fetched->feature), values_of(sample_feature(seed)));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const auto counters = source.counters();
  EXPECT_EQ(counters.encoded + counters.from_memory + counters.from_disk + counters.joined, 180U);
  EXPECT_EQ(source.disk()->counters().all_bad(), 0U);
}

}  // namespace
}  // namespace chiasm
