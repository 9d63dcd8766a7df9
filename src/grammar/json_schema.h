// A JSON schema (2020-12, and what older drafts spell alike) to a grammar.
//
// Enforced: type (also lists), enum, const, properties, required, additionalProperties, propertyNames that is an
// enumeration, minProperties, maxProperties, prefixItems, items (also draft 7's lists with additionalItems), minItems,
// maxItems, uniqueItems (of at most 32 enumerated scalars), minLength, maxLength, pattern (regex.h), format (formats.h;
// others are annotations), minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, anyOf, oneOf, allOf, $ref
// within the document ("#", "#/..."), recursion included. Annotations and unknown keywords say nothing. Any other
// keyword that would constrain (not, if, patternProperties, contains, ...) is kUnimplemented.
//
// What is written is a part of what a schema allows:
//  * members come in the order of `properties`, first those of the schema itself, then of allOf and $ref; members that
//  are
//    not named there come last, if additionalProperties is not false (absent is true, as the standard has it), at most
//    512 in an object. No name comes twice.
//  * a schema without type, enum and const, but with keywords for some types, means these types.
//  * oneOf is anyOf whose branches exclude each other: by type, enumerated values, or a member's values (such a member
//    is always written), or a required member that the other forbids. Branches that may overlap are kUnimplemented.
//  * numbers as number_automaton.h has them, and one spelling for enumerated strings, names, and strings with a pattern
//    or format. Containers that are 64 deep are finished the shortest way.
// Thread contract: pure functions.
#pragma once

#include <string_view>

#include "base/result.h"
#include "grammar/grammar.h"
#include "grammar/token_tree.h"

namespace chiasm {

// Any object, at most 32 containers deep.
Grammar any_object_grammar(const TokenTree& tokens);

Result<Grammar> schema_grammar(std::string_view schema, const TokenTree& tokens);

}  // namespace chiasm
