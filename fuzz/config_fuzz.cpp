// Any text is either refused or a config that model code can trust: what follows from it can be computed.
#include <cstdint>
#include <string_view>

#include "expect.h"
#include "models/checkpoint.h"
#include "models/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace chiasm;
  using fuzz::expect;
  const std::string_view text(reinterpret_cast<const char*>(data), size);

  ModelConfig config;
  config.text.vocab_size = 64;
  if (const auto parsed = parse_model_config(text, "config.json")) {
    config = *parsed;
    expect(config.vision.embed_dim % config.vision.num_heads == 0 && config.vision.head_dim() % 4 == 0);
    expect(config.text.head_dim() * config.text.num_attention_heads == config.text.hidden_size);
    expect(config.text.mrope_section[0] + config.text.mrope_section[1] + config.text.mrope_section[2] ==
           config.text.head_dim() / 2);
    expect(config.image_token_id >= 0 && config.image_token_id < config.text.vocab_size);
    expect(config.vision.hidden_size == config.text.hidden_size);
    for (const auto& list : {expected_vision_tensors(config.vision), expected_language_tensors(config.text)})
      for (const ExpectedTensor& tensor : list) {
        expect(byte_count(tensor.shape, DType::kF32).has_value());
        for (const std::int64_t dimension : tensor.shape) expect(dimension > 0);
      }
    (void)check_runnable(config, "config.json");
  }
  if (const auto parsed = parse_preprocessor_config(text, "preprocessor_config.json")) {
    expect(parsed->min_pixels <= parsed->max_pixels && parsed->patch_size > 0 && parsed->merge_size > 0);
    for (const double std : parsed->image_std) expect(std > 0);
    (void)parsed->digest();
    (void)check_agreement(config.vision, *parsed, "preprocessor_config.json");
  }
  (void)parse_processor_config(text, "processor_config.json");
  if (const auto parsed = parse_generation_config(text, "generation_config.json", config)) {
    for (const std::int64_t id : parsed->eos_token_id) expect(id >= 0 && id < config.text.vocab_size);
    expect(parsed->temperature >= 0 && parsed->top_p >= 0 && parsed->top_p <= 1 && parsed->repetition_penalty > 0);
  }
  return 0;
}
