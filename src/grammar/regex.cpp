#include "grammar/regex.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "grammar/regex_syntax.h"

namespace chiasm {

namespace {

using Kind = RegexState::Kind;

constexpr std::size_t kMaxStates = 10'000;
constexpr std::size_t kMaxEntries = 1'000'000;  // states x symbols
constexpr std::int64_t kMaxLength = 8'000;

tl::unexpected<Error> too_large(std::string_view what) {
  return fail(Code::kUnimplemented, "the automaton of this string is too large: {}", what);
}

// Code points that no set tells apart are one symbol.
void assign_symbols(const std::vector<CodePoints>& sets, CodePointAutomaton& out,
                    std::vector<std::vector<std::uint32_t>>& symbols_of) {
  std::vector<std::uint32_t> begins{0};
  for (const CodePoints& set : sets)
    for (const auto& [low, high] : set) {
      begins.push_back(low);
      if (high < kLastCodePoint) begins.push_back(high + 1);
    }
  std::sort(begins.begin(), begins.end());
  begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  std::vector<std::vector<std::uint32_t>> members(begins.size());
  for (std::uint32_t i = 0; i < sets.size(); ++i)
    for (const auto& [low, high] : sets[i]) {
      auto at = std::lower_bound(begins.begin(), begins.end(), low) - begins.begin();
      for (; at < std::ssize(begins) && begins[static_cast<std::size_t>(at)] <= high; ++at)
        members[static_cast<std::size_t>(at)].push_back(i);
    }
  std::map<std::vector<std::uint32_t>, std::uint32_t> numbers;
  symbols_of.resize(sets.size());
  for (std::size_t i = 0; i < begins.size(); ++i) {
    const auto [it, added] = numbers.try_emplace(members[i], static_cast<std::uint32_t>(numbers.size()));
    if (added)
      for (const std::uint32_t set : members[i]) symbols_of[set].push_back(it->second);
    out.ranges.push_back({begins[i], it->second});
  }
  out.symbols = static_cast<std::uint32_t>(numbers.size());
}

class Determinizer {
 public:
  Determinizer(RegexGraph graph, WorkBudget& budget)
      : graph_(std::move(graph)), budget_(budget), seen_(graph_.states.size(), 0) {}

  Result<CodePointAutomaton> run() {
    if (!budget_.spend(graph_.states.size())) return too_large("too much work");
    assign_symbols(graph_.sets, out_, symbols_of_);
    // The start is a state of its own: only there "^" holds.
    const std::vector<std::uint32_t> first = closure({graph_.start}, true, false);
    add_state(first, true);
    std::vector<std::vector<std::uint32_t>> targets(out_.symbols);
    for (std::size_t state = 0; state < contents_.size(); ++state) {
      if (contents_.size() > kMaxStates || contents_.size() * out_.symbols > kMaxEntries ||
          !budget_.spend(out_.symbols + work_))
        return too_large("too many states");
      work_ = 0;
      for (auto& target : targets) target.clear();
      for (const std::uint32_t at : contents_[state])
        if (graph_.states[at].kind == Kind::kCharacter)
          for (const std::uint32_t symbol : symbols_of_[graph_.states[at].set]) {
            targets[symbol].push_back(graph_.states[at].to);
            ++work_;
          }
      for (std::uint32_t symbol = 0; symbol < out_.symbols; ++symbol) {
        if (targets[symbol].empty()) continue;
        const std::uint32_t to = find_or_add(closure(targets[symbol], false, false));
        out_.next[state * out_.symbols + symbol] = to;
      }
    }
    return std::move(out_);
  }

 private:
  // The states that hold no character are passed through, but "$" only `at_end`. Sorted.
  std::vector<std::uint32_t> closure(const std::vector<std::uint32_t>& from, bool at_begin, bool at_end) {
    ++generation_;
    std::vector<std::uint32_t> out, stack;
    const auto push = [&](std::uint32_t state) {
      if (state == RegexState::kNowhere || seen_[state] == generation_) return;
      seen_[state] = generation_;
      stack.push_back(state);
    };
    for (const std::uint32_t state : from) push(state);
    while (!stack.empty()) {
      const std::uint32_t at = stack.back();
      stack.pop_back();
      ++work_;
      const RegexState& state = graph_.states[at];
      switch (state.kind) {
        case Kind::kCharacter:
        case Kind::kAccept: out.push_back(at); break;
        case Kind::kSplit: push(state.to), push(state.other); break;
        case Kind::kBegin:
          if (at_begin) push(state.to);
          break;
        case Kind::kEnd:
          out.push_back(at);
          if (at_end) push(state.to);
          break;
      }
    }
    // Once matched, whatever follows is allowed: nothing else matters.
    if (!at_end && std::find(out.begin(), out.end(), graph_.accept) != out.end()) return {graph_.accept};
    std::sort(out.begin(), out.end());
    return out;
  }

  std::uint32_t add_state(const std::vector<std::uint32_t>& content, bool at_begin) {
    const std::uint32_t state = static_cast<std::uint32_t>(contents_.size());
    contents_.push_back(content);
    const auto at_end = closure(content, at_begin, true);
    out_.accepts.push_back(std::find(at_end.begin(), at_end.end(), graph_.accept) != at_end.end() ? 1 : 0);
    const bool all = content.size() == 1 && content[0] == graph_.accept;
    out_.next.resize(out_.next.size() + out_.symbols, all ? state : CodePointAutomaton::kDead);
    return state;
  }

  std::uint32_t find_or_add(std::vector<std::uint32_t> content) {
    const auto it = numbers_.find(content);
    if (it != numbers_.end()) return it->second;
    const std::uint32_t state = add_state(content, false);
    numbers_.emplace(std::move(content), state);
    return state;
  }

  RegexGraph graph_;
  WorkBudget& budget_;
  CodePointAutomaton out_;
  std::vector<std::vector<std::uint32_t>> symbols_of_;  // of a set
  std::vector<std::vector<std::uint32_t>> contents_;    // of a state of out_
  std::map<std::vector<std::uint32_t>, std::uint32_t> numbers_;
  std::vector<std::uint32_t> seen_;
  std::uint32_t generation_ = 0;
  std::size_t work_ = 0;  // not yet spent
};

}  // namespace

Result<CodePointAutomaton> regex_automaton(std::string_view pattern, WorkBudget& budget) {
  ASSIGN_OR_RETURN(RegexGraph graph, parse_regex(pattern));
  return Determinizer(std::move(graph), budget).run();
}

Result<CodePointAutomaton> length_automaton(std::int64_t low, std::int64_t high, WorkBudget& budget) {
  const std::int64_t last = high < 0 ? low : high;
  if (last > kMaxLength || !budget.spend(static_cast<std::size_t>(last)))
    return too_large(fmt::format("a length of more than {}", kMaxLength));
  CodePointAutomaton out;
  out.ranges = {{0, 0}};
  out.symbols = 1;
  for (std::int64_t count = 0; count <= last; ++count) {
    out.accepts.push_back(count >= low ? 1 : 0);
    out.next.push_back(count < last ? static_cast<std::uint32_t>(count + 1)
                       : high < 0   ? static_cast<std::uint32_t>(count)
                                    : CodePointAutomaton::kDead);
  }
  return out;
}

Result<CodePointAutomaton> intersect(const CodePointAutomaton& a, const CodePointAutomaton& b, WorkBudget& budget) {
  CodePointAutomaton out;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> symbols, states;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> pairs, pending;
  for (std::size_t i = 0, j = 0; i < a.ranges.size() && j < b.ranges.size();) {
    const std::uint32_t low = std::max(a.ranges[i].low, b.ranges[j].low);
    const std::pair pair{a.ranges[i].symbol, b.ranges[j].symbol};
    const auto [it, added] = symbols.try_emplace(pair, static_cast<std::uint32_t>(symbols.size()));
    if (added) pairs.push_back(pair);
    out.ranges.push_back({low, it->second});
    const std::uint32_t end_a = i + 1 < a.ranges.size() ? a.ranges[i + 1].low : kLastCodePoint + 1;
    const std::uint32_t end_b = j + 1 < b.ranges.size() ? b.ranges[j + 1].low : kLastCodePoint + 1;
    if (end_a <= end_b) ++i;
    if (end_b <= end_a) ++j;
  }
  out.symbols = static_cast<std::uint32_t>(symbols.size());
  const auto state = [&](std::uint32_t x, std::uint32_t y) {
    const auto [it, added] = states.try_emplace({x, y}, static_cast<std::uint32_t>(pending.size()));
    if (added) {
      pending.emplace_back(x, y);
      out.accepts.push_back(a.accepts[x] & b.accepts[y]);
    }
    return it->second;
  };
  state(0, 0);
  for (std::size_t at = 0; at < pending.size(); ++at) {
    if (pending.size() > kMaxStates || pending.size() * out.symbols > kMaxEntries || !budget.spend(8 * pairs.size()))
      return too_large("patterns and lengths together");
    const auto [x, y] = pending[at];
    for (const auto& [symbol_a, symbol_b] : pairs) {
      const std::uint32_t to_a = a.next[x * a.symbols + symbol_a], to_b = b.next[y * b.symbols + symbol_b];
      const bool dead = to_a == CodePointAutomaton::kDead || to_b == CodePointAutomaton::kDead;
      out.next.push_back(dead ? CodePointAutomaton::kDead : state(to_a, to_b));
    }
  }
  return out;
}

}  // namespace chiasm
