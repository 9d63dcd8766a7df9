#include "grammar/grammar.h"

#include <algorithm>
#include <numeric>

#include "grammar/json_text.h"

namespace chiasm {

namespace {

std::int64_t value_cost(const Grammar& grammar, ValueId value) { return grammar.values[value].cost; }

std::int64_t leaf_cost(const Leaf& leaf) {
  return leaf.kind == Leaf::Kind::kString ? 1 + string_cost(leaf, 0) : leaf.automaton->distance(ByteAutomaton::kStart);
}

// Sums over what is required, from the back.
void sum_required(const Grammar& grammar, ObjectRule& rule) {
  rule.required_cost.assign(rule.size() + 1, 1);
  for (std::uint32_t i = rule.size(); i-- > 0;) {
    const ObjectRule::Property& property = rule.properties[i];
    rule.required_cost[i] = rule.required_cost[i + 1];
    if (property.required)
      rule.required_cost[i] =
          add_cost(rule.required_cost[i], 1 + property.costs[0] + value_cost(grammar, property.value));
  }
  if (rule.min_members == 0) return;
  const auto width = static_cast<std::size_t>(rule.min_members + 1);
  rule.optional_cost.assign((rule.size() + 1) * width, kNever);
  rule.optional_cost[rule.size() * width] = 0;
  for (std::size_t i = rule.size(); i-- > 0;) {
    const ObjectRule::Property& property = rule.properties[i];
    const std::int64_t cost =
        property.required ? kNever : add_cost(1 + property.costs[0], value_cost(grammar, property.value));
    for (std::size_t k = 0; k < width; ++k) {
      const std::int64_t without = rule.optional_cost[(i + 1) * width + k];
      const std::int64_t with = k == 0 ? kNever : add_cost(cost, rule.optional_cost[(i + 1) * width + k - 1]);
      rule.optional_cost[i * width + k] = std::min(without, with);
    }
  }
}

void sum_required(const Grammar& grammar, ArrayRule& rule) {
  const std::int64_t more = std::max<std::int64_t>(0, rule.min_items - std::ssize(rule.prefix));
  const std::int64_t item = rule.items ? value_cost(grammar, *rule.items) : kNever;
  rule.required_cost.assign(rule.prefix.size() + 1, add_cost(1, times_cost(more, add_cost(1, item))));
  for (std::size_t i = rule.prefix.size(); i-- > 0;) {
    rule.required_cost[i] = rule.required_cost[i + 1];
    if (static_cast<std::int64_t>(i) < rule.min_items)
      rule.required_cost[i] = add_cost(rule.required_cost[i], 1 + value_cost(grammar, rule.prefix[i]));
  }
}

// Where the first member's or item's comma is not needed.
std::int64_t whole_cost(std::int64_t rest) { return rest <= 1 ? 2 : rest; }

std::int64_t cost_of(Grammar& grammar, const Alternative& alternative) {
  switch (alternative.kind) {
    case Alternative::Kind::kLeaf: return leaf_cost(grammar.leaves[alternative.index]);
    case Alternative::Kind::kObject: {
      ObjectRule& rule = grammar.objects[alternative.index];
      sum_required(grammar, rule);
      return whole_cost(rest_cost(grammar, rule, 0, 0));
    }
    case Alternative::Kind::kArray: {
      ArrayRule& rule = grammar.arrays[alternative.index];
      sum_required(grammar, rule);
      return whole_cost(rest_cost(grammar, rule, 0, 0));
    }
  }
  return kNever;
}

void prepare(ObjectRule& rule, const TokenTree& tokens) {
  for (ObjectRule::Property& property : rule.properties) {
    property.text = quote_json(property.name);
    rule.declared.insert(property.text.substr(1, property.text.size() - 2));
    property.text += ':';
    property.costs = tokens.fewest_tokens(property.text);
  }
}

void count_required(ObjectRule& rule) {
  rule.required_from.assign(rule.size() + 1, 0);
  rule.next_required.assign(rule.size() + 1, rule.size());
  for (std::uint32_t i = rule.size(); i-- > 0;) {
    const bool required = rule.properties[i].required;
    rule.required_from[i] = rule.required_from[i + 1] + (required ? 1 : 0);
    rule.next_required[i] = required ? i : rule.next_required[i + 1];
  }
}

// What can match nothing is dropped: then whatever may be begun can be finished.
void drop_impossible(Grammar& grammar) {
  for (ObjectRule& rule : grammar.objects) {
    std::erase_if(rule.properties,
                  [&](const auto& p) { return !p.required && value_cost(grammar, p.value) >= kNever; });
    if (rule.additional && value_cost(grammar, *rule.additional) >= kNever) rule.additional.reset();
    rule.by_text.resize(rule.size());
    std::iota(rule.by_text.begin(), rule.by_text.end(), 0);
    std::sort(rule.by_text.begin(), rule.by_text.end(),
              [&](std::uint32_t a, std::uint32_t b) { return rule.properties[a].text < rule.properties[b].text; });
    count_required(rule);
    sum_required(grammar, rule);
  }
  for (ArrayRule& rule : grammar.arrays) {
    if (rule.items && value_cost(grammar, *rule.items) >= kNever) rule.items.reset();
    for (std::size_t i = 0; i < rule.prefix.size(); ++i)
      if (value_cost(grammar, rule.prefix[i]) >= kNever) {
        rule.prefix.resize(i);
        rule.items.reset();
      }
    const std::int64_t most = rule.distinct.empty() ? std::ssize(rule.prefix) : std::ssize(rule.distinct);
    if (!rule.items) rule.max_items = std::min(rule.max_items, most);
    sum_required(grammar, rule);
  }
  for (Value& value : grammar.values)
    std::erase_if(value.alternatives, [](const Alternative& a) { return a.cost >= kNever; });
}

}  // namespace

std::int64_t additional_cost(const Grammar& grammar, const ObjectRule& rule, std::int64_t taken) {
  if (!rule.additional) return kNever;
  return add_cost(1 + 2 + name_slack(static_cast<std::int64_t>(rule.declared.size()) + taken) + 1,
                  value_cost(grammar, *rule.additional));
}

std::int64_t rest_cost(const Grammar& grammar, const ObjectRule& rule, std::uint32_t next, std::int64_t members) {
  const std::int64_t required = rule.required_from[next];
  const std::int64_t missing = rule.min_members - members - required;
  if (std::max(members + required, rule.min_members) > rule.max_members) return kNever;
  if (missing <= 0) return rule.required_cost[next];
  // What is missing is declared and optional, or is not declared.
  const std::int64_t optional =
      rule.optional_cost[next * static_cast<std::size_t>(rule.min_members + 1) + static_cast<std::size_t>(missing)];
  const std::int64_t added = times_cost(missing, additional_cost(grammar, rule, members + required + missing));
  return add_cost(rule.required_cost[next], std::min(optional, added));
}

std::int64_t rest_cost(const Grammar& grammar, const ArrayRule& rule, std::int64_t items, std::uint32_t used) {
  if (rule.min_items > rule.max_items) return kNever;
  if (items >= rule.min_items) return 1;
  if (!rule.distinct.empty()) {
    std::vector<std::int64_t> costs;
    for (std::size_t i = 0; i < rule.distinct.size(); ++i)
      if ((used >> i & 1U) == 0) costs.push_back(value_cost(grammar, rule.distinct[i]) + 1);
    const std::int64_t missing = rule.min_items - items;
    if (std::ssize(costs) < missing) return kNever;
    std::sort(costs.begin(), costs.end());
    return add_cost(1, std::accumulate(costs.begin(), costs.begin() + missing, std::int64_t{0}));
  }
  const std::int64_t prefix = std::ssize(rule.prefix);
  if (items <= prefix) return rule.required_cost[static_cast<std::size_t>(items)];
  return add_cost(
      1, times_cost(rule.min_items - items, add_cost(1, rule.items ? value_cost(grammar, *rule.items) : kNever)));
}

bool finish_grammar(Grammar& grammar, const TokenTree& tokens) {
  for (ObjectRule& rule : grammar.objects) {
    prepare(rule, tokens);
    count_required(rule);
  }
  // Costs fall from "never" until nothing changes: round k knows all values of k levels. Children mostly come after
  // their parents, so from the back few rounds are needed.
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t i = grammar.values.size(); i-- > 0;) {
      Value& value = grammar.values[i];
      std::int64_t best = kNever;
      for (Alternative& alternative : value.alternatives) {
        alternative.cost = cost_of(grammar, alternative);
        best = std::min(best, alternative.cost);
      }
      changed = changed || best < value.cost;
      value.cost = best;
    }
  }
  drop_impossible(grammar);
  return grammar.values[grammar.root].cost < kNever;
}

}  // namespace chiasm
