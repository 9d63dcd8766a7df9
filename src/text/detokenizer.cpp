#include "text/detokenizer.h"

#include <utility>

#include "text/utf8.h"

namespace chiasm {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, Special special) : tokenizer_(&tokenizer), special_(special) {}

std::string Detokenizer::push(std::int32_t id) {
  std::string out;
  if (special_ == Special::kSkip && tokenizer_->is_special(id)) return out;
  pending_ += tokenizer_->token_bytes(id);
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = next_utf8(rest);
    if (step.code == Utf8Step::kIncomplete) break;
    out += step.code < 0 ? kReplacementCharacter : rest.substr(0, step.length);
    rest.remove_prefix(step.length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return out;
}

std::string Detokenizer::finish() {
  // An incomplete character is one maximal ill-formed part.
  return std::exchange(pending_, {}).empty() ? std::string() : std::string(kReplacementCharacter);
}

std::string decode(const Tokenizer& tokenizer, std::span<const std::int32_t> ids, Detokenizer::Special special) {
  Detokenizer detokenizer(tokenizer, special);
  std::string out;
  for (const std::int32_t id : ids) out += detokenizer.push(id);
  return out + detokenizer.finish();
}

}  // namespace chiasm
