#include "grammar/reader.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "grammar/json_text.h"

namespace chiasm {

namespace {

constexpr std::uint32_t kNoText = 0;
// Ambiguous schemas lead to many positions; a mask costs a walk over the tokens for each, a long one inside a string.
constexpr std::size_t kMaxPositions = 1024;
constexpr std::size_t kMaxStrings = 32;
constexpr std::uint32_t kMaxIndent = 64;  // at most this, and four a level
constexpr std::string_view kLettersAndDigits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

}  // namespace

Reader::Reader(const Grammar& grammar, const TokenTree& tokens) : grammar_(&grammar), tokens_(&tokens) {
  texts_.add({InternTable<Text>::kAbsent, 0});
  names_.add({});
}

Reader::Positions Reader::start() {
  Positions out;
  begin_value(grammar_->root, Position::kBottom, out);
  return out;
}

void Reader::forget(const Mark& mark) {
  frames_.shrink(mark.frames);
  costs_.resize(mark.frames);
  depths_.resize(mark.frames);
  texts_.shrink(mark.texts);
  names_.shrink(mark.names);
}

std::uint32_t Reader::push(const Position& frame) {
  const std::uint32_t id = frames_.add(frame);
  if (id == costs_.size()) {
    costs_.push_back(cost(frame));
    depths_.push_back(depth(frame.below) + 1);
  }
  return id;
}

void Reader::step(const Position& position, std::uint8_t byte, Positions& out) {
  switch (position.kind) {
    case Kind::kDone: break;
    case Kind::kLeaf: step_leaf(position, byte, out); break;
    case Kind::kObject: step_object(position, byte, out); break;
    case Kind::kArray: step_array(position, byte, out); break;
  }
}

void Reader::begin_value(ValueId id, std::uint32_t below, Positions& out) const {
  const Value& value = grammar_->values[id];
  const bool shortest = too_deep(below);
  for (const Alternative& alternative : value.alternatives) {
    Position position{.rule = alternative.index, .below = below};
    switch (alternative.kind) {
      case Alternative::Kind::kLeaf: position.kind = Kind::kLeaf; break;
      case Alternative::Kind::kObject: position.kind = Kind::kObject; break;
      case Alternative::Kind::kArray: position.kind = Kind::kArray; break;
    }
    if (shortest && position.kind != Kind::kLeaf && alternative.cost != value.cost) continue;
    out.push_back(position);
  }
}

void Reader::end_value(std::uint32_t below, Positions& out) const {
  out.push_back(below == Position::kBottom ? Position{} : frames_[below]);
}

bool Reader::take_space(const Position& position, std::uint8_t byte, Positions& out) const {
  Position next = position;
  if (position.space == 0 && byte == ' ') {
    next.space = 1;
  } else if (position.space == 0 && byte == '\n') {
    next.space = 2;
  } else if (position.space >= 2 && (byte == ' ' || byte == '\t') &&
             position.space - 2U < std::min(kMaxIndent, 4 * (depth(position.below) + 1))) {
    ++next.space;
  } else {
    return false;
  }
  out.push_back(next);
  return true;
}

void Reader::prune(Positions& positions) const {
  if (positions.size() < 2) return;
  if (positions.size() <= 16) {
    for (std::size_t i = 1; i < positions.size();) {
      const auto end = positions.begin() + static_cast<std::ptrdiff_t>(i);
      if (std::find(positions.begin(), end, positions[i]) != end)
        positions.erase(end);
      else
        ++i;
    }
  } else {
    std::sort(positions.begin(), positions.end(),
              [](const Position& a, const Position& b) { return std::memcmp(&a, &b, sizeof(a)) < 0; });
    positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
  }
  const auto in_string = [&](const Position& position) {
    return position.kind == Kind::kLeaf && leaf(position).kind != Leaf::Kind::kNarrow;
  };
  const auto strings = static_cast<std::size_t>(std::count_if(positions.begin(), positions.end(), in_string));
  if (positions.size() <= kMaxPositions && strings <= kMaxStrings) return;
  std::vector<std::pair<std::int64_t, std::size_t>> order;
  for (std::size_t i = 0; i < positions.size(); ++i) order.emplace_back(cost(positions[i]), i);
  std::sort(order.begin(), order.end());
  Positions kept;
  std::size_t kept_strings = 0;
  for (const auto& [cost, i] : order) {
    if (in_string(positions[i]) && ++kept_strings > kMaxStrings) continue;
    if (kept.size() < kMaxPositions) kept.push_back(positions[i]);
  }
  positions = std::move(kept);
}

bool Reader::may_end(const Position& position) const {
  return position.kind == Kind::kDone || (position.kind == Kind::kLeaf && position.below == Position::kBottom &&
                                          leaf(position).automaton->accepts(position.a));
}

std::int64_t Reader::cost(const Position& position) const {
  switch (position.kind) {
    case Kind::kDone: return 0;
    case Kind::kLeaf: return add_cost(leaf_cost(position), cost_below(position.below));
    case Kind::kObject: return add_cost(object_cost(position), cost_below(position.below));
    case Kind::kArray: return add_cost(array_cost(position), cost_below(position.below));
  }
  return kNever;
}

// Leaves.

void Reader::step_leaf(const Position& position, std::uint8_t byte, Positions& out) {
  const Leaf& rule = leaf(position);
  const ByteAutomaton& automaton = *rule.automaton;
  if (automaton.accepts(position.a) && position.below != Position::kBottom) {
    const Position outside = frames_[position.below];  // a number ends where something else begins
    step(outside, byte, out);
  }
  Position next = position;
  next.a = automaton.next(position.a, byte);
  if (next.a == ByteAutomaton::kDead) return;
  if (rule.kind == Leaf::Kind::kString && rule.counts() && !count_character(rule, next, position.a)) return;
  if (rule.kind == Leaf::Kind::kName) {
    if (next.a == kStringEnd) {
      if (!is_taken(position, "")) leave_leaf(position, "", out);
      return;
    }
    const char character = static_cast<char>(byte);
    next.c = add_text(position.c, {&character, 1});
  }
  if (automaton.is_final(next.a))
    end_value(position.below, out);
  else
    out.push_back(next);
}

// `next` came from the state `from` of a string with a length. False where it is too long or ends too early.
bool Reader::count_character(const Leaf& rule, Position& next, std::uint32_t from) const {
  if (next.a == kStringEnd) return next.b >= rule.min_length;
  if (from == ByteAutomaton::kStart) return true;
  if (next.b >= rule.max_length) return false;
  const bool matters = rule.max_length < kUnlimited || next.b < rule.min_length;
  if (next.a == kStringBody && matters) ++next.b;
  return true;
}

void Reader::leave_leaf(const Position& position, std::string_view name, Positions& out) {
  if (leaf(position).kind != Leaf::Kind::kName) return end_value(position.below, out);
  Position object = frames_[position.below];
  object.c = names_.add({object.c, add_text(position.c, name), names_[object.c].count + 1});
  out.push_back(object);
}

std::int64_t Reader::leaf_cost(const Position& position) const {
  const Leaf& rule = leaf(position);
  const std::int64_t distance = rule.automaton->distance(position.a);
  if (rule.kind == Leaf::Kind::kNarrow || rule.kind == Leaf::Kind::kText) return distance;
  if (rule.kind == Leaf::Kind::kString) {
    if (!rule.counts() || position.a == kStringEnd) return distance;
    if (position.a == ByteAutomaton::kStart) return 1 + string_cost(rule, 0);
    if (position.a == kStringBody) return string_cost(rule, position.b);
    return distance - 1 + string_cost(rule, position.b + 1);  // the character that is being written counts
  }
  if (position.a == kStringBody) return distance + slack_after(position, "");
  const Position& object = frames_[position.below];
  return distance +
         name_slack(static_cast<std::int64_t>(grammar_->objects[object.rule].declared.size()) + names_[object.c].count);
}

// Names.

std::uint32_t Reader::find_text(std::uint32_t text, std::string_view more) const {
  for (const char c : more) {
    text = texts_.find({text, static_cast<std::uint8_t>(c)});
    if (text == InternTable<Text>::kAbsent) break;
  }
  return text;
}

std::uint32_t Reader::add_text(std::uint32_t text, std::string_view more) {
  for (const char c : more) text = texts_.add({text, static_cast<std::uint8_t>(c)});
  return text;
}

std::string Reader::text_of(std::uint32_t text) const {
  std::string out;
  for (; text != kNoText; text = texts_[text].before) out += static_cast<char>(texts_[text].byte);
  std::reverse(out.begin(), out.end());
  return out;
}

bool Reader::is_listed(std::uint32_t names, std::uint32_t text) const {
  for (; names != 0; names = names_[names].before)
    if (names_[names].text == text) return true;
  return false;
}

bool Reader::is_taken(const Position& position, std::string_view more) const {
  const Position& object = frames_[position.below];
  const std::uint32_t text = find_text(position.c, more);
  if (text != InternTable<Text>::kAbsent && is_listed(object.c, text)) return true;
  const auto& declared = grammar_->objects[object.rule].declared;
  return !declared.empty() && declared.contains(text_of(position.c).append(more));
}

std::vector<std::string> Reader::taken_endings(const Position& position) const {
  const Position& object = frames_[position.below];
  const std::string begin = text_of(position.c);
  std::vector<std::string> out;
  const auto add = [&](std::string_view name) {
    if (name.starts_with(begin)) out.emplace_back(name.substr(begin.size()));
  };
  for (const std::string& name : grammar_->objects[object.rule].declared) add(name);
  for (std::uint32_t names = object.c; names != 0; names = names_[names].before) add(text_of(names_[names].text));
  return out;
}

std::int64_t Reader::slack_after(const Position& position, std::string_view more) const {
  // Free within `left` more characters?
  const auto search = [&](const auto& self, const std::string& name, int left) -> bool {
    if (left == 0) return !is_taken(position, name);
    return std::any_of(kLettersAndDigits.begin(), kLettersAndDigits.end(),
                       [&](char c) { return self(self, name + c, left - 1); });
  };
  int characters = 0;
  while (characters < 4 && !search(search, std::string(more), characters)) ++characters;
  return characters;
}

}  // namespace chiasm
