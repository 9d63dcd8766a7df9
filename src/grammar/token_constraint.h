// Which tokens may come next so that the text stays a beginning of valid JSON of a schema, and can still be finished.
//
// A Vocabulary is built once for a tokenizer, a TokenConstraint once for a schema, a ConstraintState once for a
// sequence. Thread contract: ConstraintVocabulary and TokenConstraint are immutable; one thread a ConstraintState.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace chiasm {

// One bit a token.
class TokenMask {
 public:
  explicit TokenMask(std::int64_t size) : size_(size), words_(static_cast<std::size_t>((size + 63) / 64)) {}
  std::int64_t size() const { return size_; }
  bool test(std::int32_t id) const { return (words_[static_cast<std::size_t>(id) / 64] >> (id % 64) & 1) != 0; }
  void set(std::int32_t id) { words_[static_cast<std::size_t>(id) / 64] |= 1ULL << (id % 64); }
  void clear() { std::fill(words_.begin(), words_.end(), 0); }
  std::span<std::uint64_t> words() { return words_; }
  std::span<const std::uint64_t> words() const { return words_; }

 private:
  std::int64_t size_;
  std::vector<std::uint64_t> words_;
};

// The bytes of all ordinary tokens as a tree. `vocab_size` is the model's, at least the tokenizer's.
class ConstraintVocabulary {
 public:
  static std::shared_ptr<const ConstraintVocabulary> build(const Tokenizer& tokenizer, std::int64_t vocab_size);
  virtual ~ConstraintVocabulary() = default;
};

class ConstraintState {
 public:
  virtual ~ConstraintState() = default;

  // Sets the bits of the tokens that may come next when at most `remaining` tokens (the next one included, an end token
  // not) may still come: after each of them the text can be finished within what is left. Where even that is not
  // possible, the shortest way out is taken. `mask` has vocab_size bits and is cleared first. Nothing is set once
  // nothing may follow. End tokens are the caller's: they may come when may_end().
  virtual void mask(std::int64_t remaining, TokenMask& mask) = 0;
  virtual bool may_end() const = 0;
  // A token that the last mask() allowed.
  virtual void accept(std::int32_t id) = 0;
};

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  virtual std::unique_ptr<ConstraintState> start() const = 0;
};

// Any JSON object.
std::shared_ptr<const TokenConstraint> json_object_constraint(std::shared_ptr<const ConstraintVocabulary> vocabulary);

// What a JSON schema (2020-12, the subset in json_schema.h) allows. kUnimplemented names a keyword that is not
// supported and would have to be, kInvalidArgument what is wrong with the schema; both say where, as a JSON pointer.
Result<std::shared_ptr<const TokenConstraint>> json_schema_constraint(
    std::shared_ptr<const ConstraintVocabulary> vocabulary, std::string_view schema);

}  // namespace chiasm
