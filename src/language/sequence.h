// All state of one question on its way: its prompt, its KV blocks, what it has said so far.
//
// Thread contract: owned by one Engine::run.
#pragma once

#include <cstdint>
#include <vector>

#include "base/stopwatch.h"
#include "language/kv_blocks.h"
#include "language/prompt_assembly.h"
#include "language/sampler.h"

namespace chiasm {

enum class FinishReason : std::uint8_t { kStop, kLength };

struct Sequence {
  std::size_t request = 0;
  const LanguagePrompt* prompt = nullptr;
  std::vector<std::int32_t> block_table;
  std::vector<std::int32_t> token_ids;  // prompt and answer
  std::int64_t computed = 0;            // tokens whose keys and values are in the pool
  std::int64_t shared = 0;              // of these, how many another sequence computed
  std::vector<Logprobs> logprobs;       // one a generated token, when asked for
  double prefill_ms = 0, decode_ms = 0;

  std::int64_t prompt_size() const { return prompt->size(); }
  std::int64_t pending() const { return std::max<std::int64_t>(0, prompt_size() - computed); }
  std::int64_t generated() const { return static_cast<std::int64_t>(token_ids.size()) - prompt_size(); }

  // Blocks for tokens up to `size`.
  void grow(std::int64_t size, KvBlocks& blocks) {
    while (static_cast<std::int64_t>(block_table.size()) * kKvBlock < size) block_table.push_back(blocks.take());
  }
  void release(KvBlocks& blocks) {
    for (const std::int32_t block : block_table) blocks.give_back(block);
    block_table.clear();
  }
};

}  // namespace chiasm
