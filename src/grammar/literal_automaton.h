// Some known texts as an automaton: a tree, whose edges lead to later states only.
//
// Thread contract: pure functions.
#pragma once

#include <string>
#include <vector>

#include "grammar/byte_automaton.h"

namespace chiasm {

// At least one text, none empty.
ByteAutomaton literal_automaton(const std::vector<std::string>& texts);

}  // namespace chiasm
