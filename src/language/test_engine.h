// For tests only: language models of chosen logits or random weights, listeners that wait, prompts by the number.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/test_support.h"
#include "language/engine.h"
#include "models/test_checkpoint.h"

namespace chiasm {

inline constexpr KvShape kSmallKv{1, 1, 4, 0};  // a block takes 1024 bytes
inline constexpr std::int32_t kLetterA = 64;    // the id of "a" in the toytown tokenizer

// Answers 'a', 'b', 'c', ... in turn, whatever the prompt is; `harm` is put in the logits behind a token.
class FakeModel final : public LanguageModel {
 public:
  explicit FakeModel(std::int64_t context, KvShape shape = kSmallKv) : shape_(shape) {
    config_.vocab_size = 300;
    config_.hidden_size = 4;
    config_.max_position_embeddings = context;
  }
  const TextConfig& config() const override { return config_; }
  KvShape kv_shape(std::int64_t blocks) const override {
    KvShape out = shape_;
    out.blocks = blocks;
    return out;
  }
  std::uint64_t weight_bytes() const override { return 0; }
  Result<Matrix> forward(const LanguageBatch& batch, KvPool& pool) const override { return forward(batch, pool, {}); }
  Result<Matrix> forward(const LanguageBatch& batch, KvPool& pool, const Probe&) const override {
    if (before) RETURN_IF_ERROR(before(batch));
    computed += static_cast<std::int64_t>(batch.token_ids.size());
    for (const SequenceRows& rows : batch.sequences)
      for (const std::int32_t block : rows.block_table) EXPECT_LT(block, pool.shape().blocks);
    Matrix out(static_cast<std::int64_t>(batch.logits_rows.size()), config_.vocab_size);
    for (std::int64_t i = 0; i < out.rows(); ++i) {
      const std::int32_t last =
          batch.token_ids[static_cast<std::size_t>(batch.logits_rows[static_cast<std::size_t>(i)])];
      std::fill_n(out.row(i), config_.vocab_size, 0.0F);
      out.row(i)[next(last)] = 9;
      if (const auto found = harm.find(last); found != harm.end()) out.row(i)[200] = found->second;
    }
    return out;
  }

  Status forward_greedy(const LanguageBatch& batch, KvPool& pool, std::span<std::int32_t> likeliest) const override {
    ASSIGN_OR_RETURN(const Matrix logits, forward(batch, pool));
    for (std::int64_t i = 0; i < logits.rows(); ++i) {
      const float* row = logits.row(i);
      const bool finite = all_finite({row, static_cast<std::size_t>(logits.cols())});
      const auto best = std::max_element(row, row + logits.cols()) - row;
      likeliest[static_cast<std::size_t>(i)] = finite ? static_cast<std::int32_t>(best) : -1;
    }
    return {};
  }

  static std::int32_t next(std::int32_t last) { return kLetterA + (last + 26 - kLetterA % 26 + 1) % 26; }

  std::map<std::int32_t, float> harm;
  std::function<Status(const LanguageBatch&)> before;  // each step; may fail, throw or wait
  mutable std::atomic<std::int64_t> computed = 0;      // tokens of all steps

 private:
  TextConfig config_;
  KvShape shape_;
};

// Holds whoever passes until it is opened; tells when somebody stands before it.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_ > 0; });
    --waiting_;
    if (open_ < kForever) --open_;
    changed_.notify_all();
  }
  void await_somebody() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ > 0; });
  }
  // Returns when one has passed.
  void let_one() {
    add(1);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_ == 0 || open_ == kForever; });
  }
  void open() { add(kForever); }

 private:
  static constexpr int kForever = 1 << 20;
  void add(int count) {
    const std::lock_guard lock(mutex_);
    open_ = std::min(kForever, open_ + count);
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  int open_ = 0, waiting_ = 0;
};

// The events of one generation.
class Listener {
 public:
  OnEvent on_event() {
    return [state = state_](GenerationEvent&& event) {
      const std::lock_guard lock(state->mutex);
      EXPECT_FALSE(state->end) << "an event after the end";
      state->text += event.text;
      state->token_ids.insert(state->token_ids.end(), event.token_ids.begin(), event.token_ids.end());
      state->logprobs.insert(state->logprobs.end(), event.logprobs.begin(), event.logprobs.end());
      ++state->events;
      state->end = std::move(event.end);
      state->changed.notify_all();
    };
  }
  // The end, which must come.
  Result<Completion> wait() {
    std::unique_lock lock(state_->mutex);
    if (!state_->changed.wait_for(lock, std::chrono::minutes(2), [&] { return state_->end.has_value(); })) std::abort();
    return *state_->end;
  }
  void await_tokens(std::size_t count) {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] { return state_->token_ids.size() >= count || state_->end; });
  }
  bool ended() const {
    const std::lock_guard lock(state_->mutex);
    return state_->end.has_value();
  }
  std::string text() const { return locked(&State::text); }
  std::vector<std::int32_t> token_ids() const { return locked(&State::token_ids); }
  std::vector<Logprobs> logprobs() const { return locked(&State::logprobs); }
  int events() const { return locked(&State::events); }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::string text;
    std::vector<std::int32_t> token_ids;
    std::vector<Logprobs> logprobs;
    int events = 0;
    std::optional<Result<Completion>> end;
  };
  template <class T>
  T locked(T State::* member) const {
    const std::lock_guard lock(state_->mutex);
    return (*state_).*member;
  }
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

inline LanguagePrompt text_prompt(std::vector<std::int32_t> ids) {
  LanguagePrompt out;
  out.token_ids = std::move(ids);
  for (auto& axis : out.positions.position_ids)
    for (std::int32_t t = 0; t < out.size(); ++t) axis.push_back(t);
  return out;
}

// `prompt` tokens: all 3 but the last. Prompts of one number begin alike.
inline GenerationRequest numbered_request(std::int64_t prompt, std::int64_t max_tokens, std::int32_t last = 7) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(prompt), 3);
  ids.back() = last;
  GenerationRequest out;
  out.prompt = text_prompt(std::move(ids));
  out.max_tokens = max_tokens;
  return out;
}

inline std::shared_ptr<const Feature> feature_of(std::uint8_t name, std::int64_t rows, std::int64_t width,
                                                 float scale = 1) {
  auto out = std::make_shared<Feature>();
  out->meta.id.digest.bytes.fill(name);
  out->meta.grid_thw = {1, 2, 2 * rows};
  out->rows = Matrix(rows, width);
  std::mt19937 random(name);
  std::normal_distribution<float> value;
  std::generate_n(out->rows.data(), out->rows.size(), [&] { return scale * value(random); });
  return out;
}

// Qwen2-VL of two narrow layers, 64 tokens and 512 positions, with random weights.
class TinyModel {
 public:
  explicit TinyModel(std::unique_ptr<Ops> ops_in) : ops(std::move(ops_in)) {
    const TemporaryFolder folder;
    folder.write("config.json", toy_config().dump());
    const ModelConfig config = must(load_model_config(folder.path()));
    std::vector<OwnedTensor> tensors = toy_tensors(config, DType::kF32);
    std::mt19937 random(5);
    std::normal_distribution<float> value;
    for (OwnedTensor& tensor : tensors)
      for (std::size_t i = 0; i + 4 <= tensor.bytes.size(); i += 4) {
        const float weight = tensor.shape.size() == 1 ? 1 + 0.1F * value(random) : 0.3F * value(random);
        std::memcpy(tensor.bytes.data() + i, &weight, 4);
      }
    write_weights(folder.path() / "model.safetensors", tensors);
    model = must(load_language_model(must(Checkpoint::open(folder.path(), Role::kLanguage)), *ops));
  }

  std::uint64_t block_bytes() const {
    const KvShape one = model->kv_shape(1);
    return static_cast<std::uint64_t>(one.layers * one.kv_heads * one.head_dim * 2 * kKvBlock) * sizeof(float);
  }

  std::unique_ptr<Ops> ops;
  std::unique_ptr<const LanguageModel> model;
};

}  // namespace chiasm
