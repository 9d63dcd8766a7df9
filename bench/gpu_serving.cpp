// The rows of chiasm_gpu_bench that go through the engine and the encoder's queue, as servers do.
#include <algorithm>
#include <atomic>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/file.h"
#include "base/stopwatch.h"
#include "encoder/encode_service.h"
#include "gpu_bench.h"
#include "language/engine.h"
#include "models/checkpoint.h"
#include "models/language_model.h"
#include "models/layout.h"
#include "models/vision_model.h"
#include "operands.h"
#include "text/tokenizer.h"

namespace chiasm::bench {
namespace {

constexpr Grid kMegapixel{1, 64, 64};  // 896 x 896 pixels, 1024 image tokens
constexpr int kQuestions = 5;
constexpr std::int64_t kNewTokens = 16;

// A chat about one picture: a beginning, the picture, a question of its own.
GenerationRequest question(int index, const std::shared_ptr<const Feature>& feature, const ModelConfig& config,
                           const ModelLayout& layout) {
  const auto text = [](std::int32_t first, int count) {
    std::vector<std::int32_t> ids;
    for (int i = 0; i < count; ++i) ids.push_back(first + i);
    return ids;
  };
  const std::vector<std::int32_t> before = text(100, 16), after = text(200 + 20 * index, 14);
  const std::int64_t rows = feature->rows.rows();
  const auto [t, h, w] = feature->meta.grid_thw;
  const Span spans[]{{.length = static_cast<std::int64_t>(before.size())},
                     {.length = rows, .vision = true, .grid = {t, h, w}},
                     {.length = static_cast<std::int64_t>(after.size())}};
  GenerationRequest out;
  out.prompt.token_ids = before;
  out.prompt.features.push_back({out.prompt.size(), feature});
  out.prompt.token_ids.insert(out.prompt.token_ids.end(), static_cast<std::size_t>(rows),
                              static_cast<std::int32_t>(config.image_token_id));
  out.prompt.token_ids.insert(out.prompt.token_ids.end(), after.begin(), after.end());
  out.prompt.positions = layout.position_ids(spans);
  out.max_tokens = kNewTokens;  // and no stop tokens
  return out;
}

}  // namespace

void five_questions(const Folders& folders, const std::string& name, const Ops& ops, int samples) {
  const Checkpoint checkpoint = must(Checkpoint::open(folders.language, Role::kLanguage));
  const auto vision = must(load_vision_model(must(Checkpoint::open(folders.vision, Role::kVision)), ops));
  const auto language = must(load_language_model(checkpoint, ops));
  const auto layout = must(make_layout(checkpoint.config()));
  const Tokenizer tokenizer = must(Tokenizer::load(folders.tokenizer));
  const auto engine = must(Engine::create(*language, tokenizer, ops));
  const Matrix pixels = random_matrix(kMegapixel.patches(), vision->config().patch_width(), 12);
  const auto look = [&] {
    return std::make_shared<const Feature>(make_feature(FeatureKey{}, {kMegapixel.t, kMegapixel.h, kMegapixel.w},
                                                        "bench",
                                                        must(vision->encode(pixels.view(), {&kMegapixel, 1}))));
  };
  int turn = 0;
  const auto ask = [&](const std::shared_ptr<const Feature>& feature) {
    std::vector<GenerationRequest> requests;
    for (int i = 0; i < kQuestions; ++i) {
      requests.push_back(question(i, feature, checkpoint.config(), *layout));
      requests.back().cache_salt = fmt::format("sample {}", turn);  // nothing of an earlier sample is found
    }
    ++turn;
    for (const Completion& answer : must(engine->run(requests)))
      CHECK(static_cast<std::int64_t>(answer.token_ids.size()) == kNewTokens);
  };
  const auto known = look();
  report("five questions " + name, times_of(3, samples, [&] { ask(known); }));
  report("five questions " + name + ", from pixels", times_of(3, samples, [&] { ask(look()); }));
}

void picture_stream(const std::filesystem::path& vision, const std::filesystem::path& picture, int clients,
                    const Ops& ops, ThreadPool& threads) {
  const Checkpoint checkpoint = must(Checkpoint::open(vision, Role::kVision));
  const auto model = must(load_vision_model(checkpoint, ops));
  const auto layout = must(make_layout(checkpoint.config()));
  const Encoder encoder(*model, *layout, must(load_preprocessor_config(vision)), threads);
  EncodeService service(encoder, {.decode_threads = 4});
  const std::vector<std::byte> bytes = must(read_file(picture, 1 << 26));
  const std::span<const std::byte> file(bytes);
  const std::int64_t patches = must(encoder.plan({&file, 1})).grid.patches();
  constexpr int kEach = 24;
  const auto send_all = [&] {
    std::vector<std::thread> senders;
    for (int c = 0; c < clients; ++c)
      senders.emplace_back([&] {
        for (int i = 0; i < kEach; ++i) must(service.encode({&file, 1}, {}, kNoDeadline, nullptr));
      });
    for (std::thread& sender : senders) sender.join();
  };
  send_all();  // warms up
  const EncodeServiceStatus before = service.status();
  const Stopwatch watch;
  send_all();
  const double ms = watch.ms();
  const EncodeServiceStatus after = service.status();
  const double each = ms / (clients * kEach);
  report(fmt::format("{} clients, pictures of {} patches", clients, patches), {each, each, each},
         fmt::format(", \"pictures_per_s\": {:.1f}, \"encoder_busy\": {:.3f}, \"pictures_a_pass\": {:.2f}", 1000 / each,
                     (after.busy_ms - before.busy_ms) / ms,
                     static_cast<double>(after.pictures - before.pictures) /
                         static_cast<double>(after.batches - before.batches)));
}

}  // namespace chiasm::bench
