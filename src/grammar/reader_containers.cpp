// Objects and arrays of the reader.
#include <algorithm>

#include "grammar/json_text.h"
#include "grammar/reader.h"

namespace chiasm {

namespace {

constexpr std::int64_t kMaxAdditional = 512;  // members of one object that its schema does not name

bool counts_members(const ObjectRule& rule) { return rule.min_members > 0 || rule.max_members < kUnlimited; }

// One member or item more; what no rule asks for is not counted, so that positions stay few.
std::uint32_t count_up(std::uint32_t count, std::int64_t enough, std::int64_t most) {
  return most < kUnlimited || count < enough ? count + 1 : count;
}

}  // namespace

void Reader::step_object(const Position& position, std::uint8_t byte, Positions& out) {
  const ObjectRule& rule = grammar_->objects[position.rule];
  const bool complete = rule.next_required[position.a] == rule.size() && position.b >= rule.min_members;
  Position next = position;
  next.space = 0;
  switch (position.phase) {
    case Phase::kOpen:
      next.phase = Phase::kFirst;
      if (byte == '{') out.push_back(next);
      break;
    case Phase::kFirst:
      if (byte == '}' && complete) return end_value(position.below, out);
      [[fallthrough]];
    case Phase::kNext:
      if (byte == '"')
        begin_name(next, out);
      else
        take_space(position, byte, out);
      break;
    case Phase::kName: step_name(next, byte, out); break;
    case Phase::kColon:
      if (byte == ':') begin_member(next, *rule.additional, Position::kAdditional, out);
      break;
    case Phase::kSpace:
      if (byte == ' ') {
        const ValueId value =
            position.low == Position::kAdditional ? *rule.additional : rule.properties[position.low].value;
        next.phase = Phase::kAfter;
        next.low = 0;
        begin_value(value, push(next), out);
      }
      break;
    case Phase::kAfter:
      if (byte == '}' && complete) return end_value(position.below, out);
      if (byte == ',' && position.space == 0) {
        bool more = may_add(rule, position);
        for (std::uint32_t i = position.a; i < rule.size() && i <= rule.next_required[position.a] && !more; ++i)
          more = may_come(rule, position, i);
        next.phase = Phase::kNext;
        if (more) out.push_back(next);
      } else if (complete) {
        take_space(position, byte, out);
      }
      break;
  }
}

// A declared property may come in its turn: every required one before it has come.
bool Reader::may_come(const ObjectRule& rule, const Position& position, std::uint32_t i) const {
  if (i < position.a || (i > rule.next_required[position.a])) return false;
  if (!counts_members(rule) && !too_deep(position.below)) return true;
  const std::int64_t rest = rest_cost(*grammar_, rule, i + 1, position.b + 1);
  if (rest >= kNever) return false;
  if (!too_deep(position.below)) return true;
  const ObjectRule::Property& property = rule.properties[i];
  return add_cost(1 + property.costs[0] + grammar_->values[property.value].cost, rest) <=
         rest_cost(*grammar_, rule, position.a, position.b);
}

bool Reader::may_add(const ObjectRule& rule, const Position& position) const {
  if (!rule.additional || rule.next_required[position.a] != rule.size()) return false;
  if (too_deep(position.below) && position.b >= rule.min_members) return false;
  return position.b < rule.max_members && names_[position.c].count < std::max(kMaxAdditional, rule.min_members);
}

void Reader::begin_name(const Position& position, Positions& out) {
  const ObjectRule& rule = grammar_->objects[position.rule];
  Position name = position;
  name.phase = Phase::kName;
  name.low = 0;
  name.high = rule.size();
  name.at = 0;
  step_name(name, '"', out);
  if (!may_add(rule, position)) return;
  Position object = position;
  object.phase = Phase::kColon;
  object.a = rule.size();
  if (counts_members(rule)) object.b = count_up(object.b, rule.min_members, rule.max_members);
  out.push_back({.kind = Kind::kLeaf, .rule = grammar_->name_leaf, .below = push(object), .a = kStringBody});
}

void Reader::step_name(Position position, std::uint8_t byte, Positions& out) {
  const ObjectRule& rule = grammar_->objects[position.rule];
  // Texts in the range share what is read, and none ends there: the next byte sorts them.
  const auto at = [&](std::uint32_t i) {
    return static_cast<std::uint8_t>(rule.properties[rule.by_text[i]].text[position.at]);
  };
  std::uint32_t low = position.low, high = position.high;
  for (std::uint32_t end = high; low < end;) {
    const std::uint32_t middle = low + (end - low) / 2;
    if (at(middle) < byte)
      low = middle + 1;
    else
      end = middle;
  }
  std::uint32_t last = low;
  for (std::uint32_t end = high; last < end;) {
    const std::uint32_t middle = last + (end - last) / 2;
    if (at(middle) <= byte)
      last = middle + 1;
    else
      end = middle;
  }
  high = last;
  bool any = false;
  for (std::uint32_t i = low; i < high && !any; ++i) any = may_come(rule, position, rule.by_text[i]);
  if (!any) return;
  position.low = low;
  position.high = high;
  ++position.at;
  const std::uint32_t property = rule.by_text[low];
  if (position.at < rule.properties[property].text.size()) {
    out.push_back(position);
    return;
  }
  position.a = property + 1;
  if (counts_members(rule)) position.b = count_up(position.b, rule.min_members, rule.max_members);
  position.low = position.high = position.at = 0;
  begin_member(position, rule.properties[property].value, property, out);
}

// Behind the colon.
void Reader::begin_member(const Position& frame, ValueId value, std::uint32_t property, Positions& out) {
  Position next = frame;
  next.phase = Phase::kSpace;
  next.low = property;
  out.push_back(next);
  next.phase = Phase::kAfter;
  next.low = 0;
  begin_value(value, push(next), out);
}

std::int64_t Reader::object_cost(const Position& position) const {
  const ObjectRule& rule = grammar_->objects[position.rule];
  const std::int64_t rest = rest_cost(*grammar_, rule, position.a, position.b);
  switch (position.phase) {
    case Phase::kOpen: return rest <= 1 ? 2 : rest;
    case Phase::kFirst: return rest <= 1 ? 1 : rest - 1;
    case Phase::kAfter: return rest;
    case Phase::kColon: return add_cost(1 + grammar_->values[*rule.additional].cost, rest);
    case Phase::kSpace:
      return add_cost(
          grammar_
              ->values[position.low == Position::kAdditional ? *rule.additional : rule.properties[position.low].value]
              .cost,
          rest);
    case Phase::kNext: {
      if (rest > 1) return rest - 1;
      std::int64_t best = kNever;
      if (may_add(rule, position)) best = additional_cost(*grammar_, rule, names_[position.c].count);
      for (std::uint32_t i = position.a; i < rule.size(); ++i)
        if (may_come(rule, position, i))
          best = std::min(best, add_cost(rule.properties[i].costs[0] + grammar_->values[rule.properties[i].value].cost,
                                         rest_cost(*grammar_, rule, i + 1, position.b + 1)));
      return best;
    }
    case Phase::kName: {
      std::int64_t best = kNever;
      for (std::uint32_t i = position.low; i < position.high; ++i) {
        const std::uint32_t property = rule.by_text[i];
        if (!may_come(rule, position, property)) continue;
        best = std::min(best, add_cost(rule.properties[property].costs[position.at] +
                                           grammar_->values[rule.properties[property].value].cost,
                                       rest_cost(*grammar_, rule, property + 1, position.b + 1)));
      }
      return best;
    }
  }
  return kNever;
}

void Reader::step_array(const Position& position, std::uint8_t byte, Positions& out) {
  const ArrayRule& rule = grammar_->arrays[position.rule];
  const bool complete = position.a >= rule.min_items;
  Position next = position;
  next.space = 0;
  switch (position.phase) {
    case Phase::kOpen:
      if (byte != '[') return;
      next.phase = Phase::kFirst;
      out.push_back(next);
      return begin_item(next, out);
    case Phase::kFirst:
      if (byte == ']' && complete) return end_value(position.below, out);
      if (take_space(position, byte, out)) begin_item(position, out);
      return;
    case Phase::kNext:
      if (take_space(position, byte, out)) begin_item(position, out);
      return;
    case Phase::kAfter:
      if (byte == ']' && complete) return end_value(position.below, out);
      if (byte == ',' && position.space == 0 && has_item(position)) {
        next.phase = Phase::kNext;
        out.push_back(next);
        return begin_item(next, out);
      }
      if (complete) take_space(position, byte, out);
      return;
    default: return;
  }
}

bool Reader::has_item(const Position& position) const {
  const ArrayRule& rule = grammar_->arrays[position.rule];
  if (position.a >= (too_deep(position.below) ? rule.min_items : rule.max_items)) return false;
  if (!rule.distinct.empty()) return true;  // max_items is at most their number
  return position.a < rule.prefix.size() || rule.items;
}

void Reader::begin_item(const Position& position, Positions& out) {
  if (!has_item(position)) return;
  const ArrayRule& rule = grammar_->arrays[position.rule];
  Position after = position;
  after.phase = Phase::kAfter;
  after.space = 0;
  after.a =
      count_up(position.a, std::max(rule.min_items, static_cast<std::int64_t>(rule.prefix.size())), rule.max_items);
  for (std::uint32_t i = 0; i < rule.distinct.size(); ++i)
    if ((position.c >> i & 1U) == 0) {
      after.c = position.c | 1U << i;
      begin_value(rule.distinct[i], push(after), out);
    }
  if (!rule.distinct.empty()) return;
  begin_value(position.a < rule.prefix.size() ? rule.prefix[position.a] : *rule.items, push(after), out);
}

std::int64_t Reader::array_cost(const Position& position) const {
  const ArrayRule& rule = grammar_->arrays[position.rule];
  const std::int64_t rest = rest_cost(*grammar_, rule, position.a, position.c);
  switch (position.phase) {
    case Phase::kOpen: return rest <= 1 ? 2 : rest;
    case Phase::kFirst: return rest <= 1 ? 1 : rest - 1;
    case Phase::kNext: {
      if (rest > 1) return rest - 1;
      std::int64_t best = kNever;
      for (std::uint32_t i = 0; i < rule.distinct.size(); ++i)
        if ((position.c >> i & 1U) == 0) best = std::min(best, grammar_->values[rule.distinct[i]].cost);
      if (position.a < rule.prefix.size())
        best = grammar_->values[rule.prefix[position.a]].cost;
      else if (rule.items)
        best = grammar_->values[*rule.items].cost;
      return add_cost(best, 1);
    }
    default: return rest;
  }
}

}  // namespace chiasm
