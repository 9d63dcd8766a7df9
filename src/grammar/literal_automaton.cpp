#include "grammar/literal_automaton.h"

namespace chiasm {

ByteAutomaton literal_automaton(const std::vector<std::string>& texts) {
  ByteAutomatonBuilder builder;
  builder.add_state();
  for (const std::string& text : texts) {
    ByteAutomaton::State at = ByteAutomaton::kStart;
    for (const char c : text) {
      ByteAutomaton::State to = builder.next(at, static_cast<std::uint8_t>(c));
      if (to == ByteAutomaton::kDead) {
        to = builder.add_state();
        builder.add_edge(at, c, to);
      }
      at = to;
    }
    builder.set_accepts(at);
  }
  return *builder.build();
}

}  // namespace chiasm
