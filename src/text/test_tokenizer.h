// What the tests of this folder share: the demo checkpoint's tokenizer, which our vectors were made with.
#pragma once

#include "base/test_support.h"
#include "text/tokenizer.h"

namespace chiasm {

inline const Tokenizer& toytown_tokenizer() {
  static const Tokenizer tokenizer = must(Tokenizer::load(toytown_dir()));
  return tokenizer;
}

}  // namespace chiasm
