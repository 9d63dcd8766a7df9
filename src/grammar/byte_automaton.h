// A deterministic automaton over bytes: how strings, numbers and literals of a grammar are spelled.
//
// Every state of a built automaton can reach an accepting one; what cannot is cut off while building. One that was not
// built has no state and matches nothing. Thread contract: immutable once built.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace chiasm {

class ByteAutomaton {
 public:
  using State = std::uint32_t;
  static constexpr State kDead = 0xFFFFFFFF;
  static constexpr State kStart = 0;

  struct Edge {
    std::uint8_t low = 0;
    std::uint8_t high = 0;  // inclusive
    State to = kDead;
  };

  std::size_t size() const { return first_edge_.size() - 1; }
  std::size_t edge_count() const { return edges_.size(); }
  // Disjoint, by rising bytes.
  std::span<const Edge> edges(State state) const {
    return std::span(edges_).subspan(first_edge_[state], first_edge_[state + 1] - first_edge_[state]);
  }
  State next(State state, std::uint8_t byte) const {
    for (const Edge& edge : edges(state))
      if (byte <= edge.high) return byte >= edge.low ? edge.to : kDead;
    return kDead;
  }
  bool accepts(State state) const { return accepts_[state] != 0; }
  // Accepts, and nothing can follow.
  bool is_final(State state) const { return accepts(state) && first_edge_[state] == first_edge_[state + 1]; }
  // Every accepting state is final: what is read says by itself where it ends, as strings do and numbers do not.
  bool is_delimited() const { return delimited_; }
  bool matches(std::string_view text) const;

  // An upper bound of the tokens that lead from `state` to an accepting one; bytes unless set_distances() said better.
  std::int64_t distance(State state) const { return distances_[state]; }
  // One a state. From each state that does not accept some token must lead to a state with a smaller distance.
  void set_distances(std::vector<std::int64_t> distances) { distances_ = std::move(distances); }

 private:
  friend class ByteAutomatonBuilder;
  std::vector<Edge> edges_;
  std::vector<std::uint32_t> first_edge_{0};  // one a state, and the end
  std::vector<std::uint8_t> accepts_;
  std::vector<std::int64_t> distances_;
  bool delimited_ = true;
};

// The first state added is the start.
class ByteAutomatonBuilder {
 public:
  using State = ByteAutomaton::State;

  State add_state(bool accepts = false);
  void set_accepts(State state) { accepts_[state] = 1; }
  bool accepts(State state) const { return accepts_[state] != 0; }
  // Edges of one state must not overlap.
  void add_edge(State from, std::uint8_t low, std::uint8_t high, State to);
  void add_edge(State from, char byte, State to) {
    add_edge(from, static_cast<std::uint8_t>(byte), static_cast<std::uint8_t>(byte), to);
  }
  // Where `byte` leads, kDead if nowhere yet.
  State next(State from, std::uint8_t byte) const;
  std::size_t size() const { return accepts_.size(); }
  std::size_t edge_count() const { return edge_count_; }

  // States keep their order. Nothing where no text is accepted.
  std::optional<ByteAutomaton> build() const;

 private:
  std::vector<std::vector<ByteAutomaton::Edge>> edges_;
  std::vector<std::uint8_t> accepts_;
  std::size_t edge_count_ = 0;
};

}  // namespace chiasm
