// What the tests of this folder share: where data lies, and a small tokenizer.json to break.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "base/json.h"
#include "text/tokenizer.h"

namespace chiasm::test {

inline std::filesystem::path source_dir() { return CHIASM_SOURCE_DIR; }

// The demo checkpoint's folder, which has the tokenizer and chat template that our vectors were made with.
inline std::filesystem::path toytown_dir() { return source_dir() / "models" / "toytown"; }

// Data that is not ours to commit; tests skip where it is absent.
inline std::filesystem::path shared_dir() {
  const char* set = std::getenv("CHIASM_SHARED");
  return set != nullptr ? std::filesystem::path(set) : source_dir() / ".." / "shared";
}

inline const Tokenizer& toytown() {
  static const Tokenizer tokenizer = [] {
    auto loaded = Tokenizer::load(toytown_dir());
    if (!loaded) {
      ADD_FAILURE() << loaded.error().message;
      std::abort();
    }
    return *std::move(loaded);
  }();
  return tokenizer;
}

template <class T>
T must(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message;
    std::abort();
  }
  return *std::move(result);
}

inline Json must_load(const std::filesystem::path& path) { return must(Json::load(path.string(), 64 << 20)); }

inline std::vector<std::int32_t> ids_of(JsonValue array) {
  std::vector<std::int32_t> out;
  for (const JsonValue id : must(array.elements())) out.push_back(static_cast<std::int32_t>(must(id.integer())));
  return out;
}

}  // namespace chiasm::test
