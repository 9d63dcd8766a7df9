// What a stage costs at least: its arithmetic and the bytes that it must read, from the shapes alone.
#pragma once

#include <cstdint>

#include "models/config.h"

namespace chiasm::bench {

inline double d(std::int64_t value) { return static_cast<double>(value); }

// Patches of pictures that each attend to `segment` patches.
inline double vision_gflop(const VisionConfig& c, std::int64_t patches, std::int64_t segment) {
  const double p = d(patches), e = d(c.embed_dim), unit = d(c.merge_unit());
  const double block = 2 * p * e * (3 * e + e + 2 * d(c.intermediate_size)) + 4 * p * d(segment) * e;
  const double merger = 2 * p / unit * (unit * e * unit * e + unit * e * d(c.hidden_size));
  return 1e-9 * (2 * p * d(c.patch_width()) * e + d(c.depth) * block + merger);
}

// `tokens` new ones after `past`, logits of the last.
inline double language_gflop(const TextConfig& c, std::int64_t tokens, std::int64_t past) {
  const double h = d(c.hidden_size), q = d(c.num_attention_heads * c.head_dim()),
               kv = d(c.num_key_value_heads * c.head_dim());
  const double seen = d(tokens) * d(past) + d(tokens) * d(tokens + 1) / 2;
  const double layer = 2 * d(tokens) * h * (2 * q + 2 * kv + 3 * d(c.intermediate_size)) + 4 * seen * q;
  return 1e-9 * (d(c.num_hidden_layers) * layer + 2 * h * d(c.vocab_size));
}

// The layers' weights and the head in the checkpoint's two bytes, and the keys and values of `past` tokens in four.
inline double decode_gbytes(const TextConfig& c, std::int64_t past) {
  const double h = d(c.hidden_size), q = d(c.num_attention_heads * c.head_dim()),
               kv = d(c.num_key_value_heads * c.head_dim());
  const double weights =
      d(c.num_hidden_layers) * h * (2 * q + 2 * kv + 3 * d(c.intermediate_size)) + h * d(c.vocab_size);
  return 1e-9 * (2 * weights + 8 * d(c.num_hidden_layers) * kv * d(past));
}

}  // namespace chiasm::bench
