// The tensors that a config implies. Shapes are as PyTorch stores them: a linear layer is [outputs, inputs].
#include "models/checkpoint.h"

namespace chiasm {
namespace {

class List {
 public:
  void weight(std::string name, Shape shape) { out_.push_back({std::move(name), std::move(shape)}); }

  // NAME.weight [outputs, inputs] and NAME.bias [outputs].
  void linear(const std::string& name, std::int64_t outputs, std::int64_t inputs) {
    weight(name + ".weight", {outputs, inputs});
    weight(name + ".bias", {outputs});
  }

  // NAME.weight [width] and NAME.bias [width].
  void layer_norm(const std::string& name, std::int64_t width) {
    weight(name + ".weight", {width});
    weight(name + ".bias", {width});
  }

  std::vector<ExpectedTensor> take() { return std::move(out_); }

 private:
  std::vector<ExpectedTensor> out_;
};

}  // namespace

std::vector<ExpectedTensor> expected_vision_tensors(const VisionConfig& config) {
  List list;
  const std::int64_t width = config.embed_dim;
  const std::int64_t merged = width * config.merge_unit();
  list.weight("visual.patch_embed.proj.weight",
              {width, config.in_channels, config.temporal_patch_size, config.patch_size, config.patch_size});
  for (std::int64_t i = 0; i < config.depth; ++i) {
    const std::string block = fmt::format("visual.blocks.{}.", i);
    list.layer_norm(block + "norm1", width);
    list.linear(block + "attn.qkv", 3 * width, width);
    list.linear(block + "attn.proj", width, width);
    list.layer_norm(block + "norm2", width);
    list.linear(block + "mlp.fc1", config.intermediate_size, width);
    list.linear(block + "mlp.fc2", width, config.intermediate_size);
  }
  list.layer_norm("visual.merger.ln_q", width);
  list.linear("visual.merger.mlp.0", merged, merged);
  list.linear("visual.merger.mlp.2", config.hidden_size, merged);
  return list.take();
}

std::vector<ExpectedTensor> expected_language_tensors(const TextConfig& config) {
  List list;
  const std::int64_t width = config.hidden_size;
  const std::int64_t kv_width = config.head_dim() * config.num_key_value_heads;
  list.weight("model.embed_tokens.weight", {config.vocab_size, width});
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    list.weight(layer + "input_layernorm.weight", {width});
    list.linear(layer + "self_attn.q_proj", width, width);
    list.linear(layer + "self_attn.k_proj", kv_width, width);
    list.linear(layer + "self_attn.v_proj", kv_width, width);
    list.weight(layer + "self_attn.o_proj.weight", {width, width});
    list.weight(layer + "post_attention_layernorm.weight", {width});
    list.weight(layer + "mlp.gate_proj.weight", {config.intermediate_size, width});
    list.weight(layer + "mlp.up_proj.weight", {config.intermediate_size, width});
    list.weight(layer + "mlp.down_proj.weight", {width, config.intermediate_size});
  }
  list.weight("model.norm.weight", {width});
  if (!config.tie_word_embeddings) list.weight("lm_head.weight", {config.vocab_size, width});
  return list.take();
}

}  // namespace chiasm
