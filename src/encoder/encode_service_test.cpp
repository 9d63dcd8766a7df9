#include "encoder/encode_service.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <numeric>
#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/test_support.h"

namespace chiasm {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

// True once `holds` does; false after far more than any machine needs.
bool until(const std::function<bool()>& holds) {
  const Deadline give_up = std::chrono::steady_clock::now() + 60s;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

// Stands for a vision encoder: every pass waits while the gate is shut, and is written down. A picture's rows are its
// own pixel_values.
class GatedModel final : public VisionModel {
 public:
  explicit GatedModel(const VisionConfig& config) : config_(config) {}
  const VisionConfig& config() const override { return config_; }
  std::uint64_t weight_bytes() const override { return 0; }
  Result<Matrix> encode(ConstMatrixView values, std::span<const Grid> grids, const Probe&) const override {
    return encode(values, grids);
  }

  Result<Matrix> encode(ConstMatrixView values, std::span<const Grid> grids) const override {
    std::unique_lock lock(mutex_);
    passes_.emplace_back(grids.begin(), grids.end());
    if (!changed_.wait_for(lock, 20s, [&] { return open_; })) return fail(Code::kInternal, "the gate stayed shut");
    if (throws_) throw std::runtime_error("the device is gone");
    if (std::find(grids.begin(), grids.end(), poison_) != grids.end()) return fail(Code::kInternal, "poison");
    const std::int64_t unit = config_.merge_unit(), rows = values.rows / unit;
    Matrix out(rows, 4);
    for (std::int64_t row = 0; row < rows; ++row) std::copy_n(values.row(row * unit), 4, out.row(row));
    return out;
  }

  void set(const std::function<void(GatedModel&)>& change) {
    const std::lock_guard lock(mutex_);
    change(*this);
    changed_.notify_all();
  }
  void open() {
    set([](GatedModel& model) { model.open_ = true; });
  }
  std::vector<std::vector<Grid>> passes() const {
    const std::lock_guard lock(mutex_);
    return passes_;
  }

  bool open_ = false, throws_ = false;
  Grid poison_;

 private:
  const VisionConfig config_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::vector<std::vector<Grid>> passes_;
};

using Answer = std::future<Result<EncodedPicture>>;

class EncodeServiceTest : public testing::Test {
 protected:
  // Whatever a test leaves behind comes to an end before the services do.
  void TearDown() override { model_.open(); }

  std::span<const std::byte> file(const std::string& name) {
    const std::lock_guard lock(files_mutex_);
    auto& bytes = files_[name];
    if (bytes.empty()) bytes = must(read_file(toytown_dir() / "eval" / name, 1 << 24));
    return bytes;
  }

  PicturePlan plan(const std::string& name, const PixelBounds& bounds = {}) {
    const std::vector<std::span<const std::byte>> picture{file(name)};
    return must(encoder_.plan(picture, bounds));
  }

  Answer ask(EncodeService& service, std::span<const std::byte> bytes, Deadline deadline = kNoDeadline,
             const CancelFlag* cancel = nullptr, const PixelBounds& bounds = {}) {
    return std::async(std::launch::async, [&service, bytes, deadline, cancel, bounds] {
      return service.encode({&bytes, 1}, bounds, deadline, cancel);
    });
  }
  Answer ask(EncodeService& service, const std::string& name, Deadline deadline = kNoDeadline,
             const CancelFlag* cancel = nullptr) {
    return ask(service, file(name), deadline, cancel);
  }

  // One picture in the pass, one ready, one that waits for room to be decoded, and only these.
  std::deque<Answer> fill(EncodeService& service, const CancelFlag* second = nullptr,
                          const CancelFlag* third = nullptr) {
    std::deque<Answer> out;
    out.push_back(ask(service, "scene-00.png"));
    EXPECT_TRUE(until([&] { return model_.passes().size() == 1; }));
    out.push_back(ask(service, "scene-16.png", kNoDeadline, second));
    EXPECT_TRUE(until([&] { return service.status().ready_pictures == 1; }));
    out.push_back(ask(service, "scene-20.png", kNoDeadline, third));
    EXPECT_TRUE(until([&] { return service.status().queued_pictures == 3; }));
    return out;
  }

  ThreadPool threads_{2};
  Checkpoint checkpoint_ = must(Checkpoint::open(toytown_dir(), Role::kVision));
  std::unique_ptr<const ModelLayout> layout_ = must(make_layout(checkpoint_.config()));
  PreprocessorConfig preprocessor_ = must(load_preprocessor_config(toytown_dir()));
  GatedModel model_{checkpoint_.config().vision};
  CodecStats stats_;
  Encoder encoder_{model_, *layout_, preprocessor_, threads_, {}, &stats_};
  std::mutex files_mutex_;
  std::map<std::string, std::vector<std::byte>> files_;
};

// The real encoder, and passes held back until all pictures are there.
TEST_F(EncodeServiceTest, FeaturesAreTheSameBitsWhateverTheBatch) {
  const std::unique_ptr<Ops> ops = make_cpu_ops(threads_);
  const std::unique_ptr<const VisionModel> model = must(load_vision_model(checkpoint_, *ops));
  const Encoder encoder(*model, *layout_, preprocessor_, threads_);
  const std::vector<std::string> names{"scene-00.png", "scene-16.png", "scene-20.png", "scene-03.jpg", "scene-07.jpg"};
  std::vector<Matrix> alone;
  for (const std::string& name : names) {
    const std::vector<std::span<const std::byte>> picture{file(name)};
    alone.push_back(must(encoder.encode(picture)).rows);
  }
  std::atomic<int> passes = 0;
  std::atomic<bool> all_there = false;
  EncodeServiceOptions options;
  options.on_pass = [&](const EncodePass&) {
    ++passes;
    EXPECT_TRUE(until([&] { return all_there.load(); }));
  };
  EncodeService service(encoder, options);
  must(service.encode(std::vector{file("scene-01.png")}, {}, kNoDeadline, nullptr));
  ASSERT_TRUE(until([&] { return passes == 1; }));
  std::vector<Answer> answers;
  for (const std::string& name : names) answers.push_back(ask(service, name));
  ASSERT_TRUE(until([&] { return service.status().ready_pictures == static_cast<std::int64_t>(names.size()); }));
  all_there = true;
  double total = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const EncodedPicture got = must(answers[i].get());
    ASSERT_EQ(got.rows.size(), alone[i].size());
    EXPECT_EQ(std::memcmp(got.rows.data(), alone[i].data(), static_cast<std::size_t>(got.rows.size()) * sizeof(float)),
              0)
        << names[i];
    EXPECT_GT(got.times.decode_ms, 0);
    total += got.times.encode_ms;
  }
  const EncodeServiceStatus status = service.status();
  EXPECT_EQ(status.batches, 2U);
  EXPECT_EQ(status.pictures, 6U);
  EXPECT_EQ(status.queued_pictures, 0);
  EXPECT_EQ(status.queued_tokens, 0);
  EXPECT_LE(total, status.busy_ms);
}

TEST_F(EncodeServiceTest, AFullQueueRefusesAtOnceAndOpensNoDecoder) {
  const std::int64_t tokens = plan("scene-00.png").rows;
  EncodeService service(encoder_, {.max_queued_tokens = 2 * tokens});
  Answer first = ask(service, "scene-00.png");
  ASSERT_TRUE(until([&] { return model_.passes().size() == 1; }));
  Answer second = ask(service, "scene-00.png");
  ASSERT_TRUE(until([&] { return service.status().ready_pictures == 1; }));
  EXPECT_EQ(service.status().queued_tokens, 2 * tokens);
  // The pass waits for us: an answer at all is an answer at once.
  const auto refused = service.encode(std::vector{file("scene-00.png")}, {}, kNoDeadline, nullptr);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("queue full"));
  EXPECT_EQ(stats_.decodes, 2);
  EXPECT_EQ(service.status().refused, 1U);
  model_.open();
  must(first.get());
  must(second.get());
  must(service.encode(std::vector{file("scene-00.png")}, {}, kNoDeadline, nullptr));
  EXPECT_EQ(service.status().queued_tokens, 0);
}

TEST_F(EncodeServiceTest, OnePictureIsAdmittedAloneHoweverLargeUpToItsOwnLimit) {
  model_.open();
  const std::int64_t tokens = plan("scene-00.png").rows;
  EncodeService narrow(encoder_, {.max_queued_tokens = 1, .max_batch_patches = 1});
  must(narrow.encode(std::vector{file("scene-00.png")}, {}, kNoDeadline, nullptr));
  EncodeService limited(encoder_, {.max_picture_tokens = tokens - 1});
  const auto refused = limited.encode(std::vector{file("scene-00.png")}, {}, kNoDeadline, nullptr);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr(std::to_string(tokens - 1)));
  EXPECT_EQ(stats_.decodes, 1);
  must(limited.encode(std::vector{file("scene-00.png")}, {.min_pixels = 1, .max_pixels = 28 * 28}, kNoDeadline,
                      nullptr));
}

TEST_F(EncodeServiceTest, ARaisedFlagDropsBeforeDecodingAndBeforeEncoding) {
  EncodeService service(encoder_, {.max_batch_patches = 1});
  CancelFlag second = false, third = false;
  std::deque<Answer> answers = fill(service, &second, &third);
  third = true;
  EXPECT_EQ(answers[2].get().error().code, Code::kCancelled);
  EXPECT_EQ(stats_.decodes, 2);
  second = true;
  EXPECT_EQ(answers[1].get().error().code, Code::kCancelled);
  EXPECT_EQ(service.status().queued_tokens, plan("scene-00.png").rows);
  model_.open();
  must(answers[0].get());
  // Nobody is in the way of the next one.
  must(service.encode(std::vector{file("scene-20.png")}, {}, kNoDeadline, nullptr));
  EXPECT_THAT(model_.passes(),
              ElementsAre(ElementsAre(plan("scene-00.png").grid), ElementsAre(plan("scene-20.png").grid)));
  EXPECT_EQ(service.status().dropped, 2U);
}

TEST_F(EncodeServiceTest, AWaitEndsAtItsDeadlineAndAPassDoesNot) {
  EncodeService service(encoder_, {.max_batch_patches = 1});
  std::deque<Answer> answers = fill(service);
  const auto soon = std::chrono::steady_clock::now() + 30ms;
  EXPECT_EQ(ask(service, "scene-01.png", soon).get().error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(ask(service, "scene-01.png", soon - 1h).get().error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(service.status().dropped, 2U);
  EXPECT_EQ(stats_.decodes, 2);
  model_.open();
  for (Answer& answer : answers) must(answer.get());

  model_.set([](GatedModel& model) { model.open_ = false; });
  const std::size_t passes = model_.passes().size();
  CancelFlag cancel = false;
  Answer late = ask(service, file("scene-01.png"), std::chrono::steady_clock::now() + 2s, &cancel);
  ASSERT_TRUE(until([&] { return model_.passes().size() > passes; }));
  cancel = true;  // too late to save anything
  EXPECT_EQ(late.wait_for(120ms), std::future_status::timeout);
  model_.open();
  must(late.get());
}

TEST_F(EncodeServiceTest, PassesTakeWhatIsReadyInTheOrderItCameUpToTheirLimit) {
  // Of different shapes, so that the passes tell them apart.
  std::vector<PixelBounds> bounds;
  std::vector<Grid> grids;
  std::int64_t limit = 0;
  for (int i = 0; i < 5; ++i) {
    bounds.push_back({.min_pixels = 1, .max_pixels = (80 - 12 * i) * 784});
    grids.push_back(plan("scene-00.png", bounds.back()).grid);
    for (int other = 0; other < i; ++other) ASSERT_NE(grids[i], grids[other]);
    if (i == 1 || i == 2) limit += grids.back().patches();
  }
  EncodeService service(encoder_, {.max_batch_patches = limit});
  std::deque<Answer> answers;
  for (int i = 0; i < 5; ++i) {
    answers.push_back(ask(service, file("scene-00.png"), kNoDeadline, nullptr, bounds[i]));
    ASSERT_TRUE(until([&] { return service.status().queued_pictures == i + 1; }));
    if (i == 0) {
      ASSERT_TRUE(until([&] { return model_.passes().size() == 1; }));
    }
  }
  ASSERT_TRUE(until([&] { return service.status().ready_pictures == 2; }));
  EXPECT_EQ(stats_.decodes, 3);  // the others wait for room
  model_.open();
  for (Answer& answer : answers) must(answer.get());
  const std::vector<std::vector<Grid>> passes = model_.passes();
  EXPECT_THAT(passes[0], ElementsAre(grids[0]));
  EXPECT_THAT(passes[1], ElementsAre(grids[1], grids[2]));
  // The last two are decoded side by side: either may be there first.
  std::vector<Grid> rest;
  for (std::size_t i = 2; i < passes.size(); ++i) rest.insert(rest.end(), passes[i].begin(), passes[i].end());
  EXPECT_THAT(rest, testing::UnorderedElementsAre(grids[3], grids[4]));
  EXPECT_EQ(service.status().patches, static_cast<std::uint64_t>(std::accumulate(
                                          grids.begin(), grids.end(), std::int64_t{0},
                                          [](std::int64_t sum, const Grid& grid) { return sum + grid.patches(); })));
}

TEST_F(EncodeServiceTest, OneBadPictureFailsNoOther) {
  const std::vector<std::byte> whole = must(read_file(toytown_dir() / "eval" / "scene-03.jpg", 1 << 24));
  const std::span<const std::byte> cut = std::span(whole).first(9000);
  model_.set([&](GatedModel& model) { model.poison_ = plan("scene-16.png").grid; });
  EncodeService service(encoder_);
  Answer first = ask(service, "scene-00.png");
  ASSERT_TRUE(until([&] { return model_.passes().size() == 1; }));
  Answer good = ask(service, "scene-20.png"), poisoned = ask(service, "scene-16.png"),
         other = ask(service, "scene-01.png");
  EXPECT_EQ(ask(service, cut).get().error().code, Code::kDataLoss);
  ASSERT_TRUE(until([&] { return service.status().ready_pictures == 3; }));
  model_.open();
  EXPECT_THAT(poisoned.get().error().message, HasSubstr("poison"));
  must(first.get());
  const EncodedPicture got = must(good.get());
  must(other.get());
  EXPECT_EQ(model_.passes().size(), 2U + 3U);  // the second pass, and its three pictures one by one
  EXPECT_EQ(service.status().batches, 2U);
  EXPECT_EQ(service.status().failed, 2U);
  const EncodedPicture alone = must(encoder_.encode(std::vector{file("scene-20.png")}));
  ASSERT_EQ(got.rows.size(), alone.rows.size());
  EXPECT_EQ(std::memcmp(got.rows.data(), alone.rows.data(), static_cast<std::size_t>(got.rows.size()) * sizeof(float)),
            0);
}

TEST_F(EncodeServiceTest, AModelThatThrowsIsAnErrorAndTheServiceGoesOn) {
  model_.set([](GatedModel& model) { model.open_ = model.throws_ = true; });
  EncodeService service(encoder_);
  EXPECT_THAT(ask(service, "scene-00.png").get().error().message, HasSubstr("the device is gone"));
  model_.set([](GatedModel& model) { model.throws_ = false; });
  must(ask(service, "scene-00.png").get());
}

TEST_F(EncodeServiceTest, ManyThreadsManyEndsAndNothingIsLeft) {
  model_.open();
  EncodeService service(encoder_, {.max_queued_tokens = 400, .max_batch_patches = 700});
  std::atomic<int> answered = 0, refused = 0, dropped = 0, other = 0;
  std::vector<std::thread> askers;
  for (int t = 0; t < 8; ++t)
    askers.emplace_back([&, t] {
      for (int i = 0; i < 12; ++i) {
        CancelFlag cancel = i % 5 == t % 5;
        const Deadline deadline = i % 7 == 3 ? std::chrono::steady_clock::now() + 1ms : kNoDeadline;
        const std::span<const std::byte> bytes = file("scene-0" + std::to_string((i + t) % 3) + ".png");
        const auto got = service.encode({&bytes, 1}, {}, deadline, &cancel);
        if (got) {
          ++answered;
        } else if (got.error().code == Code::kResourceExhausted) {
          ++refused;
        } else if (got.error().code == Code::kCancelled || got.error().code == Code::kDeadlineExceeded) {
          ++dropped;
        } else {
          ++other;
        }
      }
    });
  for (std::thread& asker : askers) asker.join();
  EXPECT_EQ(other, 0);
  EXPECT_GT(answered, 0);
  const EncodeServiceStatus status = service.status();
  EXPECT_EQ(status.pictures, static_cast<std::uint64_t>(answered));
  EXPECT_EQ(status.refused, static_cast<std::uint64_t>(refused));
  EXPECT_EQ(status.dropped, static_cast<std::uint64_t>(dropped));
  EXPECT_EQ(status.queued_pictures, 0);
  EXPECT_EQ(status.queued_tokens, 0);
  EXPECT_EQ(status.ready_pictures, 0);
}

}  // namespace
}  // namespace chiasm
