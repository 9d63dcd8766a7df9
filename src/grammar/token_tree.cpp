#include "grammar/token_tree.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "grammar/json_text.h"

namespace chiasm {

namespace {

constexpr std::size_t kLongestToken = 4096;  // longer ones are not offered

}  // namespace

std::shared_ptr<const ConstraintVocabulary> ConstraintVocabulary::build(const Tokenizer& tokenizer,
                                                                        std::int64_t vocab_size) {
  std::vector<std::string_view> tokens(static_cast<std::size_t>(std::max<std::int64_t>(vocab_size, 0)));
  const std::int64_t known = std::min(vocab_size, tokenizer.size());
  for (std::int32_t id = 0; id < known; ++id)
    if (!tokenizer.is_added(id) && !tokenizer.is_special(id))
      tokens[static_cast<std::size_t>(id)] = tokenizer.token_bytes(id);
  return std::make_shared<const TokenTree>(tokens);
}

TokenTree::TokenTree(const std::vector<std::string_view>& tokens)
    : vocab_size_(static_cast<std::int64_t>(tokens.size())),
      any_string_(any_string_automaton()),
      member_name_(member_name_automaton()) {
  text_end_.push_back(0);
  for (const std::string_view token : tokens) {
    if (token.size() <= kLongestToken) text_.insert(text_.end(), token.begin(), token.end());
    text_end_.push_back(static_cast<std::uint32_t>(text_.size()));
  }
  for (std::int32_t id = 0; id < vocab_size_; ++id)
    if (!bytes(id).empty()) ids_.push_back(id);
  std::sort(ids_.begin(), ids_.end(), [&](std::int32_t a, std::int32_t b) { return bytes(a) < bytes(b); });

  // Sorted texts come in the order of a walk: each shares the path to the last one as far as they agree.
  nodes_.push_back({});
  std::vector<std::uint32_t> path{kRoot};
  std::string_view last;
  for (std::uint32_t i = 0; i < ids_.size(); ++i) {
    const std::string_view token = bytes(ids_[i]);
    std::size_t same = 0;
    while (same < last.size() && same < token.size() && last[same] == token[same]) ++same;
    for (; path.size() > same + 1; path.pop_back()) nodes_[path.back()].end = static_cast<std::uint32_t>(nodes_.size());
    for (std::size_t at = same; at < token.size(); ++at) {
      path.push_back(static_cast<std::uint32_t>(nodes_.size()));
      nodes_.push_back({0, i, static_cast<std::uint16_t>(at + 1), static_cast<std::uint8_t>(token[at])});
    }
    last = token;
  }
  for (const std::uint32_t node : path) nodes_[node].end = static_cast<std::uint32_t>(nodes_.size());
  nodes_.push_back({0, static_cast<std::uint32_t>(ids_.size()), 0, 0});

  first_.assign(256, kRoot);
  for (std::uint32_t node = 1; node < size(); node = end(node)) first_[byte(node)] = node;
  any_string_tokens_ = string_tokens(any_string_);
  member_name_tokens_ = string_tokens(member_name_);
}

std::string_view TokenTree::bytes(std::int32_t id) const {
  const auto i = static_cast<std::size_t>(id);
  return {text_.data() + text_end_[i], text_end_[i + 1] - text_end_[i]};
}

std::uint32_t TokenTree::child(std::uint32_t node, std::uint8_t wanted) const {
  if (node == kRoot) return first_[wanted];
  for (std::uint32_t at = node + 1; at < end(node); at = end(at))
    if (byte(at) == wanted) return at;
  return kRoot;
}

std::vector<std::int64_t> TokenTree::fewest_tokens(std::string_view text) const {
  std::vector<std::int64_t> out(text.size() + 1, 0);
  for (std::size_t from = text.size(); from-- > 0;) {
    out[from] = out[from + 1] + 1;  // the byte alone
    std::uint32_t node = kRoot;
    for (std::size_t at = from; at < text.size(); ++at) {
      node = child(node, static_cast<std::uint8_t>(text[at]));
      if (node == kRoot) break;
      if (!tokens(node).empty()) out[from] = std::min(out[from], out[at + 1] + 1);
    }
  }
  return out;
}

std::int64_t TokenTree::fewest_from(const ByteAutomaton& automaton, ByteAutomaton::State state, std::uint32_t node,
                                    const std::vector<std::int64_t>& distances) const {
  std::int64_t best = std::numeric_limits<std::int64_t>::max();
  for (const ByteAutomaton::Edge& edge : automaton.edges(state))
    for (unsigned byte = edge.low; byte <= edge.high; ++byte) {
      const std::uint32_t to = child(node, static_cast<std::uint8_t>(byte));
      if (to == kRoot) continue;
      if (!tokens(to).empty()) best = std::min(best, distances[edge.to] + 1);
      if (has_children(to)) best = std::min(best, fewest_from(automaton, edge.to, to, distances));
    }
  return best;
}

std::vector<std::int64_t> TokenTree::fewest_tokens(const ByteAutomaton& automaton) const {
  std::vector<std::int64_t> out(automaton.size());
  for (std::size_t i = automaton.size(); i-- > 0;) {
    const auto state = static_cast<ByteAutomaton::State>(i);
    out[i] = automaton.accepts(state) ? 0 : automaton.distance(state);
    if (out[i] > 0) out[i] = std::min(out[i], fewest_from(automaton, state, kRoot, out));
  }
  return out;
}

std::vector<StringTokens> TokenTree::string_tokens(const ByteAutomaton& automaton) const {
  std::vector<StringTokens> out(automaton.size());
  struct Step {
    ByteAutomaton::State state;
    std::uint32_t characters;
  };
  std::vector<Step> path;
  for (ByteAutomaton::State from = 0; from < automaton.size(); ++from) {
    if (from == ByteAutomaton::kStart || from == kStringEnd) continue;
    out[from].inside = TokenMask(vocab_size_);
    std::map<std::pair<ByteAutomaton::State, std::uint32_t>, std::size_t> groups;
    path.assign(1, {from, 0});
    for (std::uint32_t node = 1; node < size();) {
      path.resize(depth(node));
      const Step last = path.back();
      const ByteAutomaton::State to = automaton.next(last.state, byte(node));
      if (to == ByteAutomaton::kDead || to == kStringEnd) {
        if (to == kStringEnd) out[from].exits.push_back({node, last.characters});
        node = end(node);
        continue;
      }
      path.push_back({to, last.characters + (to == kStringBody ? 1 : 0)});
      if (const auto here = tokens(node); !here.empty()) {
        const auto [it, added] = groups.try_emplace({to, path.back().characters}, out[from].groups.size());
        if (added) out[from].groups.push_back({to, path.back().characters, {}});
        auto& ids = out[from].groups[it->second].ids;
        ids.insert(ids.end(), here.begin(), here.end());
        for (const std::int32_t id : here) out[from].inside.set(id);
      }
      ++node;
    }
  }
  return out;
}

}  // namespace chiasm
