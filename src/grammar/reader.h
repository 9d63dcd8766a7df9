// Reads a text of a grammar byte by byte: all positions in the grammar at which it may be.
//
// A position is the innermost object, array or leaf and a link to what surrounds it; links are kept once, so positions
// compare by their bytes. What surrounds is stored as it will be when the inner value has ended. Thread contract: one
// thread a Reader.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/intern.h"

namespace chiasm {

struct Position {
  enum class Kind : std::uint8_t { kDone, kLeaf, kObject, kArray };
  enum class Phase : std::uint8_t {
    kOpen,   // '{' or '[' is expected
    kFirst,  // behind it
    kName,   // inside a declared name
    kColon,  // behind a name that is not declared
    kSpace,  // behind the colon
    kAfter,  // behind a member or an item
    kNext,   // behind a comma
  };
  static constexpr std::uint32_t kBottom = 0xFFFFFFFF;
  static constexpr std::uint32_t kAdditional = 0xFFFFFFFF;

  Kind kind = Kind::kDone;
  Phase phase = Phase::kOpen;
  std::uint8_t space = 0;  // white space since the last mark: 1 a space, 2 + n a line end and n spaces
  std::uint8_t padding = 0;
  std::uint32_t rule = 0;
  std::uint32_t below = kBottom;  // what surrounds this

  // kLeaf: the automaton's state, the characters so far (no more than what matters), the text of a name so far.
  // kObject: the next property that may come, the members so far, the list of names that are not declared.
  // kArray: the items so far (no more than what matters), 0, which of the distinct ones are used.
  std::uint32_t a = 0, b = 0, c = 0;

  // kName: `at` bytes of the name are read and fit the properties by_text[low, high). kSpace: `low` is the property.
  std::uint32_t low = 0, high = 0, at = 0;

  bool operator==(const Position&) const = default;
};

class Reader {
 public:
  using Positions = std::vector<Position>;

  Reader(const Grammar& grammar, const TokenTree& tokens);

  // Before the first byte.
  Positions start();
  // Appends where `byte` leads from `position`.
  void step(const Position& position, std::uint8_t byte, Positions& out);
  // Appends where the end of the leaf at `position` leads; `name` continues the member name that was read so far.
  void leave_leaf(const Position& position, std::string_view name, Positions& out);

  // At most so many tokens finish the text.
  std::int64_t cost(const Position& position) const;
  // What of it is left to be done when the position's innermost value has ended.
  std::int64_t cost_outside(const Position& position) const { return cost_below(position.below); }
  bool may_end(const Position& position) const;

  // For a position inside a member name that is not declared: whether it may not end with `more` behind it. And the
  // names that begin as the name does so far and are taken, without that beginning.
  bool is_taken(const Position& position, std::string_view more) const;
  std::vector<std::string> taken_endings(const Position& position) const;
  // Beyond cost(): the characters that a taken name needs to become a free one.
  std::int64_t slack_after(const Position& position, std::string_view more) const;

  const Leaf& leaf(const Position& position) const { return grammar_->leaves[position.rule]; }

  // Equal positions become one; of too many those that need the fewest tokens stay. The one that needs the fewest
  // always does, so what was promised of the text holds.
  void prune(Positions& positions) const;

  // What was stored since the mark is forgotten; positions made since must not be used any more.
  struct Mark {
    std::uint32_t frames = 0, texts = 0, names = 0;
  };
  Mark mark() const { return {frames_.size(), texts_.size(), names_.size()}; }
  void forget(const Mark& mark);

 private:
  using Kind = Position::Kind;
  using Phase = Position::Phase;

  struct Text {  // a name: its beginning and a byte
    std::uint32_t before = 0;
    std::uint32_t byte = 0;
  };
  struct Names {  // a list of names
    std::uint32_t before = 0;
    std::uint32_t text = 0;
    std::uint32_t count = 0;
  };

  std::uint32_t push(const Position& frame);
  std::uint32_t depth(std::uint32_t below) const { return below == Position::kBottom ? 0 : depths_[below]; }
  std::int64_t cost_below(std::uint32_t below) const { return below == Position::kBottom ? 0 : costs_[below]; }
  bool too_deep(std::uint32_t below) const { return depth(below) >= grammar_->max_depth; }

  void begin_value(ValueId value, std::uint32_t below, Positions& out) const;
  void end_value(std::uint32_t below, Positions& out) const;
  bool take_space(const Position& position, std::uint8_t byte, Positions& out) const;

  void step_leaf(const Position& position, std::uint8_t byte, Positions& out);
  bool count_character(const Leaf& leaf, Position& next, std::uint32_t from) const;
  void step_object(const Position& position, std::uint8_t byte, Positions& out);
  void begin_name(const Position& position, Positions& out);
  void step_name(Position position, std::uint8_t byte, Positions& out);
  void begin_member(const Position& frame, ValueId value, std::uint32_t property, Positions& out);
  bool may_come(const ObjectRule& rule, const Position& position, std::uint32_t property) const;
  bool may_add(const ObjectRule& rule, const Position& position) const;
  void step_array(const Position& position, std::uint8_t byte, Positions& out);
  void begin_item(const Position& position, Positions& out);
  bool has_item(const Position& position) const;

  std::int64_t object_cost(const Position& position) const;
  std::int64_t array_cost(const Position& position) const;
  std::int64_t leaf_cost(const Position& position) const;

  std::uint32_t find_text(std::uint32_t text, std::string_view more) const;
  std::uint32_t add_text(std::uint32_t text, std::string_view more);
  std::string text_of(std::uint32_t text) const;
  bool is_listed(std::uint32_t names, std::uint32_t text) const;

  const Grammar* grammar_;
  const TokenTree* tokens_;
  InternTable<Position> frames_;
  std::vector<std::int64_t> costs_;    // of a frame, with all that surrounds it
  std::vector<std::uint32_t> depths_;  // of a frame
  InternTable<Text> texts_;
  InternTable<Names> names_;
};

}  // namespace chiasm
