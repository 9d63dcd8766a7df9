#include "models/qwen2_vl/language.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "base/check.h"
#include "models/qwen2_vl/rotary.h"
#include "models/qwen2_vl/weights.h"

namespace chiasm {
namespace {

constexpr std::int64_t kPiece = 512;  // rows of the MLP at a time; its hidden values are several times as wide

struct Layer {
  Norm input_norm, post_norm;
  Linear q, k, v, o, gate, up, down;
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
  static Result<std::unique_ptr<const LanguageModel>> load(const Checkpoint& checkpoint, const Ops& ops) {
    auto model = std::make_unique<Qwen2VlLanguage>(ops, checkpoint.config().text);
    RETURN_IF_ERROR(model->load_weights(checkpoint));
    return model;
  }

  Qwen2VlLanguage(const Ops& ops, const TextConfig& config) : ops_(ops), config_(config) {}

  const TextConfig& config() const override { return config_; }
  std::uint64_t weight_bytes() const override { return weight_bytes_; }

  KvShape kv_shape(std::int64_t blocks) const override {
    return {.layers = config_.num_hidden_layers,
            .kv_heads = config_.num_key_value_heads,
            .head_dim = config_.head_dim(),
            .blocks = blocks};
  }

  Result<Matrix> forward(const LanguageBatch& batch, KvPool& pool) const override {
    return forward(batch, pool, nullptr);
  }

  Result<Matrix> forward(const LanguageBatch& batch, KvPool& pool, const Probe& probe) const override {
    RETURN_IF_ERROR(check_batch(batch, pool));
    const auto show = [&](const std::string& stage, ConstMatrixView value) {
      if (probe) probe(stage, value);
    };
    ASSIGN_OR_RETURN(Matrix x, inputs_embeds(batch));
    show("inputs_embeds", x.view());
    {
      ASSIGN_OR_RETURN(const RotaryTable rotary, rotary_table(batch));
      ASSIGN_OR_RETURN(Scratch scratch, make_scratch(x.rows()));
      for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
        const Layer& layer = layers_[static_cast<std::size_t>(i)];
        attend(layer, i, rotary.view(), batch.sequences, pool, scratch, x.view());
        transform(layer, scratch, x.view());
        show("layer." + std::to_string(i), x.view());
      }
    }
    const auto wanted = static_cast<std::int64_t>(batch.logits_rows.size());
    ASSIGN_OR_RETURN(Matrix last, ops_.allocate(wanted, config_.hidden_size));
    ASSIGN_OR_RETURN(Matrix logits, ops_.allocate(wanted, config_.vocab_size));
    if (wanted == 0) return logits;
    ops_.gather_rows(x.view(), batch.logits_rows, last.view());
    ops_.rms_norm(last.view(), final_norm_.weight.data(), eps(), last.view());
    show("norm", last.view());
    const Linear& head = config_.tie_word_embeddings ? embed_tokens_ : lm_head_;
    ops_.matmul(last.view(), *head.weight, head.epilogue(), logits.view());
    show("logits", logits.view());
    return logits;
  }

 private:
  // Reused by every layer.
  struct Scratch {
    Matrix normed;    // [T, hidden_size]
    Matrix q;         // [T, heads * head_dim]
    Matrix k, v;      // [T, kv_heads * head_dim]
    Matrix attended;  // [T, heads * head_dim]
    Matrix gate, up;  // [piece, intermediate_size]
  };

  float eps() const { return static_cast<float>(config_.rms_norm_eps); }
  std::int64_t q_width() const { return config_.num_attention_heads * config_.head_dim(); }
  std::int64_t kv_width() const { return config_.num_key_value_heads * config_.head_dim(); }

  Status load_weights(const Checkpoint& checkpoint) {
    if (config_.hidden_act != "silu") {
      return fail(Code::kUnimplemented, "hidden_act: expected 'silu', got '{}'", config_.hidden_act);
    }
    const auto& section = config_.mrope_section;
    if (std::accumulate(section.begin(), section.end(), std::int64_t{0}) * 2 != config_.head_dim()) {
      return fail(Code::kInvalidArgument, "mrope_section: expected numbers that sum to {}, got [{}, {}, {}]",
                  config_.head_dim() / 2, section[0], section[1], section[2]);
    }
    WeightLoader loader(checkpoint, ops_);
    const std::int64_t width = config_.hidden_size, hidden = config_.intermediate_size;
    ASSIGN_OR_RETURN(embed_tokens_, loader.linear("model.embed_tokens", config_.vocab_size, width, false));
    for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      Layer layer;
      ASSIGN_OR_RETURN(layer.input_norm, loader.norm(prefix + "input_layernorm", width, false));
      ASSIGN_OR_RETURN(layer.q, loader.linear(prefix + "self_attn.q_proj", q_width(), width, true));
      ASSIGN_OR_RETURN(layer.k, loader.linear(prefix + "self_attn.k_proj", kv_width(), width, true));
      ASSIGN_OR_RETURN(layer.v, loader.linear(prefix + "self_attn.v_proj", kv_width(), width, true));
      ASSIGN_OR_RETURN(layer.o, loader.linear(prefix + "self_attn.o_proj", width, q_width(), false));
      ASSIGN_OR_RETURN(layer.post_norm, loader.norm(prefix + "post_attention_layernorm", width, false));
      ASSIGN_OR_RETURN(layer.gate, loader.linear(prefix + "mlp.gate_proj", hidden, width, false));
      ASSIGN_OR_RETURN(layer.up, loader.linear(prefix + "mlp.up_proj", hidden, width, false));
      ASSIGN_OR_RETURN(layer.down, loader.linear(prefix + "mlp.down_proj", width, hidden, false));
      layers_.push_back(std::move(layer));
    }
    ASSIGN_OR_RETURN(final_norm_, loader.norm("model.norm", width, false));
    if (!config_.tie_word_embeddings) {
      ASSIGN_OR_RETURN(lm_head_, loader.linear("lm_head", config_.vocab_size, width, false));
    }
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

  Result<Matrix> inputs_embeds(const LanguageBatch& batch) const {
    ASSIGN_OR_RETURN(Matrix x, ops_.allocate(static_cast<std::int64_t>(batch.token_ids.size()), config_.hidden_size));
    ops_.embed(batch.token_ids, *embed_tokens_.weight, x.view());
    for (const Splice& splice : batch.splices) {
      std::vector<std::int32_t> rows(static_cast<std::size_t>(splice.features.rows));
      std::iota(rows.begin(), rows.end(), static_cast<std::int32_t>(splice.row));
      ops_.scatter_rows(splice.features, rows, x.view());
    }
    return x;
  }

  // M-RoPE (arXiv 2409.12191, section 2.1): the first mrope_section[0] pairs turn with time, the next with height, the
  // last with width.
  Result<RotaryTable> rotary_table(const LanguageBatch& batch) const {
    const std::int64_t pairs = config_.head_dim() / 2;
    const std::vector<float> frequencies = inverse_frequencies(config_.rope_theta, config_.head_dim());
    std::vector<std::size_t> axis;  // of each pair
    for (std::size_t a = 0; a < 3; ++a) axis.insert(axis.end(), static_cast<std::size_t>(config_.mrope_section[a]), a);
    return make_rotary_table(ops_, static_cast<std::int64_t>(batch.token_ids.size()), pairs,
                             [&](std::int64_t row, std::int64_t pair) {
                               const auto p = static_cast<std::size_t>(pair);
                               const std::int32_t position = batch.position_ids[axis[p]][static_cast<std::size_t>(row)];
                               return static_cast<float>(position) * frequencies[p];
                             });
  }

  Result<Scratch> make_scratch(std::int64_t tokens) const {
    const std::int64_t piece = std::min(tokens, kPiece);
    Scratch scratch;
    ASSIGN_OR_RETURN(scratch.normed, ops_.allocate(tokens, config_.hidden_size));
    ASSIGN_OR_RETURN(scratch.q, ops_.allocate(tokens, q_width()));
    ASSIGN_OR_RETURN(scratch.k, ops_.allocate(tokens, kv_width()));
    ASSIGN_OR_RETURN(scratch.v, ops_.allocate(tokens, kv_width()));
    ASSIGN_OR_RETURN(scratch.attended, ops_.allocate(tokens, q_width()));
    ASSIGN_OR_RETURN(scratch.gate, ops_.allocate(piece, config_.intermediate_size));
    ASSIGN_OR_RETURN(scratch.up, ops_.allocate(piece, config_.intermediate_size));
    return scratch;
  }

  // x += o(attention(input_norm(x))) over what the pool holds of each sequence and these rows
  void attend(const Layer& layer, std::int64_t index, const RopeTable& rotary, std::span<const SequenceRows> sequences,
              KvPool& pool, Scratch& scratch, MatrixView x) const {
    ops_.rms_norm(x, layer.input_norm.weight.data(), eps(), scratch.normed.view());
    ops_.matmul(scratch.normed.view(), *layer.q.weight, layer.q.epilogue(), scratch.q.view());
    ops_.matmul(scratch.normed.view(), *layer.k.weight, layer.k.epilogue(), scratch.k.view());
    ops_.matmul(scratch.normed.view(), *layer.v.weight, layer.v.epilogue(), scratch.v.view());
    ops_.rope(scratch.q.view(), config_.num_attention_heads, rotary);
    ops_.rope(scratch.k.view(), config_.num_key_value_heads, rotary);
    ops_.kv_write(scratch.k.view(), scratch.v.view(), sequences, index, pool);
    const float scale = 1 / std::sqrt(static_cast<float>(config_.head_dim()));
    ops_.paged_attention(scratch.q.view(), config_.num_attention_heads, scale, sequences, index, pool,
                         scratch.attended.view());
    ops_.matmul(scratch.attended.view(), *layer.o.weight, layer.o.epilogue(Activation::kNone, true), x);
  }

  // x += down(silu(gate(post_norm(x))) * up(post_norm(x)))
  void transform(const Layer& layer, Scratch& scratch, MatrixView x) const {
    in_pieces(x.rows, kPiece, [&](std::int64_t begin, std::int64_t count) {
      const MatrixView rows = x.row_range(begin, count);
      const MatrixView normed = scratch.normed.view().row_range(0, count);
      const MatrixView gate = scratch.gate.view().row_range(0, count), up = scratch.up.view().row_range(0, count);
      ops_.rms_norm(rows, layer.post_norm.weight.data(), eps(), normed);
      ops_.matmul(normed, *layer.gate.weight, layer.gate.epilogue(), gate);
      ops_.matmul(normed, *layer.up.weight, layer.up.epilogue(), up);
      ops_.silu_mul(gate, up, gate);
      ops_.matmul(gate, *layer.down.weight, layer.down.epilogue(Activation::kNone, true), rows);
    });
  }

  const Ops& ops_;
  TextConfig config_;
  Linear embed_tokens_, lm_head_;  // lm_head_ only where it is not tied
  std::vector<Layer> layers_;
  Norm final_norm_;
  std::uint64_t weight_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<const LanguageModel>> load_qwen2_vl_language(const Checkpoint& checkpoint, const Ops& ops) {
  return Qwen2VlLanguage::load(checkpoint, ops);
}

}  // namespace chiasm
