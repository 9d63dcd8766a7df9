#include "grammar/json_text.h"

#include <algorithm>

#include <fmt/core.h>

namespace chiasm {

namespace {

using State = ByteAutomaton::State;

class StringBuilder {
 public:
  StringBuilder() {
    const State start = builder_.add_state();
    builder_.add_state();      // kStringBody
    builder_.add_state(true);  // kStringEnd
    builder_.add_edge(start, '"', kStringBody);
    builder_.add_edge(kStringBody, '"', kStringEnd);
    builder_.add_edge(kStringBody, 0x20, 0x21, kStringBody);
    builder_.add_edge(kStringBody, 0x23, 0x5B, kStringBody);
    builder_.add_edge(kStringBody, 0x5D, 0x7F, kStringBody);
    add_utf8();
    escape_ = edge(kStringBody, '\\', '\\');
    for (const char c : {'"', '\\', 'b', 'f', 'n', 'r', 't'}) builder_.add_edge(escape_, c, kStringBody);
  }

  // "\/" and "\uXXXX".
  void add_optional_escapes() {
    builder_.add_edge(escape_, '/', kStringBody);
    const State last = builder_.add_state(), last_two = builder_.add_state(), last_three = builder_.add_state();
    hex(last, "0123456789abcdef", kStringBody);
    hex(last_two, "0123456789abcdef", last);
    hex(last_three, "0123456789abcdef", last_two);
    const State unicode = edge(escape_, 'u', 'u');
    hex(unicode, "0123456789abcef", last_three);
    const State d = builder_.add_state();  // "\ud": up to \ud7ff a character, then the first half of a pair
    hex(unicode, "d", d);
    hex(d, "01234567", last_two);
    const State high_two = builder_.add_state(), high_one = builder_.add_state(), backslash = builder_.add_state();
    hex(d, "89ab", high_two);
    hex(high_two, "0123456789abcdef", high_one);
    hex(high_one, "0123456789abcdef", backslash);
    const State low = edge(edge(backslash, '\\', '\\'), 'u', 'u');
    const State low_d = builder_.add_state();
    hex(low, "d", low_d);
    hex(low_d, "cdef", last_two);
  }

  ByteAutomaton build() const { return *builder_.build(); }

 private:
  State edge(State from, std::uint8_t low, std::uint8_t high) {
    const State to = builder_.add_state();
    builder_.add_edge(from, low, high, to);
    return to;
  }

  void hex(State from, std::string_view digits, State to) {
    for (const char c : digits) {
      builder_.add_edge(from, c, to);
      if (c >= 'a') builder_.add_edge(from, static_cast<char>(c - 'a' + 'A'), to);
    }
  }

  // The Unicode Standard, table 3-7.
  void add_utf8() {
    const State one = edge(kStringBody, 0xC2, 0xDF);
    builder_.add_edge(one, 0x80, 0xBF, kStringBody);
    const State two = edge(kStringBody, 0xE1, 0xEC);
    builder_.add_edge(kStringBody, 0xEE, 0xEF, two);
    builder_.add_edge(two, 0x80, 0xBF, one);
    builder_.add_edge(edge(kStringBody, 0xE0, 0xE0), 0xA0, 0xBF, one);
    builder_.add_edge(edge(kStringBody, 0xED, 0xED), 0x80, 0x9F, one);
    builder_.add_edge(edge(kStringBody, 0xF0, 0xF0), 0x90, 0xBF, two);
    builder_.add_edge(edge(kStringBody, 0xF1, 0xF3), 0x80, 0xBF, two);
    builder_.add_edge(edge(kStringBody, 0xF4, 0xF4), 0x80, 0x8F, two);
  }

  ByteAutomatonBuilder builder_;
  State escape_ = 0;
};

}  // namespace

std::string quote_json(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        else
          out += c;
    }
  }
  return out += '"';
}

std::size_t count_code_points(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

ByteAutomaton any_string_automaton() {
  StringBuilder builder;
  builder.add_optional_escapes();
  return builder.build();
}

ByteAutomaton member_name_automaton() { return StringBuilder().build(); }

}  // namespace chiasm
