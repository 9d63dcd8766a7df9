// For tests only: a config small enough to write out, and a checkpoint of its tensors.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/test_support.h"
#include "models/checkpoint.h"

namespace chiasm {

// A Qwen2-VL config with every field that the hub's files have.
inline nlohmann::json toy_config() {
  return nlohmann::json::parse(R"({
    "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "vision_start_token_id": 4, "vision_end_token_id": 5, "vision_token_id": 6,
    "image_token_id": 7, "video_token_id": 8, "hidden_act": "silu", "hidden_size": 24, "initializer_range": 0.02,
    "intermediate_size": 40, "max_position_embeddings": 512, "max_window_layers": 2, "num_attention_heads": 2,
    "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "sliding_window": 512, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.41.2",
    "use_cache": true, "use_sliding_window": false, "vocab_size": 64,
    "vision_config": {"depth": 3, "embed_dim": 16, "mlp_ratio": 4, "num_heads": 2, "in_chans": 3, "hidden_size": 24,
                      "patch_size": 4, "spatial_merge_size": 2, "spatial_patch_size": 4, "temporal_patch_size": 2},
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]}})");
}

// The same model as newer transformers write it.
inline nlohmann::json toy_config_nested() {
  return nlohmann::json::parse(R"({
    "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "dtype": "bfloat16",
    "vision_start_token_id": 4, "vision_end_token_id": 5, "vision_token_id": 6, "image_token_id": 7,
    "video_token_id": 8, "tie_word_embeddings": true, "transformers_version": "5.0.0",
    "text_config": {
      "model_type": "qwen2_vl_text", "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "dtype": "bfloat16",
      "hidden_act": "silu", "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 40,
      "layer_types": ["full_attention", "full_attention"], "max_position_embeddings": 512, "max_window_layers": 2,
      "num_attention_heads": 2, "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
      "rope_parameters": {"mrope_section": [2, 2, 2], "rope_theta": 10000.0, "rope_type": "default", "type": "default"},
      "sliding_window": null, "use_cache": true, "use_sliding_window": false, "vocab_size": 64},
    "vision_config": {"model_type": "qwen2_vl", "depth": 3, "embed_dim": 16, "hidden_act": "quick_gelu",
                      "hidden_size": 24, "in_chans": 3, "in_channels": 3, "initializer_range": 0.02, "mlp_ratio": 4,
                      "num_heads": 2, "patch_size": 4, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
                      "spatial_merge_size": 2, "spatial_patch_size": 4, "temporal_patch_size": 2}})");
}

// A tensor that owns its bytes.
struct OwnedTensor {
  std::string name;
  DType dtype = DType::kBF16;
  Shape shape;
  std::vector<std::byte> bytes;
};

// All tensors of a config, canonical names, with bytes that follow from name and place.
inline std::vector<OwnedTensor> toy_tensors(const ModelConfig& config, DType dtype = DType::kBF16) {
  std::vector<OwnedTensor> out;
  for (auto& list : {expected_vision_tensors(config.vision), expected_language_tensors(config.text)})
    for (const auto& [name, shape] : list) {
      OwnedTensor tensor{name, dtype, shape, std::vector<std::byte>(byte_count(shape, dtype).value())};
      std::uint64_t state = checksum_of(std::as_bytes(std::span(name)));
      for (std::byte& byte : tensor.bytes)
        byte = static_cast<std::byte>((state = state * 6364136223846793005U + 1) >> 56);
      out.push_back(std::move(tensor));
    }
  return out;
}

inline void write_weights(const std::filesystem::path& path, const std::vector<OwnedTensor>& tensors) {
  std::vector<NamedTensor> views;
  for (const OwnedTensor& tensor : tensors) views.push_back({tensor.name, {tensor.dtype, tensor.shape, tensor.bytes}});
  // Not write_safetensors: its fsync is for data that somebody will miss.
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << safetensors_header(views, {{"format", "pt"}}).value();
  for (const OwnedTensor& tensor : tensors)
    out.write(reinterpret_cast<const char*>(tensor.bytes.data()), static_cast<std::streamsize>(tensor.bytes.size()));
  out.close();
  CHECK(out.good());
}

// "visual.x" as "model.visual.x", "model.x" as "model.language_model.x".
inline std::string newer_name(const std::string& name) {
  if (name.starts_with("visual.")) return "model." + name;
  if (name.starts_with("model.")) return "model.language_model." + name.substr(6);
  return name;
}

}  // namespace chiasm
