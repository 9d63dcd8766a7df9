// Arbitrary bytes as a JSON schema; where it compiles, a short text is written in the demo model's tokens, which must
// parse and end within its budget. The first byte chooses the tokens, the second the budget.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "grammar/json_schema.h"
#include "grammar/sequence_state.h"

namespace {

using chiasm::Tokenizer;

const Tokenizer& demo() {
  static const Tokenizer tokenizer = [] {
    auto loaded = Tokenizer::load(std::string(CHIASM_SOURCE_DIR) + "/models/toytown");
    if (!loaded) {
      std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
      std::abort();
    }
    return *std::move(loaded);
  }();
  return tokenizer;
}

// The `wanted`-th of the tokens allowed, counted around; -1: none is.
std::int32_t pick(const chiasm::TokenMask& mask, std::uint64_t wanted) {
  std::uint64_t count = 0;
  for (const std::uint64_t word : mask.words()) count += static_cast<std::uint64_t>(std::popcount(word));
  if (count == 0) return -1;
  wanted %= count;
  for (std::int32_t id = 0;; ++id)
    if (mask.test(id) && wanted-- == 0) return id;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  static const auto vocabulary = chiasm::ConstraintVocabulary::build(demo(), demo().size());
  const std::string_view schema(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto constraint = chiasm::json_schema_constraint(vocabulary, schema);
  if (!constraint) {
    CHECK(constraint.error().message.starts_with("schema"));
    CHECK(constraint.error().code == chiasm::Code::kInvalidArgument ||
          constraint.error().code == chiasm::Code::kUnimplemented);
    return 0;
  }
  const auto state = (*constraint)->start();
  const auto& inner = dynamic_cast<const chiasm::SequenceState&>(*state);
  const std::int64_t budget = data[1] % 64;
  if (inner.cost() > 200) return 0;
  chiasm::TokenMask mask(demo().size());
  std::string text;
  std::uint64_t random = data[0];
  for (std::int64_t used = 0; used < budget || !state->may_end(); ++used) {
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;
    if (state->may_end() && (random >> 60) == 0) break;
    const std::int64_t before = inner.cost();
    state->mask(budget - used, mask);
    const std::int32_t id = pick(mask, random >> 33);
    if (id < 0) break;
    state->accept(id);
    text += demo().token_bytes(id);
    CHECK(inner.cost() < budget - used || inner.cost() < before);
  }
  CHECK(state->may_end());
  CHECK(nlohmann::json::accept(text));
  return 0;
}
