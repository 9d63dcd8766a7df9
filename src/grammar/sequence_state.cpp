#include "grammar/sequence_state.h"

#include <algorithm>
#include <string>
#include <unordered_set>

#include "base/check.h"
#include "grammar/json_text.h"

namespace chiasm {

namespace {

constexpr std::size_t kKnownMasks = 16;

}  // namespace

bool SequenceState::Found::add(std::int64_t cost, std::span<const std::int32_t> ids) {
  if (ids.empty()) return false;
  if (cost > limit) {
    refused = true;
    return false;
  }
  lowest = std::min(lowest, cost);
  highest = std::max(highest, cost);
  if (mask != nullptr)
    for (const std::int32_t id : ids) mask->set(id);
  return true;
}

SequenceState::SequenceState(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTree> tokens)
    : grammar_(std::move(grammar)),
      tokens_(std::move(tokens)),
      reader_(*grammar_, *tokens_),
      positions_(reader_.start()) {
  reader_.prune(positions_);
}

std::int64_t SequenceState::lowest_cost(const Reader::Positions& positions) const {
  std::int64_t out = kNever;
  for (const Position& position : positions) out = std::min(out, reader_.cost(position));
  return out;
}

std::int64_t SequenceState::cost() const { return lowest_cost(positions_); }

bool SequenceState::may_end() const {
  return std::any_of(positions_.begin(), positions_.end(), [&](const Position& p) { return reader_.may_end(p); });
}

void SequenceState::mask(std::int64_t remaining, TokenMask& mask) {
  CHECK(mask.size() == tokens_->vocab_size());
  mask.clear();
  std::int64_t limit = remaining - 1;
  if (const std::int64_t needed = cost(); needed > remaining) {
    // Too late: what leaves the least to be done.
    limit = kNever;
    for (const Position& position : positions_) {
      Found found{.limit = std::min(limit, needed - 1)};
      walk(position, found);
      limit = std::min(limit, found.lowest);
    }
    if (limit >= kNever) return;
  }
  for (const Position& position : positions_) {
    const auto known =
        std::find_if(known_.begin(), known_.end(), [&](const Known& k) { return k.position == position; });
    if (known != known_.end() && known->highest <= limit) {
      for (std::size_t i = 0; i < mask.words().size(); ++i) mask.words()[i] |= known->mask.words()[i];
      continue;
    }
    TokenMask own(tokens_->vocab_size());
    Found found{.mask = &own, .limit = limit};
    walk(position, found);
    for (std::size_t i = 0; i < mask.words().size(); ++i) mask.words()[i] |= own.words()[i];
    if (found.refused) continue;
    // Holds for every later step that leaves as much room.
    Known entry{position, found.highest, std::move(own)};
    if (known_.size() < kKnownMasks)
      known_.push_back(std::move(entry));
    else
      known_[next_known_++ % kKnownMasks] = std::move(entry);
  }
}

void SequenceState::accept(std::int32_t id) {
  Reader::Positions all, now, next;
  const std::string_view bytes = id >= 0 && id < tokens_->vocab_size() ? tokens_->bytes(id) : std::string_view();
  // One position at a time, as the masks are made: what one of them leads to is never given up for another's.
  for (const Position& position : positions_) {
    now.assign(1, position);
    for (const char c : bytes) {
      next.clear();
      for (const Position& at : now) reader_.step(at, static_cast<std::uint8_t>(c), next);
      reader_.prune(next);
      now.swap(next);
    }
    if (!bytes.empty()) all.insert(all.end(), now.begin(), now.end());
  }
  reader_.prune(all);
  positions_ = std::move(all);
}

bool SequenceState::accept_byte(std::uint8_t byte) {
  Reader::Positions next;
  for (const Position& position : positions_) reader_.step(position, byte, next);
  reader_.prune(next);
  positions_ = std::move(next);
  return !positions_.empty();
}

void SequenceState::walk(const Position& position, Found& found) {
  const Reader::Mark mark = reader_.mark();
  const bool leaf = position.kind == Position::Kind::kLeaf;
  // What is no string is narrow: the few tokens that fit are found byte by byte.
  if (!leaf || !reader_.leaf(position).automaton->is_delimited())
    walk_below(TokenTree::kRoot, {position}, found);
  else if (reader_.leaf(position).kind == Leaf::Kind::kName)
    walk_name(position, found);
  else if (reader_.leaf(position).kind == Leaf::Kind::kString && position.a != ByteAutomaton::kStart)
    walk_string(position, found);
  else
    walk_leaf(position, found);
  reader_.forget(mark);
}

// The tokens below a node, when its path led to `from`.
void SequenceState::walk_below(std::uint32_t root, const Reader::Positions& from, Found& found) {
  const std::uint32_t base = tokens_->depth(root);
  if (levels_.empty()) levels_.resize(1);
  levels_[0] = from;
  for (std::uint32_t node = root + 1; node < tokens_->end(root);) {
    const std::uint32_t level = tokens_->depth(node) - base;
    if (levels_.size() <= level) levels_.resize(level + 1);
    Reader::Positions& here = levels_[level];
    here.clear();
    for (const Position& position : levels_[level - 1]) reader_.step(position, tokens_->byte(node), here);
    reader_.prune(here);
    if (here.empty()) {
      node = tokens_->end(node);
      continue;
    }
    if (const auto ids = tokens_->tokens(node); !ids.empty()) found.add(lowest_cost(here), ids);
    ++node;
  }
}

// A node at which a leaf has ended, and what may follow it.
void SequenceState::walk_exit(std::uint32_t node, const Reader::Positions& after, Found& found) {
  if (const auto ids = tokens_->tokens(node); !ids.empty()) found.add(lowest_cost(after), ids);
  if (tokens_->has_children(node)) walk_below(node, after, found);
}

// A string or literal with an automaton of its own: its states are stepped without the rest of the position.
void SequenceState::walk_leaf(const Position& position, Found& found) {
  const Leaf& rule = reader_.leaf(position);
  if (rule.kind == Leaf::Kind::kString) return walk_below(TokenTree::kRoot, {position}, found);
  const ByteAutomaton& automaton = *rule.automaton;
  Reader::Positions after;
  reader_.leave_leaf(position, "", after);
  const std::int64_t outside = reader_.cost(position) - automaton.distance(position.a);
  std::vector<ByteAutomaton::State> path{position.a};
  for (std::uint32_t node = 1; node < tokens_->size();) {
    path.resize(tokens_->depth(node));
    const ByteAutomaton::State to = automaton.next(path.back(), tokens_->byte(node));
    if (to == ByteAutomaton::kDead || automaton.is_final(to)) {
      if (to != ByteAutomaton::kDead) walk_exit(node, after, found);
      node = tokens_->end(node);
      continue;
    }
    path.push_back(to);
    if (const auto ids = tokens_->tokens(node); !ids.empty()) found.add(automaton.distance(to) + outside, ids);
    ++node;
  }
}

// Tokens that stay inside a string, all at once where there is room for any of them.
void SequenceState::add_groups(const StringTokens& known, std::span<const std::int64_t> costs, Found& found) {
  const bool all = std::all_of(costs.begin(), costs.end(), [&](std::int64_t cost) { return cost <= found.limit; });
  for (std::size_t i = 0; i < costs.size(); ++i) {
    if (!all) {
      found.add(costs[i], known.groups[i].ids);
      continue;
    }
    found.lowest = std::min(found.lowest, costs[i]);
    found.highest = std::max(found.highest, costs[i]);
  }
  if (!all || found.mask == nullptr) return;
  const std::span<const std::uint64_t> inside = known.inside.words();
  for (std::size_t i = 0; i < inside.size(); ++i) found.mask->words()[i] |= inside[i];
}

// Inside a free string.
void SequenceState::walk_string(const Position& position, Found& found) {
  const Leaf& rule = reader_.leaf(position);
  const StringTokens& known = tokens_->any_string_tokens(position.a);
  const auto length_after = [&](std::uint32_t characters) { return position.b + std::int64_t{characters}; };
  Position inside = position;
  bool all = true;
  group_costs_.clear();
  for (const StringTokens::Group& group : known.groups) {
    // A character that is being written needs room too.
    const std::int64_t length = length_after(group.characters) + (group.state == kStringBody ? 0 : 1);
    inside.a = group.state;
    if (rule.counts()) inside.b = static_cast<std::uint32_t>(length_after(group.characters));
    all = all && length <= rule.max_length;
    group_costs_.push_back(length <= rule.max_length ? reader_.cost(inside) : kNever);
  }
  if (all) {
    add_groups(known, group_costs_, found);
  } else {
    for (std::size_t i = 0; i < known.groups.size(); ++i)
      if (group_costs_[i] < kNever) found.add(group_costs_[i], known.groups[i].ids);
  }
  Reader::Positions after;
  reader_.leave_leaf(position, "", after);
  for (const StringTokens::Exit& exit : known.exits) {
    const std::int64_t length = length_after(exit.characters);
    if (!rule.counts() || (length >= rule.min_length && length <= rule.max_length)) walk_exit(exit.node, after, found);
  }
}

// Inside a member name that is not declared: as in a string, but it must not be one that is taken.
void SequenceState::walk_name(const Position& position, Found& found) {
  const StringTokens& known = tokens_->member_name_tokens(position.a);
  const std::int64_t outside = reader_.cost_outside(position);
  // Tokens that spell a taken name to its end, and the nodes at which its closing quote would stand.
  std::vector<std::int32_t> taken;
  std::unordered_set<std::uint32_t> closed;
  for (const std::string& ending : reader_.taken_endings(position)) {
    std::uint32_t node = TokenTree::kRoot;
    bool spelled = true;
    for (std::size_t i = 0; i < ending.size() && spelled; ++i) {
      node = tokens_->child(node, static_cast<std::uint8_t>(ending[i]));
      spelled = node != TokenTree::kRoot;
    }
    if (!spelled) continue;
    closed.insert(tokens_->child(node, '"'));
    if (node != TokenTree::kRoot) taken.insert(taken.end(), tokens_->tokens(node).begin(), tokens_->tokens(node).end());
  }
  Position inside = position;
  group_costs_.clear();
  for (const StringTokens::Group& group : known.groups) {
    inside.a = group.state;
    group_costs_.push_back(group.state == kStringBody ? 1 + outside : reader_.cost(inside));
  }
  if (taken.empty() || found.mask != nullptr) {
    add_groups(known, group_costs_, found);
    for (const std::int32_t id : taken) found.mask->words()[static_cast<std::size_t>(id) / 64] &= ~(1ULL << (id % 64));
  } else {
    // Only costs are asked for: a group that is taken as a whole must not count.
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < known.groups.size(); ++i) {
      ids = known.groups[i].ids;
      std::erase_if(ids, [&](std::int32_t id) { return std::find(taken.begin(), taken.end(), id) != taken.end(); });
      found.add(group_costs_[i], ids);
    }
  }
  for (const std::int32_t id : taken)
    found.add(1 + outside + reader_.slack_after(position, tokens_->bytes(id)), {&id, 1});
  Reader::Positions after;
  for (const StringTokens::Exit& exit : known.exits) {
    if (closed.contains(exit.node)) continue;
    if (const auto ids = tokens_->tokens(exit.node); !ids.empty()) found.add(outside, ids);
    if (!tokens_->has_children(exit.node)) continue;
    const Reader::Mark mark = reader_.mark();
    const std::string_view path = tokens_->path(exit.node);
    after.clear();
    reader_.leave_leaf(position, path.substr(0, path.size() - 1), after);
    walk_below(exit.node, after, found);
    reader_.forget(mark);
  }
}

}  // namespace chiasm
