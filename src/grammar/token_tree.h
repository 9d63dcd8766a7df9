// The bytes of a tokenizer's ordinary tokens as a tree, and what is known beforehand about the insides of strings.
//
// Nodes stand in the order in which a walk meets them: a node's children follow it, and the end of its subtree is one
// number, so that a part that cannot come is passed over at once. Thread contract: immutable once built.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "grammar/byte_automaton.h"
#include "grammar/token_constraint.h"

namespace chiasm {

// What tokens do from one state inside a string, whatever stands around the string.
struct StringTokens {
  // Tokens that do not leave the string: all that lead to one state by completing the same number of characters.
  struct Group {
    ByteAutomaton::State state = 0;
    std::uint32_t characters = 0;
    std::vector<std::int32_t> ids;
  };
  // A node of the tree at which the closing quote has just been read.
  struct Exit {
    std::uint32_t node = 0;
    std::uint32_t characters = 0;
  };
  std::vector<Group> groups;
  std::vector<Exit> exits;
  TokenMask inside{0};  // all groups together
};

class TokenTree : public ConstraintVocabulary {
 public:
  static constexpr std::uint32_t kRoot = 0;

  // The bytes of each token by its id; empty where the id may never be written.
  explicit TokenTree(const std::vector<std::string_view>& tokens);

  std::int64_t vocab_size() const { return vocab_size_; }
  std::string_view bytes(std::int32_t id) const;  // a copy of the tokenizer's

  std::uint32_t size() const { return static_cast<std::uint32_t>(nodes_.size() - 1); }
  std::uint8_t byte(std::uint32_t node) const { return nodes_[node].byte; }
  std::uint32_t depth(std::uint32_t node) const { return nodes_[node].depth; }
  std::uint32_t end(std::uint32_t node) const { return nodes_[node].end; }
  bool has_children(std::uint32_t node) const { return nodes_[node].end > node + 1; }
  std::span<const std::int32_t> tokens(std::uint32_t node) const {
    return std::span(ids_).subspan(nodes_[node].first_id, nodes_[node + 1].first_id - nodes_[node].first_id);
  }
  // The bytes that lead to a node.
  std::string_view path(std::uint32_t node) const {
    return bytes(ids_[nodes_[node].first_id]).substr(0, nodes_[node].depth);
  }
  // kRoot where there is none.
  std::uint32_t child(std::uint32_t node, std::uint8_t byte) const;

  // out[i]: the fewest tokens that spell text.substr(i). All single bytes are tokens, so there are always some.
  std::vector<std::int64_t> fewest_tokens(std::string_view text) const;
  // Distances in tokens for an automaton whose edges lead to later states only, as those of literals do.
  std::vector<std::int64_t> fewest_tokens(const ByteAutomaton& automaton) const;

  const ByteAutomaton& any_string() const { return any_string_; }
  const ByteAutomaton& member_name() const { return member_name_; }
  // For a state of the automaton other than its start and its end.
  const StringTokens& any_string_tokens(ByteAutomaton::State state) const { return any_string_tokens_[state]; }
  const StringTokens& member_name_tokens(ByteAutomaton::State state) const { return member_name_tokens_[state]; }

 private:
  struct Node {
    std::uint32_t end = 0;  // of the subtree
    std::uint32_t first_id = 0;
    std::uint16_t depth = 0;
    std::uint8_t byte = 0;
  };

  std::vector<StringTokens> string_tokens(const ByteAutomaton& automaton) const;
  std::int64_t fewest_from(const ByteAutomaton& automaton, ByteAutomaton::State state, std::uint32_t node,
                           const std::vector<std::int64_t>& distances) const;

  std::int64_t vocab_size_;
  std::vector<char> text_;               // all tokens one after another
  std::vector<std::uint32_t> text_end_;  // one an id, after a leading 0
  std::vector<Node> nodes_;              // and a last one that only ends the ids
  std::vector<std::int32_t> ids_;        // by rising bytes
  std::vector<std::uint32_t> first_;     // child of the root by byte
  ByteAutomaton any_string_, member_name_;
  std::vector<StringTokens> any_string_tokens_, member_name_tokens_;
};

}  // namespace chiasm
