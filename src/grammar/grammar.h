// What a schema comes to: values as alternatives of leaves, objects and arrays, each with the tokens it needs at least.
//
// json_schema.cpp fills one, reader.h walks it. Thread contract: immutable after finish_grammar().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "grammar/byte_automaton.h"
#include "grammar/token_tree.h"

namespace chiasm {

using ValueId = std::uint32_t;

// Upper bounds of tokens. Sums stop here.
inline constexpr std::int64_t kNever = std::int64_t{1} << 40;
inline std::int64_t add_cost(std::int64_t a, std::int64_t b) { return std::min(kNever, a + b); }
inline std::int64_t times_cost(std::int64_t count, std::int64_t cost) {
  return count == 0 ? 0 : cost >= kNever / count ? kNever : count * cost;
}

inline constexpr std::int64_t kUnlimited = std::int64_t{1} << 40;

// A string, a number or a literal.
struct Leaf {
  enum class Kind : std::uint8_t {
    kNarrow,  // a number or literals: few tokens fit
    kText,    // strings of an automaton of its own
    kString,  // TokenTree::any_string() with a length in code points
    kName,    // TokenTree::member_name(), which must not be one that the object has or may have
  };
  Kind kind = Kind::kNarrow;
  std::shared_ptr<const ByteAutomaton> automaton;
  std::int64_t min_length = 0, max_length = kUnlimited;

  bool counts() const { return min_length > 0 || max_length < kUnlimited; }
};

struct ObjectRule {
  struct Property {
    std::string name;
    ValueId value = 0;
    bool required = false;
    std::string text;                 // "\"name\":"
    std::vector<std::int64_t> costs;  // of the rest of `text` from each byte on
  };
  std::vector<Property> properties;  // in the order in which they are written
  std::optional<ValueId> additional;
  std::int64_t min_members = 0, max_members = kUnlimited;

  // finish_grammar() works these out.
  std::vector<std::uint32_t> by_text;        // properties by rising text
  std::vector<std::uint32_t> next_required;  // the first required property from i on, or the number of properties
  std::vector<std::uint32_t> required_from;  // how many from i on
  std::vector<std::int64_t> required_cost;   // those with a comma each, and the closing brace
  // [i][k]: what the k cheapest optional ones from i on need, a comma each, for minProperties.
  std::vector<std::int64_t> optional_cost;
  std::unordered_set<std::string> declared;  // names as they are written between the quotes, of dropped ones too

  std::uint32_t size() const { return static_cast<std::uint32_t>(properties.size()); }
  // So large may optional_cost become.
  static constexpr std::int64_t kMaxOptionalCosts = 200'000;
  std::int64_t optional_costs() const { return min_members == 0 ? 0 : (size() + 1) * (min_members + 1); }
};

struct ArrayRule {
  std::vector<ValueId> prefix;
  std::optional<ValueId> items;  // behind the prefix
  std::int64_t min_items = 0, max_items = kUnlimited;
  std::vector<ValueId> distinct;  // uniqueItems: the values there are, each at most once; then no prefix and no items

  // finish_grammar(): what the required items from i on need, a comma each, and the closing bracket, for i up to
  // the prefix's end.
  std::vector<std::int64_t> required_cost;
};

struct Alternative {
  enum class Kind : std::uint8_t { kLeaf, kObject, kArray };
  Kind kind = Kind::kLeaf;
  std::uint32_t index = 0;  // among the leaves, objects or arrays
  std::int64_t cost = kNever;
  bool operator==(const Alternative& other) const { return kind == other.kind && index == other.index; }
};

struct Value {
  std::vector<Alternative> alternatives;
  std::int64_t cost = kNever;
};

struct Grammar {
  std::vector<Value> values;
  std::vector<Leaf> leaves;
  std::vector<ObjectRule> objects;
  std::vector<ArrayRule> arrays;
  ValueId root = 0;
  std::uint32_t name_leaf = 0;  // a leaf of kind kName, for members that are not declared
  // Below this depth only what must be there is written, in its shortest form.
  std::uint32_t max_depth = 64;
};

// Of a string leaf of `length` characters so far, between two characters.
inline std::int64_t string_cost(const Leaf& leaf, std::int64_t length) {
  return std::max<std::int64_t>(0, leaf.min_length - length) + 1;
}

// So many names may be taken that this many more characters are needed to find a free one. Letters and digits are 62.
inline std::int64_t name_slack(std::int64_t taken) { return taken <= 0 ? 0 : taken < 62 ? 1 : taken < 62 * 62 ? 2 : 4; }

// Tokens of one more member with a name that is not declared, its comma included, when `taken` names are taken.
std::int64_t additional_cost(const Grammar& grammar, const ObjectRule& rule, std::int64_t taken);
// Tokens from behind a member on, `next` being the first property that may still come and `members` those there are.
std::int64_t rest_cost(const Grammar& grammar, const ObjectRule& rule, std::uint32_t next, std::int64_t members);
// Tokens from behind an item on; `used`: which of the distinct ones are gone.
std::int64_t rest_cost(const Grammar& grammar, const ArrayRule& rule, std::int64_t items, std::uint32_t used);

// Works out all costs, drops what no text can match, and fills in what the rules keep for the reader. False when the
// root matches nothing.
bool finish_grammar(Grammar& grammar, const TokenTree& tokens);

}  // namespace chiasm
