#include "grammar/byte_automaton.h"

#include <algorithm>
#include <deque>

namespace chiasm {

bool ByteAutomaton::matches(std::string_view text) const {
  if (size() == 0) return false;
  State state = kStart;
  for (const char c : text) {
    state = next(state, static_cast<std::uint8_t>(c));
    if (state == kDead) return false;
  }
  return accepts(state);
}

ByteAutomatonBuilder::State ByteAutomatonBuilder::add_state(bool accepts) {
  edges_.emplace_back();
  accepts_.push_back(accepts ? 1 : 0);
  return static_cast<State>(accepts_.size() - 1);
}

void ByteAutomatonBuilder::add_edge(State from, std::uint8_t low, std::uint8_t high, State to) {
  edges_[from].push_back({low, high, to});
  ++edge_count_;
}

ByteAutomatonBuilder::State ByteAutomatonBuilder::next(State from, std::uint8_t byte) const {
  for (const ByteAutomaton::Edge& edge : edges_[from])
    if (edge.low <= byte && byte <= edge.high) return edge.to;
  return ByteAutomaton::kDead;
}

std::optional<ByteAutomaton> ByteAutomatonBuilder::build() const {
  // Bytes to the nearest accepting state, backwards from those.
  const std::size_t count = accepts_.size();
  std::vector<std::vector<State>> sources(count);
  for (State from = 0; from < count; ++from)
    for (const ByteAutomaton::Edge& edge : edges_[from]) sources[edge.to].push_back(from);
  std::vector<std::int64_t> distances(count, -1);
  std::deque<State> queue;
  for (State state = 0; state < count; ++state)
    if (accepts_[state] != 0) {
      distances[state] = 0;
      queue.push_back(state);
    }
  while (!queue.empty()) {
    const State to = queue.front();
    queue.pop_front();
    for (const State from : sources[to])
      if (distances[from] < 0) {
        distances[from] = distances[to] + 1;
        queue.push_back(from);
      }
  }
  if (count == 0 || distances[0] < 0) return std::nullopt;

  std::vector<State> renamed(count, ByteAutomaton::kDead);
  State kept = 0;
  for (State state = 0; state < count; ++state)
    if (distances[state] >= 0) renamed[state] = kept++;

  ByteAutomaton out;
  for (State state = 0; state < count; ++state) {
    if (distances[state] < 0) continue;
    auto edges = edges_[state];
    std::erase_if(edges, [&](const ByteAutomaton::Edge& edge) { return distances[edge.to] < 0; });
    std::sort(edges.begin(), edges.end(), [](const auto& a, const auto& b) { return a.low < b.low; });
    const std::size_t first = out.edges_.size();
    for (const ByteAutomaton::Edge& edge : edges) {
      const State to = renamed[edge.to];
      if (out.edges_.size() > first && out.edges_.back().to == to && out.edges_.back().high + 1 == edge.low)
        out.edges_.back().high = edge.high;
      else
        out.edges_.push_back({edge.low, edge.high, to});
    }
    out.first_edge_.push_back(static_cast<std::uint32_t>(out.edges_.size()));
    out.accepts_.push_back(accepts_[state]);
    out.distances_.push_back(distances[state]);
    if (accepts_[state] != 0 && out.edges_.size() > first) out.delimited_ = false;
  }
  return out;
}

}  // namespace chiasm
