#include "grammar/regex_syntax.h"

#include <algorithm>
#include <optional>
#include <string>

#include "text/utf8.h"

namespace chiasm {

namespace {

using Kind = RegexState::Kind;

constexpr std::size_t kMaxPattern = 4096;
constexpr std::size_t kMaxStates = 8192;
constexpr int kMaxDepth = 64;
constexpr std::uint32_t kMaxRepeat = 4096;

void normalize(CodePoints& set) {
  std::sort(set.begin(), set.end());
  CodePoints out;
  for (const auto& [low, high] : set) {
    if (!out.empty() && low <= out.back().second + 1)
      out.back().second = std::max(out.back().second, high);
    else
      out.emplace_back(low, high);
  }
  set = std::move(out);
}

CodePoints complement(const CodePoints& set) {
  CodePoints out;
  std::uint32_t from = 0;
  for (const auto& [low, high] : set) {
    if (low > from) out.emplace_back(from, low - 1);
    from = high + 1;
  }
  if (from <= kLastCodePoint) out.emplace_back(from, kLastCodePoint);
  return out;
}

// ECMA-262, CharacterClassEscape and LineTerminator.
const CodePoints& digits() {
  static const CodePoints set{{'0', '9'}};
  return set;
}
const CodePoints& word() {
  static const CodePoints set{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  return set;
}
const CodePoints& space() {
  static const CodePoints set{{0x09, 0x0D},     {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
                              {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
  return set;
}
const CodePoints& line_ends() {
  static const CodePoints set{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
  return set;
}

// A part of the graph with one way in and one open way out: state `out`, a kSplit whose `to` is set later.
struct Part {
  std::uint32_t in = 0, out = 0;
};

struct Tree {
  enum class Kind : std::uint8_t { kEmpty, kSet, kBegin, kEnd, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kEmpty;
  std::uint32_t set = 0;
  std::uint32_t low = 0, high = 0;  // kRepeat; kNowhere: without end
  std::vector<std::uint32_t> parts;
};

class Parser {
 public:
  explicit Parser(std::string_view pattern) : text_(pattern) {}

  Result<RegexGraph> run() {
    ASSIGN_OR_RETURN(const std::uint32_t root, choice(0));
    if (at_ != text_.size()) return bad("a ')' that closes nothing");
    // Matches anywhere: anything may stand before and behind.
    const std::uint32_t before = state({Kind::kSplit}), any = add_set({{0, kLastCodePoint}});
    ASSIGN_OR_RETURN(const Part body, graph(root));
    graph_.states[before].to = body.in;
    graph_.states[before].other = state({Kind::kCharacter, any, before});
    graph_.start = before;
    graph_.accept = state({Kind::kAccept});
    graph_.states[body.out].to = graph_.accept;
    return std::move(graph_);
  }

 private:
  template <class... Args>
  tl::unexpected<Error> bad(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(Code::kInvalidArgument, "not a regular expression, at byte {}: {}", at_,
                fmt::format(format, std::forward<Args>(args)...));
  }
  tl::unexpected<Error> unsupported(std::string_view what) const {
    return fail(Code::kUnimplemented, "at byte {}: {} is not supported in a regular expression", at_, what);
  }

  std::uint32_t tree(Tree node) {
    trees_.push_back(std::move(node));
    return static_cast<std::uint32_t>(trees_.size() - 1);
  }
  std::uint32_t add_set(CodePoints set) {
    normalize(set);
    const auto it = std::find(graph_.sets.begin(), graph_.sets.end(), set);
    if (it != graph_.sets.end()) return static_cast<std::uint32_t>(it - graph_.sets.begin());
    graph_.sets.push_back(std::move(set));
    return static_cast<std::uint32_t>(graph_.sets.size() - 1);
  }
  std::uint32_t set_tree(CodePoints set) { return tree({Tree::Kind::kSet, add_set(std::move(set))}); }

  bool take(std::string_view what) {
    if (!text_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }

  Result<std::uint32_t> choice(int depth) {
    if (depth > kMaxDepth) return unsupported("a group that deep");
    Tree out{Tree::Kind::kChoice};
    do {
      ASSIGN_OR_RETURN(const std::uint32_t part, sequence(depth));
      out.parts.push_back(part);
    } while (take("|"));
    return out.parts.size() == 1 ? out.parts[0] : tree(std::move(out));
  }

  Result<std::uint32_t> sequence(int depth) {
    Tree out{Tree::Kind::kSequence};
    while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')') {
      const bool anchor = text_[at_] == '^' || text_[at_] == '$';
      ASSIGN_OR_RETURN(std::uint32_t part, atom(depth));
      ASSIGN_OR_RETURN(part, repeated(part, anchor));
      out.parts.push_back(part);
    }
    return out.parts.size() == 1 ? out.parts[0] : tree(std::move(out));
  }

  Result<std::uint32_t> repeated(std::uint32_t part, bool anchor) {
    Tree out{Tree::Kind::kRepeat};
    if (take("*")) {
      out.high = RegexState::kNowhere;
    } else if (take("+")) {
      out.low = 1, out.high = RegexState::kNowhere;
    } else if (take("?")) {
      out.high = 1;
    } else if (take("{")) {
      ASSIGN_OR_RETURN(out.low, number());
      out.high = out.low;
      if (take(",")) {
        out.high = RegexState::kNowhere;
        if (at_ < text_.size() && text_[at_] != '}') {
          ASSIGN_OR_RETURN(out.high, number());
        }
      }
      if (!take("}")) return bad("expected '}}' after a repetition");
      if (out.low > out.high) return bad("a repetition from {} to {}", out.low, out.high);
    } else {
      return part;
    }
    if (anchor) return bad("a repeated anchor");
    take("?");  // lazy: another order of trying, the same texts
    if (at_ < text_.size() && std::string_view("*+?{").find(text_[at_]) != std::string_view::npos)
      return bad("a repetition of a repetition");
    out.parts.push_back(part);
    return tree(std::move(out));
  }

  Result<std::uint32_t> number() {
    std::uint32_t out = 0;
    const std::size_t first = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      out = out * 10 + static_cast<std::uint32_t>(text_[at_] - '0');
      if (out > kMaxRepeat) return unsupported(fmt::format("a repetition of more than {}", kMaxRepeat));
    }
    if (first == at_) return bad("expected a number");
    return out;
  }

  Result<std::uint32_t> atom(int depth) {
    if (take("^")) return tree({Tree::Kind::kBegin});
    if (take("$")) return tree({Tree::Kind::kEnd});
    if (take(".")) return set_tree(complement(line_ends()));
    if (take("(")) return group(depth);
    if (take("[")) return character_class();
    if (take("\\")) {
      if (at_ == text_.size()) return bad("a '\\' at the end");
      if (text_[at_] == 'b' || text_[at_] == 'B') return unsupported("\\b");
      ASSIGN_OR_RETURN(CodePoints set, escape(false));
      return set_tree(std::move(set));
    }
    if (std::string_view("*+?{").find(text_[at_]) != std::string_view::npos) return bad("nothing to repeat");
    if (text_[at_] == ']' || text_[at_] == '}') return bad("a '{}' that closes nothing", text_[at_]);
    const std::uint32_t code = character();
    return set_tree({{code, code}});
  }

  Result<std::uint32_t> group(int depth) {
    if (take("?")) {
      if (take("<")) {
        if (take("=") || take("!")) return unsupported("look-behind");
        const std::size_t end = text_.find('>', at_);
        if (end == std::string_view::npos || end == at_) return bad("a group's name without its end");
        at_ = end + 1;
      } else if (take("=") || take("!")) {
        return unsupported("look-ahead");
      } else if (!take(":")) {
        return bad("expected ':' or a name after '(?'");
      }
    }
    ASSIGN_OR_RETURN(const std::uint32_t out, choice(depth + 1));
    if (!take(")")) return bad("expected ')'");
    return out;
  }

  // The pattern is UTF-8: it comes out of a JSON document.
  std::uint32_t character() {
    const Utf8Step step = next_utf8(text_.substr(at_));
    at_ += step.length;
    return step.code < 0 ? 0xFFFD : static_cast<std::uint32_t>(step.code);
  }

  Result<std::uint32_t> hex(std::size_t least, std::size_t most) {
    std::uint32_t out = 0;
    std::size_t count = 0;
    for (; count < most && at_ < text_.size(); ++count, ++at_) {
      const char c = text_[at_];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) break;
      out = out * 16 + static_cast<std::uint32_t>(digit);
    }
    if (count < least) return bad("expected {} hexadecimal digits", least);
    return out;
  }

  // Behind a '\'.
  Result<CodePoints> escape(bool in_class) {
    const char c = text_[at_++];
    const auto one = [](std::uint32_t code) { return CodePoints{{code, code}}; };
    switch (c) {
      case 'd': return digits();
      case 'D': return complement(digits());
      case 'w': return word();
      case 'W': return complement(word());
      case 's': return space();
      case 'S': return complement(space());
      case 'n': return one('\n');
      case 'r': return one('\r');
      case 't': return one('\t');
      case 'f': return one('\f');
      case 'v': return one('\v');
      case 'b': return one('\b');  // in classes only
      case '0':
        if (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') return bad("an octal escape");
        return one(0);
      case 'x': {
        ASSIGN_OR_RETURN(const std::uint32_t code, hex(2, 2));
        return one(code);
      }
      case 'u': return unicode();
      case 'c':
        if (at_ < text_.size() && ((text_[at_] | 0x20) >= 'a' && (text_[at_] | 0x20) <= 'z'))
          return one(static_cast<std::uint32_t>(text_[at_++] & 0x1F));
        return bad("expected a letter after '\\c'");
      case 'p':
      case 'P': return unsupported("\\p");
      case 'k': return unsupported("a back reference");
      case '-':
        if (in_class) return one('-');
        break;
      default: break;
    }
    if (c >= '1' && c <= '9') return unsupported("a back reference");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return bad("an unknown escape '\\{}'", c);
    --at_;
    return one(character());  // what stands for itself: "\." and, as most engines have it, "\-" and "\@"
  }

  Result<CodePoints> unicode() {
    std::uint32_t code = 0;
    if (take("{")) {
      ASSIGN_OR_RETURN(code, hex(1, 6));
      if (!take("}")) return bad("expected '}}' after '\\u{{'");
    } else {
      ASSIGN_OR_RETURN(code, hex(4, 4));
      if (code >= 0xD800 && code < 0xDC00 && take("\\u")) {
        ASSIGN_OR_RETURN(const std::uint32_t low, hex(4, 4));
        if (low < 0xDC00 || low > 0xDFFF) return bad("half a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      }
    }
    if (code > kLastCodePoint || (code >= 0xD800 && code < 0xE000)) return bad("U+{:04X} is no character", code);
    return CodePoints{{code, code}};
  }

  // Behind a '['.
  Result<std::uint32_t> character_class() {
    const bool inverse = take("^");
    CodePoints set;
    while (!take("]")) {
      ASSIGN_OR_RETURN(CodePoints part, class_item());
      if (text_.substr(at_).starts_with("-") && !text_.substr(at_).starts_with("-]")) {
        ++at_;
        ASSIGN_OR_RETURN(const CodePoints last, class_item());
        const auto single = [](const CodePoints& p) { return p.size() == 1 && p[0].first == p[0].second; };
        if (!single(part) || !single(last) || part[0].first > last[0].first) return bad("a range that is none");
        part = {{part[0].first, last[0].first}};
      }
      set.insert(set.end(), part.begin(), part.end());
    }
    normalize(set);
    return set_tree(inverse ? complement(set) : std::move(set));
  }

  Result<CodePoints> class_item() {
    if (at_ >= text_.size()) return bad("a '[' without ']'");
    if (take("\\")) {
      if (at_ == text_.size()) return bad("a '\\' at the end");
      return escape(true);
    }
    const std::uint32_t code = character();
    return CodePoints{{code, code}};
  }

  std::uint32_t state(RegexState state) {
    graph_.states.push_back(state);
    return static_cast<std::uint32_t>(graph_.states.size() - 1);
  }

  Result<Part> graph(std::uint32_t root) {
    if (graph_.states.size() > kMaxStates)
      return fail(Code::kUnimplemented, "a regular expression of more than {} states", kMaxStates);
    const Tree node = trees_[root];
    switch (node.kind) {
      case Tree::Kind::kSet: return leaf({Kind::kCharacter, node.set});
      case Tree::Kind::kBegin: return leaf({Kind::kBegin});
      case Tree::Kind::kEnd: return leaf({Kind::kEnd});
      case Tree::Kind::kEmpty:
      case Tree::Kind::kSequence: {
        Part out;
        out.in = out.out = state({Kind::kSplit});
        for (const std::uint32_t part : node.parts) {
          ASSIGN_OR_RETURN(const Part next, graph(part));
          graph_.states[out.out].to = next.in;
          out.out = next.out;
        }
        return out;
      }
      case Tree::Kind::kChoice: {
        Part out;
        out.out = state({Kind::kSplit});
        std::uint32_t rest = RegexState::kNowhere;
        for (const std::uint32_t part : node.parts) {
          ASSIGN_OR_RETURN(const Part way, graph(part));
          graph_.states[way.out].to = out.out;
          rest = rest == RegexState::kNowhere ? way.in : state({Kind::kSplit, 0, way.in, rest});
        }
        out.in = rest;
        return out;
      }
      case Tree::Kind::kRepeat: return repeat(node);
    }
    return Part{};
  }

  Result<Part> repeat(const Tree& node) {
    Part out;
    out.in = out.out = state({Kind::kSplit});
    for (std::uint32_t i = 0; i < node.low; ++i) {
      ASSIGN_OR_RETURN(const Part next, graph(node.parts[0]));
      graph_.states[out.out].to = next.in;
      out.out = next.out;
    }
    const std::uint32_t end = state({Kind::kSplit});
    if (node.high == RegexState::kNowhere) {
      ASSIGN_OR_RETURN(const Part body, graph(node.parts[0]));
      const std::uint32_t fork = state({Kind::kSplit, 0, body.in, end});
      graph_.states[body.out].to = fork;
      graph_.states[out.out].to = fork;
    } else {
      for (std::uint32_t i = node.low; i < node.high; ++i) {
        ASSIGN_OR_RETURN(const Part next, graph(node.parts[0]));
        graph_.states[out.out].to = state({Kind::kSplit, 0, next.in, end});
        out.out = next.out;
      }
      graph_.states[out.out].to = end;
    }
    out.out = end;
    return out;
  }

  Result<Part> leaf(RegexState what) {
    Part out;
    out.out = state({Kind::kSplit});
    what.to = out.out;
    out.in = state(what);
    return out;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<Tree> trees_;
  RegexGraph graph_;
};

}  // namespace

Result<RegexGraph> parse_regex(std::string_view pattern) {
  if (pattern.size() > kMaxPattern)
    return fail(Code::kUnimplemented, "a regular expression of {} bytes, the limit is {}", pattern.size(), kMaxPattern);
  return Parser(pattern).run();
}

}  // namespace chiasm
