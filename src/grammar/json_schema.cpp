#include "grammar/json_schema.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "base/check.h"
#include "grammar/json_text.h"
#include "grammar/literal_automaton.h"
#include "grammar/number_automaton.h"
#include "grammar/regex.h"
#include "grammar/schema_claims.h"
#include "grammar/schema_document.h"

namespace chiasm {

namespace {

constexpr std::size_t kMaxValues = 4096;
constexpr std::size_t kMaxAlternatives = 256;  // of one value
constexpr std::int64_t kMaxLeast = 1'000'000;  // of minLength, minItems, minProperties
constexpr std::size_t kMaxDistinct = 32;

using Alternatives = std::vector<Alternative>;

// Code points of a string in its one spelling.
std::int64_t spelled_length(std::string_view spelled) {
  std::int64_t out = 0;
  for (std::size_t i = 1; i + 1 < spelled.size(); ++out) {
    if (spelled[i] == '\\')
      i += spelled[i + 1] == 'u' ? 6 : 2;
    else
      for (++i; (spelled[i] & 0xC0) == 0x80;) ++i;
  }
  return out;
}

class Compiler {
 public:
  Compiler(SchemaDocument& document, const TokenTree& tokens)
      : document_(document), tokens_(tokens), claims_(document, budget_) {
    // Without owner: whoever holds the grammar holds the tokens.
    any_string_ = std::shared_ptr<const ByteAutomaton>(std::shared_ptr<void>(), &tokens.any_string());
    grammar_.name_leaf =
        add_leaf({.kind = Leaf::Kind::kName,
                  .automaton = std::shared_ptr<const ByteAutomaton>(std::shared_ptr<void>(), &tokens.member_name())});
  }

  Result<Grammar> run() {
    ASSIGN_OR_RETURN(grammar_.root, value_of({{Claim::Kind::kSchema, SchemaDocument::kRoot}}));
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      const auto [value, claims] = pending_[i];
      ASSIGN_OR_RETURN(Alternatives alternatives, alternatives_of(*claims));
      grammar_.values[value].alternatives = std::move(alternatives);
    }
    if (!finish_grammar(grammar_, tokens_))
      return document_.bad(SchemaDocument::kRoot, "no value can match the schema");
    return std::move(grammar_);
  }

 private:
  static Place place_of(const Conjunction& all) { return all.claims.empty() ? 0 : all.claims[0].place; }

  // The value that meets all of the claims; what it is comes later, so that schemas may hold themselves.
  Result<ValueId> value_of(const std::vector<Claim>& claims) {
    const auto [it, added] = values_.try_emplace(claims, static_cast<ValueId>(grammar_.values.size()));
    if (added) {
      if (grammar_.values.size() >= kMaxValues)
        return document_.unsupported(claims.empty() ? 0 : claims[0].place, "more than {} different values", kMaxValues);
      grammar_.values.emplace_back();
      pending_.emplace_back(it->second, &it->first);
    }
    return it->second;
  }

  Result<Alternatives> alternatives_of(const std::vector<Claim>& claims) {
    ASSIGN_OR_RETURN(const Choices choices, claims_.expand(claims));
    Alternatives out;
    for (const Conjunction& all : choices) {
      const auto [it, added] = known_.try_emplace(all);
      if (added) {
        ASSIGN_OR_RETURN(it->second, read(all));
      }
      for (const Alternative& alternative : it->second)
        if (std::find(out.begin(), out.end(), alternative) == out.end()) out.push_back(alternative);
      if (out.size() > kMaxAlternatives)
        return document_.unsupported(place_of(all), "more than {} ways to write a value", kMaxAlternatives);
    }
    return out;
  }

  Result<Alternatives> read(const Conjunction& all) {
    Alternatives out;
    const auto add = [&](Alternative::Kind kind, std::optional<std::uint32_t> index) {
      if (index) out.push_back({kind, *index});
    };
    ASSIGN_OR_RETURN(const Outline outline, claims_.outline(all));
    ASSIGN_OR_RETURN(const std::vector<std::string> literals, literals_of(all, outline));
    if (!literals.empty()) add(Alternative::Kind::kLeaf, literal_leaf(literals));
    if (outline.scalars) return out;
    if ((outline.types & kStringType) != 0) {
      ASSIGN_OR_RETURN(const auto leaf, string_leaf(all));
      add(Alternative::Kind::kLeaf, leaf);
    }
    if ((outline.types & kNumberTypes) != 0) {
      ASSIGN_OR_RETURN(const auto leaf, number_leaf(all, (outline.types & kFractionType) == 0));
      add(Alternative::Kind::kLeaf, leaf);
    }
    if ((outline.types & kObjectType) != 0) {
      ASSIGN_OR_RETURN(const auto object, object_rule(all));
      add(Alternative::Kind::kObject, object);
    }
    if ((outline.types & kArrayType) != 0) {
      ASSIGN_OR_RETURN(const auto array, array_rule(all));
      add(Alternative::Kind::kArray, array);
    }
    return out;
  }

  std::uint32_t add_leaf(Leaf leaf) {
    grammar_.leaves.push_back(std::move(leaf));
    return static_cast<std::uint32_t>(grammar_.leaves.size() - 1);
  }

  // Enumerated scalars that all of the keywords allow, else what there is of null, false and true.
  Result<std::vector<std::string>> literals_of(const Conjunction& all, const Outline& outline) {
    std::vector<std::string> out;
    if (!outline.scalars) {
      if ((outline.types & kNullType) != 0) out.emplace_back("null");
      if ((outline.types & kBooleanType) != 0) out.insert(out.end(), {"true", "false"});
      return out;
    }
    for (const std::string& scalar : *outline.scalars) {
      bool fits = true;
      if (type_of_spelling(scalar) == kStringType) {
        ASSIGN_OR_RETURN(const auto index, string_leaf(all));
        const Leaf* leaf = index ? &grammar_.leaves[*index] : nullptr;
        const std::int64_t length = spelled_length(scalar);
        fits = leaf != nullptr && leaf->automaton->matches(scalar) &&
               (leaf->kind == Leaf::Kind::kText || (length >= leaf->min_length && length <= leaf->max_length));
      } else if ((type_of_spelling(scalar) & kNumberTypes) != 0) {
        ASSIGN_OR_RETURN(const NumberRule rule, merged_numbers(all));
        const auto number = Decimal::parse(scalar);
        fits = rule.is_free() || (number && rule.allows(*number));
      }
      if (fits) out.push_back(scalar);
    }
    return out;
  }

  std::uint32_t literal_leaf(std::vector<std::string> literals) {
    std::sort(literals.begin(), literals.end());
    const auto [it, added] = literal_leaves_.try_emplace(literals, 0);
    if (added) {
      ByteAutomaton automaton = literal_automaton(literals);
      automaton.set_distances(tokens_.fewest_tokens(automaton));
      it->second = add_leaf({.automaton = std::make_shared<const ByteAutomaton>(std::move(automaton))});
    }
    return it->second;
  }

  // Nothing where no string matches.
  Result<std::optional<std::uint32_t>> string_leaf(const Conjunction& all) {
    std::int64_t least = 0, most = -1;
    std::vector<std::pair<std::string, Place>> patterns;
    Place place = place_of(all);
    for (const Claim& claim : all.claims) {
      ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
      least = std::max(least, fragment->min_length);
      if (fragment->max_length >= 0 && (most < 0 || fragment->max_length < most)) most = fragment->max_length;
      if (least > 0 || most >= 0) place = claim.place;
      for (const auto& pattern : fragment->patterns)
        if (std::none_of(patterns.begin(), patterns.end(), [&](const auto& p) { return p.first == pattern.first; }))
          patterns.push_back(pattern);
    }
    if (least > kMaxLeast) return document_.unsupported(place, "minLength {}, the limit is {}", least, kMaxLeast);
    if (most >= 0 && least > most) return std::nullopt;
    std::vector<std::string> texts;
    for (const auto& [text, at] : patterns) texts.push_back(text);
    std::sort(texts.begin(), texts.end());
    const auto [it, added] = string_leaves_.try_emplace({least, most, texts}, std::nullopt);
    if (!added) return it->second;
    if (patterns.empty()) {
      it->second = add_leaf({.kind = Leaf::Kind::kString,
                             .automaton = any_string_,
                             .min_length = least,
                             .max_length = most < 0 ? kUnlimited : most});
      return it->second;
    }
    const auto located = [&](Place at, const Error& error) {
      return tl::unexpected(Error{error.code, fmt::format("schema, {}: {}", document_.pointer(at), error.message)});
    };
    std::optional<CodePointAutomaton> characters;
    if (least > 0 || most >= 0) {
      auto length = length_automaton(least, most, budget_);
      if (!length) return located(place, length.error());
      characters = *std::move(length);
    }
    for (const auto& [text, at] : patterns) {
      auto automaton = regex_automaton(text, budget_);
      if (automaton && characters) automaton = intersect(*characters, *automaton, budget_);
      if (!automaton) return located(at, automaton.error());
      characters = *std::move(automaton);
    }
    auto spelled = string_automaton(*characters, budget_);
    if (!spelled) return located(patterns[0].second, spelled.error());
    if (*spelled)
      it->second = add_leaf(
          {.kind = Leaf::Kind::kText, .automaton = std::make_shared<const ByteAutomaton>(**std::move(spelled))});
    return it->second;
  }

  Result<NumberRule> merged_numbers(const Conjunction& all) {
    NumberRule out;
    for (const Claim& claim : all.claims) {
      ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
      const NumberRule& more = fragment->numbers;
      if (more.low) out.raise_low(*more.low, more.low_excluded);
      if (more.high) out.lower_high(*more.high, more.high_excluded);
      if (more.multiple_of && !out.add_multiple(*more.multiple_of))
        return document_.unsupported(claim.place, "multipleOf together with that of another place");
    }
    return out;
  }

  Result<std::optional<std::uint32_t>> number_leaf(const Conjunction& all, bool integer) {
    ASSIGN_OR_RETURN(NumberRule rule, merged_numbers(all));
    rule.integer = integer;
    Place place = place_of(all);
    std::string key = integer ? "i" : "n";
    for (const auto* part : {&rule.low, &rule.high, &rule.multiple_of})
      key += *part ? fmt::format(" {}e{}", (*part)->digits, (*part)->exponent) : " -";
    key += fmt::format(" {} {}", rule.low_excluded, rule.high_excluded);
    const auto [it, added] = number_leaves_.try_emplace(key, std::nullopt);
    if (!added) return it->second;
    auto automaton = number_automaton(rule, budget_);
    if (!automaton) {
      for (const Claim& claim : all.claims) {
        ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
        if (!fragment->numbers.is_free()) place = claim.place;
      }
      return tl::unexpected(
          Error{automaton.error().code, fmt::format("schema, {}: minimum, maximum or multipleOf: {}",
                                                    document_.pointer(place), automaton.error().message)});
    }
    if (*automaton) it->second = add_leaf({.automaton = std::make_shared<const ByteAutomaton>(**std::move(automaton))});
    return it->second;
  }

  Status check_least(Place place, std::string_view keyword, std::int64_t least) {
    if (least <= kMaxLeast) return {};
    return document_.unsupported(place, "{} {}, the limit is {}", keyword, least, kMaxLeast);
  }

  Result<std::optional<std::uint32_t>> object_rule(const Conjunction& all) {
    ObjectRule rule;
    ASSIGN_OR_RETURN(std::vector<std::string_view> names, claims_.member_names(all));
    ASSIGN_OR_RETURN(const std::set<std::string_view> required, claims_.required_names(all));
    ASSIGN_OR_RETURN(const std::vector<Claim> additional, claims_.member_claims(all, std::nullopt));
    ASSIGN_OR_RETURN(const auto allowed, allowed_names(all));
    bool open = !allowed;
    for (const Claim& claim : all.claims) {
      ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
      rule.min_members = std::max(rule.min_members, fragment->min_members);
      if (fragment->max_members >= 0) rule.max_members = std::min(rule.max_members, fragment->max_members);
      RETURN_IF_ERROR(check_least(claim.place, "minProperties", rule.min_members));
    }
    for (const Claim& claim : additional) {
      ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
      open = open && !fragment->nothing;
    }
    if (allowed) {
      // Names that may be written without being declared are optional members.
      for (const std::string& name : *allowed)
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    for (const std::string_view name : names) {
      const bool must = required.contains(name);
      if (allowed && std::find(allowed->begin(), allowed->end(), name) == allowed->end()) {
        if (must) return std::nullopt;
        continue;
      }
      ASSIGN_OR_RETURN(const std::vector<Claim> claims, claims_.member_claims(all, name));
      ASSIGN_OR_RETURN(const ValueId value, value_of(claims));
      rule.properties.push_back({.name = std::string(name), .value = value, .required = must});
    }
    if (open) {
      ASSIGN_OR_RETURN(rule.additional, value_of(additional));
    }
    if (rule.optional_costs() > ObjectRule::kMaxOptionalCosts)
      return document_.unsupported(place_of(all), "minProperties {} with {} properties", rule.min_members, rule.size());
    grammar_.objects.push_back(std::move(rule));
    return static_cast<std::uint32_t>(grammar_.objects.size() - 1);
  }

  // Of propertyNames, which must be an enumeration; nothing where there is none.
  Result<std::optional<std::vector<std::string>>> allowed_names(const Conjunction& all) {
    std::vector<Claim> claims;
    for (const Claim& claim : all.claims) {
      ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
      if (fragment->names) claims.push_back(*fragment->names);
    }
    if (claims.empty()) return std::nullopt;
    ASSIGN_OR_RETURN(const Choices choices, claims_.expand(claims));
    std::vector<std::string> out;
    for (const Conjunction& choice : choices) {
      ASSIGN_OR_RETURN(const Outline outline, claims_.outline(choice));
      if (!outline.scalars) {
        if ((outline.types & kStringType) == 0) continue;
        return document_.unsupported(claims[0].place, "only an enumeration of names is supported");
      }
      ASSIGN_OR_RETURN(const std::vector<std::string> literals, literals_of(choice, outline));
      for (const std::string& literal : literals) {
        if (type_of_spelling(literal) != kStringType) continue;
        // A JSON string is a JSON document.
        const auto name = Json::parse(literal, "name");
        if (name) out.emplace_back(name->root().string().value_or(""));
      }
    }
    RETURN_IF_ERROR(claims_.spend(claims[0].place, out.size() * out.size()));
    return out;
  }

  Result<std::optional<std::uint32_t>> array_rule(const Conjunction& all) {
    ArrayRule rule;
    std::size_t prefix = 0;
    std::optional<Place> distinct;
    for (const Claim& claim : all.claims) {
      ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
      prefix = std::max(prefix, fragment->prefix.size());
      rule.min_items = std::max(rule.min_items, fragment->min_items);
      if (fragment->max_items >= 0) rule.max_items = std::min(rule.max_items, fragment->max_items);
      if (fragment->distinct) distinct = claim.place;
      RETURN_IF_ERROR(check_least(claim.place, "minItems", rule.min_items));
    }
    const auto item_claims = [&](std::size_t i) -> Result<std::vector<Claim>> {
      std::vector<Claim> out;
      for (const Claim& claim : all.claims) {
        ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
        RETURN_IF_ERROR(claims_.spend(claim.place, 1));
        const std::optional<Claim> item =
            i < fragment->prefix.size() ? std::optional(fragment->prefix[i]) : fragment->items;
        if (item && std::find(out.begin(), out.end(), *item) == out.end()) out.push_back(*item);
      }
      return out;
    };
    for (std::size_t i = 0; i < prefix; ++i) {
      ASSIGN_OR_RETURN(const std::vector<Claim> claims, item_claims(i));
      ASSIGN_OR_RETURN(const ValueId value, value_of(claims));
      rule.prefix.push_back(value);
    }
    ASSIGN_OR_RETURN(const std::vector<Claim> claims, item_claims(prefix));
    if (distinct && rule.max_items > 1) {
      if (prefix > 0) return document_.unsupported(*distinct, "uniqueItems together with prefixItems");
      ASSIGN_OR_RETURN(rule.distinct, distinct_values(*distinct, claims));
    } else {
      ASSIGN_OR_RETURN(rule.items, value_of(claims));
    }
    if (rule.distinct.empty() && !rule.items) rule.max_items = 0;
    grammar_.arrays.push_back(std::move(rule));
    return static_cast<std::uint32_t>(grammar_.arrays.size() - 1);
  }

  // One value for each of the enumerated scalars that the claims leave.
  Result<std::vector<ValueId>> distinct_values(Place place, const std::vector<Claim>& claims) {
    ASSIGN_OR_RETURN(const Choices choices, claims_.expand(claims));
    std::set<std::string> literals;
    for (const Conjunction& choice : choices) {
      ASSIGN_OR_RETURN(const Outline outline, claims_.outline(choice));
      if (!outline.scalars && (outline.types & ~(kNullType | kBooleanType)) != 0)
        return document_.unsupported(place, "uniqueItems is supported for items that are enumerated scalars");
      ASSIGN_OR_RETURN(const std::vector<std::string> more, literals_of(choice, outline));
      literals.insert(more.begin(), more.end());
    }
    if (literals.size() > kMaxDistinct)
      return document_.unsupported(place, "uniqueItems of {} different values, the limit is {}", literals.size(),
                                   kMaxDistinct);
    std::vector<ValueId> out;
    for (const std::string& literal : literals) {
      out.push_back(static_cast<ValueId>(grammar_.values.size()));
      grammar_.values.push_back({.alternatives = {{Alternative::Kind::kLeaf, literal_leaf({literal})}}});
    }
    return out;
  }

  SchemaDocument& document_;
  const TokenTree& tokens_;
  WorkBudget budget_;
  SchemaClaims claims_;
  Grammar grammar_;
  std::shared_ptr<const ByteAutomaton> any_string_;
  std::map<std::vector<Claim>, ValueId> values_;
  std::vector<std::pair<ValueId, const std::vector<Claim>*>> pending_;
  std::map<Conjunction, Alternatives> known_;
  std::map<std::vector<std::string>, std::uint32_t> literal_leaves_;
  std::map<std::tuple<std::int64_t, std::int64_t, std::vector<std::string>>, std::optional<std::uint32_t>>
      string_leaves_;
  std::map<std::string, std::optional<std::uint32_t>> number_leaves_;
};

}  // namespace

Result<Grammar> schema_grammar(std::string_view schema, const TokenTree& tokens) {
  ASSIGN_OR_RETURN(const auto document, SchemaDocument::parse(schema));
  return Compiler(*document, tokens).run();
}

Grammar any_object_grammar(const TokenTree& tokens) {
  constexpr std::uint32_t kMaxDepth = 32;
  auto grammar = schema_grammar(R"({"type": "object"})", tokens);
  CHECK(grammar.has_value());
  grammar->max_depth = kMaxDepth;
  return *std::move(grammar);
}

}  // namespace chiasm
