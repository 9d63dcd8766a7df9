// Code points to bytes: each character of an automaton becomes its UTF-8 or its JSON escape.
#include <algorithm>
#include <map>

#include "grammar/json_text.h"
#include "grammar/regex.h"
#include "grammar/regex_syntax.h"

namespace chiasm {

namespace {

using State = ByteAutomaton::State;

constexpr std::size_t kMaxStates = 40'000;
constexpr std::size_t kMaxEdges = 200'000;

// Characters `low` to `high` lead to state `to`.
struct Way {
  std::uint32_t low = 0, high = 0;
  State to = 0;
  auto operator<=>(const Way&) const = default;
};
using Ways = std::vector<Way>;  // sorted, disjoint

Ways within(const Ways& ways, std::uint32_t low, std::uint32_t high) {
  Ways out;
  auto it =
      std::lower_bound(ways.begin(), ways.end(), low, [](const Way& way, std::uint32_t l) { return way.high < l; });
  for (; it != ways.end() && it->low <= high; ++it) {
    const Way way{std::max(it->low, low), std::min(it->high, high), it->to};
    if (!out.empty() && out.back().to == way.to && out.back().high + 1 == way.low)
      out.back().high = way.high;
    else
      out.push_back(way);
  }
  return out;
}

// Edges of one state for rising bytes; neighbours that lead to the same state become one edge.
class Run {
 public:
  Run(ByteAutomatonBuilder& builder, State from) : builder_(builder), from_(from) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() { flush(); }

  void add(std::uint32_t byte, State to) {
    if (to != to_ || byte != high_ + 1) {
      flush();
      low_ = byte;
      to_ = to;
    }
    high_ = byte;
  }

 private:
  void flush() {
    if (to_ != ByteAutomaton::kDead)
      builder_.add_edge(from_, static_cast<std::uint8_t>(low_), static_cast<std::uint8_t>(high_), to_);
  }

  ByteAutomatonBuilder& builder_;
  State from_, to_ = ByteAutomaton::kDead;
  std::uint32_t low_ = 0, high_ = 0;
};

class Expander {
 public:
  Expander(const CodePointAutomaton& characters, WorkBudget& budget) : in_(characters), budget_(budget) {}

  Result<std::optional<ByteAutomaton>> run() {
    const State start = builder_.add_state();
    first_ = start + 1;
    for (std::size_t state = 0; state < in_.size(); ++state) builder_.add_state();
    end_ = builder_.add_state(true);
    builder_.add_edge(start, '"', first_);
    for (std::size_t state = 0; state < in_.size(); ++state) {
      if (builder_.size() > kMaxStates || builder_.edge_count() > kMaxEdges || !budget_.spend(200 + in_.ranges.size()))
        return fail(Code::kUnimplemented, "the automaton of this string is too large: more than {} states or {} edges",
                    kMaxStates, kMaxEdges);
      expand(state);
    }
    return builder_.build();
  }

 private:
  // Where the characters of a state lead; surrogates are none.
  Ways ways_of(std::size_t state) const {
    Ways out;
    const auto add = [&](std::uint32_t low, std::uint32_t high, State to) {
      if (low <= high) out.push_back({low, high, to});
    };
    for (std::size_t i = 0; i < in_.ranges.size(); ++i) {
      const std::uint32_t to = in_.next[state * in_.symbols + in_.ranges[i].symbol];
      if (to == CodePointAutomaton::kDead) continue;
      const std::uint32_t low = in_.ranges[i].low;
      const std::uint32_t high = i + 1 < in_.ranges.size() ? in_.ranges[i + 1].low - 1 : kLastCodePoint;
      add(low, std::min(high, 0xD7FFU), first_ + to);
      add(std::max(low, 0xE000U), high, first_ + to);
    }
    return within(out, 0, kLastCodePoint);
  }

  void expand(std::size_t index) {
    const State state = first_ + static_cast<State>(index);
    if (in_.accepts[index] != 0) builder_.add_edge(state, '"', end_);
    const Ways ways = ways_of(index);
    for (const auto& [low, high, to] : within(ways, 0x20, 0x7F)) {
      // Around the two that must be escaped.
      std::uint32_t from = low;
      for (const std::uint32_t escaped : {0x22U, 0x5CU})
        if (from <= escaped && escaped <= high) {
          plain(state, from, escaped - 1, to);
          from = escaped + 1;
        }
      plain(state, from, high, to);
    }
    escapes(state, ways);
    Run run(builder_, state);
    for (std::uint32_t lead = 0xC2; lead <= 0xDF; ++lead) run.add(lead, sequence((lead & 0x1F) << 6, 0, 1, ways));
    for (std::uint32_t lead = 0xE0; lead <= 0xEF; ++lead) run.add(lead, sequence((lead & 0x0F) << 12, 0x800, 2, ways));
    for (std::uint32_t lead = 0xF0; lead <= 0xF4; ++lead) run.add(lead, sequence((lead & 7) << 18, 0x10000, 3, ways));
  }

  void plain(State state, std::uint32_t low, std::uint32_t high, State to) {
    if (low <= high) builder_.add_edge(state, static_cast<std::uint8_t>(low), static_cast<std::uint8_t>(high), to);
  }

  // The spelling of quote_json().
  void escapes(State state, const Ways& ways) {
    State backslash = ByteAutomaton::kDead;
    const auto escape = [&](std::uint32_t code) {
      const Ways way = within(ways, code, code);
      if (way.empty()) return;
      if (backslash == ByteAutomaton::kDead) {
        backslash = builder_.add_state();
        builder_.add_edge(state, '\\', backslash);
      }
      const char character = static_cast<char>(code);
      const std::string spelled = quote_json(std::string_view(&character, 1));
      State from = backslash;
      for (std::size_t i = 2; i + 2 < spelled.size(); ++i) {
        State to = builder_.next(from, static_cast<std::uint8_t>(spelled[i]));
        if (to == ByteAutomaton::kDead) {
          to = builder_.add_state();
          builder_.add_edge(from, spelled[i], to);
        }
        from = to;
      }
      builder_.add_edge(from, spelled[spelled.size() - 2], way[0].to);
    };
    for (std::uint32_t code = 0; code < 0x20; ++code) escape(code);
    escape('"');
    escape('\\');
  }

  // The characters from `base` on, of which `more` bytes are still to come; below `least` they would be overlong forms.
  State sequence(std::uint32_t base, std::uint32_t least, int more, const Ways& ways) {
    const std::uint32_t size = 1U << (6 * more);
    return continuation(within(ways, std::max(base, least), base + size - 1), base, more);
  }

  // The state before the last `more` bytes of the characters from `base` on. The same ways share one.
  State continuation(Ways ways, std::uint32_t base, int more) {
    if (ways.empty()) return ByteAutomaton::kDead;
    if (more == 0) return ways[0].to;
    Ways key = ways;
    for (Way& way : key) way.low -= base, way.high -= base;
    const auto [it, added] = known_.try_emplace({more, std::move(key)}, ByteAutomaton::kDead);
    if (!added) return it->second;
    const State state = builder_.add_state();
    it->second = state;
    const std::uint32_t size = 1U << (6 * (more - 1));
    Run run(builder_, state);
    for (std::uint32_t i = 0; i < 64; ++i) {
      const std::uint32_t from = base + i * size;
      run.add(0x80 + i, continuation(within(ways, from, from + size - 1), from, more - 1));
    }
    return state;
  }

  const CodePointAutomaton& in_;
  WorkBudget& budget_;
  ByteAutomatonBuilder builder_;
  State first_ = 0, end_ = 0;
  std::map<std::pair<int, Ways>, State> known_;
};

}  // namespace

Result<std::optional<ByteAutomaton>> string_automaton(const CodePointAutomaton& characters, WorkBudget& budget) {
  return Expander(characters, budget).run();
}

}  // namespace chiasm
