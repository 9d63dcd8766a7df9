// How JSON strings are spelled: the one spelling of a known string, and the automata of strings that the model writes.
//
// Thread contract: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "grammar/byte_automaton.h"

namespace chiasm {

// `text` (UTF-8) as a JSON string in quotes: characters as they are, escapes only where RFC 8259 demands them, and the
// short ones where there are any. Enumerations, property names and strings under a pattern are spelled this way only.
std::string quote_json(std::string_view text);

// Code points of well-formed UTF-8.
std::size_t count_code_points(std::string_view text);

// Both string automata share these states; the others lie inside a character.
inline constexpr ByteAutomaton::State kStringBody = 1;  // between two characters
inline constexpr ByteAutomaton::State kStringEnd = 2;   // after the closing quote

// Any JSON string: well-formed UTF-8, every escape of RFC 8259, surrogates in pairs only.
ByteAutomaton any_string_automaton();

// The same with one spelling for every string, so that two member names are equal when their bytes are. Left out are
// the control characters that have no short escape.
ByteAutomaton member_name_automaton();

}  // namespace chiasm
