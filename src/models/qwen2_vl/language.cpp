#include "models/qwen2_vl/language.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"
#include "models/qwen2_vl/head_shares.h"
#include "models/qwen2_vl/rotary.h"
#include "models/qwen2_vl/weights.h"

namespace chiasm {
namespace {

constexpr std::int64_t kPiece = 512;  // rows of the MLP at a time; its hidden values are several times as wide

using Linear = std::unique_ptr<const Weight>;

struct Layer {
  Norm input_norm, post_norm;
  Linear qkv, o, gate_up, down;  // qkv: q, k and v beside each other; gate_up likewise
};

// The batch's sequences and blocks are the scheduler's: a mismatch is our own bug.
void check_sequences(std::span<const SequenceRows> sequences, std::int64_t tokens, const KvShape& pool) {
  std::int64_t rows = 0;
  for (const SequenceRows& sequence : sequences) {
    CHECK(sequence.past >= 0 && sequence.count >= 0);
    CHECK(static_cast<std::int64_t>(sequence.block_table.size()) * kKvBlock >= sequence.past + sequence.count);
    for (const std::int32_t block : sequence.block_table) CHECK(block >= 0 && block < pool.blocks);
    rows += sequence.count;
  }
  CHECK(rows == tokens);
}

class Qwen2VlLanguage final : public LanguageModel {
 public:
  static Result<std::unique_ptr<const LanguageModel>> load(const Checkpoint& checkpoint, const Ops& ops,
                                                           std::optional<Precision> precision,
                                                           const WeightCache* cache) {
    const TextConfig& config = checkpoint.config().text;
    ASSIGN_OR_RETURN(HeadShares heads,
                     head_shares(config.num_attention_heads, config.num_key_value_heads, ops.parts()));
    auto model = std::make_unique<Qwen2VlLanguage>(ops, config, std::move(heads));
    ASSIGN_OR_RETURN(const Precision chosen, checkpoint.precision(Role::kLanguage, precision));
    RETURN_IF_ERROR(model->load_weights(checkpoint, chosen, cache));
    return model;
  }

  Qwen2VlLanguage(const Ops& ops, const TextConfig& config, HeadShares heads)
      : ops_(ops),
        config_(config),
        head_shares_(std::move(heads.query)),
        kv_shares_(std::move(heads.kv)),
        hidden_shares_(even_shares(config.intermediate_size, ops.parts())) {}

  const TextConfig& config() const override { return config_; }
  std::uint64_t weight_bytes() const override { return weight_bytes_; }

  KvShape kv_shape(std::int64_t blocks) const override {
    return {
        .layers = config_.num_hidden_layers, .kv_heads = kv_heads(), .head_dim = config_.head_dim(), .blocks = blocks};
  }

  Result<Matrix> forward(const LanguageBatch& batch, KvPool& pool) const override {
    return forward(batch, pool, nullptr);
  }

  Result<Matrix> forward(const LanguageBatch& batch, KvPool& pool, const Probe& probe) const override {
    const auto wanted = static_cast<std::int64_t>(batch.logits_rows.size());
    ASSIGN_OR_RETURN(const Buffer logits, compute(batch, pool, probe));
    ASSIGN_OR_RETURN(Matrix out, Matrix::create(wanted, config_.vocab_size));
    RETURN_IF_ERROR(ops_.download(logits.view(), {out.data(), static_cast<std::size_t>(out.size())}));
    if (probe && wanted > 0) probe("logits", out.view());
    return out;
  }

  Status forward_greedy(const LanguageBatch& batch, KvPool& pool, std::span<std::int32_t> likeliest) const override {
    if (ops_.records() && decodes_only(batch)) return replay_decode(batch, pool, likeliest);
    ASSIGN_OR_RETURN(const Buffer logits, compute(batch, pool, nullptr));
    return ops_.argmax(logits.view(), likeliest);
  }

 private:
  // Reused by every layer.
  struct Scratch {
    Buffer normed;    // [T, hidden_size]
    Buffer qkv;       // [T, q_width + 2 * kv_width]
    Buffer attended;  // [T, q_width]
    Buffer gate_up;   // [piece, 2 * hidden_width]
  };

  // Logits of the rows that are wanted, [logits_rows.size(), vocab_size].
  Result<Buffer> compute(const LanguageBatch& batch, KvPool& pool, const Probe& probe) const {
    RETURN_IF_ERROR(check_batch(batch, pool));
    ASSIGN_OR_RETURN(Buffer x, inputs_embeds(batch));
    RETURN_IF_ERROR(show_stage(ops_, probe, "inputs_embeds", x.view()));
    {
      ASSIGN_OR_RETURN(const RotaryTable rotary, rotary_table(batch));
      ASSIGN_OR_RETURN(const auto step, ops_.make_step(batch.sequences, heads(), pool.shape()));
      ASSIGN_OR_RETURN(Scratch scratch, make_scratch(x.rows()));
      RETURN_IF_ERROR(layers(rotary.view(), *step, pool, scratch, x.view(), probe));
    }
    const auto wanted = static_cast<std::int64_t>(batch.logits_rows.size());
    ASSIGN_OR_RETURN(Buffer last, ops_.allocate(wanted, config_.hidden_size));
    ASSIGN_OR_RETURN(Buffer normed, ops_.allocate(wanted, config_.hidden_size, ops_.activations()));
    ASSIGN_OR_RETURN(Buffer logits, ops_.allocate(wanted, config_.vocab_size));
    if (wanted == 0) return logits;
    ops_.gather_rows(x.view(), batch.logits_rows, last.view());
    ops_.rms_norm(last.view(), final_norm_.weight.f32(), eps(), normed.view());
    RETURN_IF_ERROR(show_stage(ops_, probe, "norm", normed.view()));
    ops_.matmul(normed.view(), head(), {}, logits.view());
    return logits;
  }

  const Weight& head() const { return lm_head_ == nullptr ? *embed_tokens_ : *lm_head_; }

  Status layers(const RopeTable& rotary, const StepRows& step, KvPool& pool, Scratch& scratch, View x,
                const Probe& probe) const {
    for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
      const Layer& layer = layers_[static_cast<std::size_t>(i)];
      attend(layer, i, rotary, step, pool, scratch, x);
      transform(layer, scratch, x);
      RETURN_IF_ERROR(show_stage(ops_, probe, "layer." + std::to_string(i), x));
    }
    return {};
  }

  // Decode steps of so many sequences, recorded: everything they use, at places that stay.
  struct Decode {
    Buffer x, logits;
    RotaryTable rotary;
    Scratch scratch;
    std::unique_ptr<const StepRows> step;
    std::unique_ptr<const Recording> recording;
  };
  struct Decodes final : KvCompanion {
    std::map<std::int64_t, Decode> by_sequences;
  };
  static constexpr std::size_t kMostDecodes = 64;  // numbers of sequences that are remembered

  static bool decodes_only(const LanguageBatch& batch) {
    if (!batch.splices.empty() || batch.sequences.empty()) return false;
    if (batch.logits_rows.size() != batch.sequences.size()) return false;
    for (std::size_t i = 0; i < batch.sequences.size(); ++i)
      if (batch.sequences[i].count != 1 || batch.logits_rows[i] != static_cast<std::int32_t>(i)) return false;
    return true;
  }

  Status replay_decode(const LanguageBatch& batch, KvPool& pool, std::span<std::int32_t> likeliest) const {
    RETURN_IF_ERROR(check_batch(batch, pool));
    if (pool.companion() == nullptr) pool.companion() = std::make_unique<Decodes>();
    auto& decodes = static_cast<Decodes&>(*pool.companion()).by_sequences;
    const auto count = static_cast<std::int64_t>(batch.sequences.size());
    if (decodes.size() >= kMostDecodes && !decodes.contains(count)) decodes.clear();
    Decode& decode = decodes[count];
    if (decode.x.rows() == 0) {
      ASSIGN_OR_RETURN(decode.scratch, make_scratch(count));
      ASSIGN_OR_RETURN(decode.logits, ops_.allocate(count, config_.vocab_size));
      ASSIGN_OR_RETURN(decode.rotary.cos, ops_.allocate(count, config_.head_dim() / 2));
      ASSIGN_OR_RETURN(decode.rotary.sin, ops_.allocate(count, config_.head_dim() / 2));
      ASSIGN_OR_RETURN(decode.x, ops_.allocate(count, config_.hidden_size));
    }
    const StepTokens tokens{batch.token_ids, angles(batch)};
    ASSIGN_OR_RETURN(const bool holds, ops_.renew_step(batch.sequences, tokens, heads(), pool.shape(), decode.step));
    if (!holds || decode.recording == nullptr) {
      decode.recording = nullptr;
      ASSIGN_OR_RETURN(decode.recording, ops_.record([&] {
        ops_.begin_step(*decode.step, *embed_tokens_, decode.x.view(), decode.rotary.cos.view(),
                        decode.rotary.sin.view());
        (void)layers(decode.rotary.view(), *decode.step, pool, decode.scratch, decode.x.view(), nullptr);
        ops_.norm_matmul(decode.x.view(), final_norm_.weight.f32(), eps(), decode.scratch.normed.view(), head(), {},
                         decode.logits.view());
        ops_.end_step(decode.logits.view(), *decode.step);
      }));
    }
    ops_.replay(*decode.recording);
    return ops_.likeliest(*decode.step, likeliest);
  }

  float eps() const { return static_cast<float>(config_.rms_norm_eps); }
  // Of a part of the Ops.
  std::int64_t kv_heads() const { return kv_shares_.width; }
  std::int64_t heads() const { return head_shares_.width; }
  std::int64_t q_width() const { return heads() * config_.head_dim(); }
  std::int64_t kv_width() const { return kv_heads() * config_.head_dim(); }
  std::int64_t hidden_width() const { return hidden_shares_.width; }

  Status load_weights(const Checkpoint& checkpoint, Precision precision, const WeightCache* cache) {
    if (config_.hidden_act != "silu") {
      return fail(Code::kUnimplemented, "hidden_act: expected 'silu', got '{}'", config_.hidden_act);
    }
    const auto& section = config_.mrope_section;
    if (std::accumulate(section.begin(), section.end(), std::int64_t{0}) * 2 != config_.head_dim()) {
      return fail(Code::kInvalidArgument, "mrope_section: expected numbers that sum to {}, got [{}, {}, {}]",
                  config_.head_dim() / 2, section[0], section[1], section[2]);
    }
    frequencies_ = inverse_frequencies(config_.rope_theta, config_.head_dim());
    for (std::int32_t a = 0; a < 3; ++a)
      axis_.insert(axis_.end(), static_cast<std::size_t>(section[static_cast<std::size_t>(a)]), a);
    WeightLoader loader(checkpoint, ops_, Role::kLanguage, precision, cache);
    const std::int64_t width = config_.hidden_size, hidden = config_.intermediate_size, head_dim = config_.head_dim();
    const std::int64_t q_all = config_.num_attention_heads * head_dim, kv_all = config_.num_key_value_heads * head_dim;
    const Shares q_rows = scaled(head_shares_, head_dim), kv_rows = scaled(kv_shares_, head_dim);
    ASSIGN_OR_RETURN(embed_tokens_, loader.table("model.embed_tokens", config_.vocab_size, width));
    for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      Layer layer;
      ASSIGN_OR_RETURN(layer.input_norm, loader.norm(prefix + "input_layernorm", width, false));
      ASSIGN_OR_RETURN(layer.qkv, loader.linear({{prefix + "self_attn.q_proj", q_all},
                                                 {prefix + "self_attn.k_proj", kv_all},
                                                 {prefix + "self_attn.v_proj", kv_all}},
                                                width, true, {Split::Kind::kOutputs, {q_rows, kv_rows, kv_rows}}));
      ASSIGN_OR_RETURN(layer.o, loader.linear({{prefix + "self_attn.o_proj", width}}, q_all, false,
                                              {Split::Kind::kInputs, {q_rows}}));
      ASSIGN_OR_RETURN(layer.post_norm, loader.norm(prefix + "post_attention_layernorm", width, false));
      ASSIGN_OR_RETURN(layer.gate_up,
                       loader.linear({{prefix + "mlp.gate_proj", hidden}, {prefix + "mlp.up_proj", hidden}}, width,
                                     false, {Split::Kind::kOutputs, {hidden_shares_, hidden_shares_}}));
      ASSIGN_OR_RETURN(layer.down,
                       loader.down(prefix + "mlp.down_proj", width, hidden, {Split::Kind::kInputs, {hidden_shares_}}));
      layers_.push_back(std::move(layer));
    }
    ASSIGN_OR_RETURN(final_norm_, loader.norm("model.norm", width, false));
    // What is looked up stands everywhere, what is multiplied is divided: two of them, even where they are tied.
    if (!config_.tie_word_embeddings || ops_.parts() > 1) {
      const char* const name = config_.tie_word_embeddings ? "model.embed_tokens" : "lm_head";
      ASSIGN_OR_RETURN(lm_head_, loader.table(name, config_.vocab_size, width, {Split::Kind::kJoined, {}}));
    }
    loader.finish();
    weight_bytes_ = loader.bytes();
    return {};
  }

  Status check_batch(const LanguageBatch& batch, const KvPool& pool) const {
    const auto tokens = static_cast<std::int64_t>(batch.token_ids.size());
    if (tokens == 0) return fail(Code::kInvalidArgument, "token_ids: expected 1 or more, got none");
    for (const std::int32_t id : batch.token_ids) {
      if (id < 0 || id >= config_.vocab_size) {
        return fail(Code::kInvalidArgument, "token_ids: expected 0 to {}, got {}", config_.vocab_size - 1, id);
      }
    }
    for (const auto& ids : batch.position_ids) {
      if (static_cast<std::int64_t>(ids.size()) != tokens) {
        return fail(Code::kInvalidArgument, "position_ids: expected [3, {}], got a row of {}", tokens, ids.size());
      }
      const auto lowest = std::min_element(ids.begin(), ids.end());
      if (*lowest < 0) return fail(Code::kInvalidArgument, "position_ids: expected 0 or more, got {}", *lowest);
    }
    for (const Splice& splice : batch.splices) {
      if (splice.features.cols != config_.hidden_size) {
        return fail(Code::kInvalidArgument, "image_embeds: expected rows of {} values, got {}", config_.hidden_size,
                    splice.features.cols);
      }
      if (splice.row < 0 || splice.features.rows < 0 || splice.row > tokens ||
          splice.features.rows > tokens - splice.row) {
        return fail(Code::kInvalidArgument, "image_embeds: {} rows from row {} do not fit a batch of {} tokens",
                    splice.features.rows, splice.row, tokens);
      }
    }
    for (const std::int32_t row : batch.logits_rows) CHECK(row >= 0 && row < tokens);
    const KvShape expected = kv_shape(pool.shape().blocks);
    CHECK(pool.shape().layers == expected.layers && pool.shape().kv_heads == expected.kv_heads);
    CHECK(pool.shape().head_dim == expected.head_dim);
    check_sequences(batch.sequences, tokens, expected);
    return {};
  }

  Result<Buffer> inputs_embeds(const LanguageBatch& batch) const {
    ASSIGN_OR_RETURN(Buffer x, ops_.allocate(static_cast<std::int64_t>(batch.token_ids.size()), config_.hidden_size));
    ops_.embed(batch.token_ids, *embed_tokens_, x.view());
    for (const Splice& splice : batch.splices)
      upload_rows(ops_, splice.features, x.view().row_range(splice.row, splice.features.rows));
    return x;
  }

  // M-RoPE (arXiv 2409.12191, section 2.1): the first mrope_section[0] pairs turn with time, the next with height, the
  // last with width.
  Result<RotaryTable> rotary_table(const LanguageBatch& batch) const {
    const auto rows = static_cast<std::int64_t>(batch.token_ids.size());
    RotaryTable out;
    ASSIGN_OR_RETURN(out.cos, ops_.allocate(rows, config_.head_dim() / 2));
    ASSIGN_OR_RETURN(out.sin, ops_.allocate(rows, config_.head_dim() / 2));
    ops_.rope_table(angles(batch), out.cos.view(), out.sin.view());
    return out;
  }

  RopeAngles angles(const LanguageBatch& batch) const { return {batch.position_ids, axis_, frequencies_}; }

  // Rows of a piece that wide intermediate values are cut into.
  std::int64_t piece() const { return std::max(kPiece, ops_.filling_rows()); }

  Result<Scratch> make_scratch(std::int64_t tokens) const {
    const DType dtype = ops_.activations();
    Scratch scratch;
    ASSIGN_OR_RETURN(scratch.normed, ops_.allocate(tokens, config_.hidden_size, dtype));
    ASSIGN_OR_RETURN(scratch.qkv, ops_.allocate(tokens, q_width() + 2 * kv_width(), dtype));
    ASSIGN_OR_RETURN(scratch.attended, ops_.allocate(tokens, q_width(), dtype));
    ASSIGN_OR_RETURN(scratch.gate_up, ops_.allocate(std::min(tokens, piece()), 2 * hidden_width(), dtype));
    return scratch;
  }

  // x += o(attention(input_norm(x))) over what the pool holds of each sequence and these rows
  void attend(const Layer& layer, std::int64_t index, const RopeTable& rotary, const StepRows& step, KvPool& pool,
              Scratch& scratch, View x) const {
    const View qkv = scratch.qkv.view(), attended = scratch.attended.view();
    const float scale = 1 / std::sqrt(static_cast<float>(config_.head_dim()));
    ops_.norm_matmul(x, layer.input_norm.weight.f32(), eps(), scratch.normed.view(), *layer.qkv, {}, qkv);
    ops_.step_attention(qkv, heads(), rotary, scale, step, index, pool, attended);
    ops_.matmul(attended, *layer.o, {.add_to_out = true}, x);
  }

  // x += down(silu(gate(post_norm(x))) * up(post_norm(x)))
  void transform(const Layer& layer, Scratch& scratch, View x) const {
    in_pieces(x.rows, piece(), [&](std::int64_t begin, std::int64_t count) {
      const View rows = x.row_range(begin, count), normed = scratch.normed.view().row_range(0, count);
      const View gate_up = scratch.gate_up.view().row_range(0, count);
      ops_.norm_matmul(rows, layer.post_norm.weight.f32(), eps(), normed, *layer.gate_up, {.gated = true}, gate_up);
      ops_.matmul(gate_up.col_range(0, hidden_width()), *layer.down, {.add_to_out = true}, rows);
    });
  }

  const Ops& ops_;
  TextConfig config_;
  const Shares head_shares_, kv_shares_, hidden_shares_;  // of the parts of the Ops
  Linear embed_tokens_, lm_head_;                         // lm_head_ only where it is not the same
  std::vector<Layer> layers_;
  Norm final_norm_;
  std::vector<std::int32_t> axis_;  // of each pair of a head
  std::vector<float> frequencies_;  // likewise
  std::uint64_t weight_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<const LanguageModel>> load_qwen2_vl_language(const Checkpoint& checkpoint, const Ops& ops,
                                                                    std::optional<Precision> precision,
                                                                    const WeightCache* cache) {
  return Qwen2VlLanguage::load(checkpoint, ops, precision, cache);
}

}  // namespace chiasm
