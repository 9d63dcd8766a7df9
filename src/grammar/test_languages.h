// The tokenizers that the tests of this folder write with.
#pragma once

#include <bit>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/test_support.h"
#include "grammar/token_constraint.h"

namespace chiasm::test {

struct Language {
  Tokenizer tokenizer;
  std::shared_ptr<const ConstraintVocabulary> vocabulary;
  std::int64_t size;

  std::int32_t byte_token(char byte) const { return *tokenizer.token_to_id(std::string_view(&byte, 1)); }
};

inline Language load_language(const std::filesystem::path& folder) {
  Tokenizer tokenizer = must(Tokenizer::load(folder));
  const std::int64_t size = tokenizer.size() + 100;  // embedding tables have more rows
  auto vocabulary = ConstraintVocabulary::build(tokenizer, size);
  return {std::move(tokenizer), std::move(vocabulary), size};
}

inline const Language& toytown() {
  static const Language language = load_language(toytown_dir());
  return language;
}

// Nothing where the published tokenizer is not at hand.
inline const Language* qwen2() {
  static const std::optional<Language> language =
      std::filesystem::exists(shared_dir() / "qwen2-tokenizer" / "tokenizer.json")
          ? std::optional(load_language(shared_dir() / "qwen2-tokenizer"))
          : std::nullopt;
  return language ? &*language : nullptr;
}

inline std::shared_ptr<const TokenConstraint> compile(const Language& language, const std::string& schema) {
  return must(json_schema_constraint(language.vocabulary, schema));
}

inline std::vector<std::int32_t> allowed(const TokenMask& mask) {
  std::vector<std::int32_t> out;
  for (std::size_t i = 0; i < mask.words().size(); ++i)
    for (std::uint64_t word = mask.words()[i]; word != 0; word &= word - 1)
      out.push_back(static_cast<std::int32_t>(64 * i) + std::countr_zero(word));
  return out;
}

}  // namespace chiasm::test
