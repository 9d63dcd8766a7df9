#include "grammar/schema_claims.h"

#include <algorithm>
#include <utility>

namespace chiasm {

namespace {

constexpr std::size_t kMaxChoices = 256;
constexpr std::size_t kMaxReferences = 256;  // one behind another
constexpr int kMaxLook = 4;                  // so many members deep do two branches have to differ

template <class T>
void append_new(std::vector<T>& to, const std::vector<T>& from) {
  for (const T& item : from)
    if (std::find(to.begin(), to.end(), item) == to.end()) to.push_back(item);
}

}  // namespace

std::uint8_t type_of_spelling(std::string_view scalar) {
  switch (scalar[0]) {
    case '"': return kStringType;
    case 't':
    case 'f': return kBooleanType;
    case 'n': return kNullType;
    default: break;
  }
  const auto number = Decimal::parse(scalar);
  return number && !number->is_integer() ? kFractionType : kIntegerType;
}

Status SchemaClaims::spend(Place place, std::size_t units) {
  if (budget_.spend(units)) return {};
  return document_.unsupported(place, "the schema is too complex: more than {} steps to put it together",
                               WorkBudget::kSchema);
}

Result<Choices> SchemaClaims::expand(const std::vector<Claim>& claims) {
  Choices out{{}};
  for (const Claim& claim : claims) {
    ASSIGN_OR_RETURN(const Choices* const more, expand_claim(claim));
    ASSIGN_OR_RETURN(out, product(claim.place, out, *more));
  }
  return out;
}

Result<const Choices*> SchemaClaims::expand_claim(const Claim& claim) {
  if (const auto it = known_.find(claim); it != known_.end()) return &it->second;
  // Only whether two branches exclude each other is asked, and the answer would need the schema that asks.
  if (looking_ && open_.contains(claim)) return fail(Code::kCancelled, "a schema within itself");
  if (open_.size() >= kMaxReferences)
    return document_.unsupported(claim.place, "more than {} references one behind another", kMaxReferences);
  if (!open_.insert(claim).second)
    return document_.bad(claim.place, "the schema is a part of itself with no member or item in between");
  const auto expanded = [&]() -> Result<Choices> {
    ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
    return expand_fragment(claim, *fragment);
  };
  Result<Choices> choices = expanded();
  open_.erase(claim);
  if (!choices) return tl::unexpected(std::move(choices).error());
  return &known_.emplace(claim, *std::move(choices)).first->second;
}

Result<Choices> SchemaClaims::expand_fragment(const Claim& claim, const Fragment& fragment) {
  Choices out;
  if (fragment.nothing) return out;
  RETURN_IF_ERROR(spend(claim.place, 1 + fragment.structures.size()));
  // What says nothing itself is left out: references to one place are then one choice.
  if (fragment.is_empty())
    out.push_back({});
  else if (fragment.structures.empty() || !fragment.scalars->empty())
    out.push_back({{claim}, {}});
  for (const Claim& structure : fragment.structures)
    out.push_back({{{Claim::Kind::kNoEnum, claim.place}, structure}, {}});
  for (const Claim& part : fragment.all_of) {
    ASSIGN_OR_RETURN(const Choices* const more, expand_claim(part));
    ASSIGN_OR_RETURN(out, product(claim.place, out, *more));
  }
  for (std::size_t i = 0; i < fragment.any_of.size(); ++i) {
    Choices any;
    if (fragment.exclusive[i]) {
      ASSIGN_OR_RETURN(any, exclusive(fragment.any_of[i]));
    } else {
      for (const Claim& branch : fragment.any_of[i]) {
        ASSIGN_OR_RETURN(const Choices* const more, expand_claim(branch));
        RETURN_IF_ERROR(spend(branch.place, more->size() * any.size()));
        append_new(any, *more);
      }
    }
    ASSIGN_OR_RETURN(out, product(claim.place, out, any));
  }
  return out;
}

Result<Choices> SchemaClaims::product(Place place, const Choices& a, const Choices& b) {
  Choices out;
  for (const Conjunction& x : a)
    for (const Conjunction& y : b) {
      Conjunction both = x;
      RETURN_IF_ERROR(spend(place, 2 + x.claims.size() * (1 + y.claims.size())));
      append_new(both.claims, y.claims);
      append_new(both.forced, y.forced);
      // A choice in one place mostly fits one choice in the other.
      if (a.size() > 1 || b.size() > 1) {
        ASSIGN_OR_RETURN(const Outline outline, this->outline(both));
        if (outline.types == 0 || (outline.scalars && outline.scalars->empty())) continue;
      }
      if (out.size() >= kMaxChoices)
        return document_.unsupported(place, "more than {} combinations of choices", kMaxChoices);
      out.push_back(std::move(both));
    }
  return out;
}

Result<Outline> SchemaClaims::outline(const Conjunction& all) {
  Outline out;
  std::uint8_t implied = all.forced.empty() ? 0 : kObjectType;
  bool typed = false;
  for (const Claim& claim : all.claims) {
    ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
    implied |= fragment->implied;
    if (fragment->types) out.types &= *fragment->types;
    typed = typed || fragment->types || fragment->scalars;
    if (!fragment->scalars) continue;
    RETURN_IF_ERROR(spend(claim.place, fragment->scalars->size() * (out.scalars ? out.scalars->size() : 1)));
    if (!out.scalars) {
      out.scalars.emplace();
      append_new(*out.scalars, *fragment->scalars);
    } else {
      std::erase_if(*out.scalars, [&](const std::string& scalar) {
        return std::find(fragment->scalars->begin(), fragment->scalars->end(), scalar) == fragment->scalars->end();
      });
    }
  }
  if (!typed && implied != 0) out.types = implied;
  if (out.scalars) {
    std::uint8_t types = 0;
    std::erase_if(*out.scalars, [&](const std::string& s) { return (type_of_spelling(s) & out.types) == 0; });
    for (const std::string& scalar : *out.scalars) types |= type_of_spelling(scalar);
    out.types = types;
  }
  return out;
}

Result<std::vector<Claim>> SchemaClaims::member_claims(const Conjunction& all, std::optional<std::string_view> name) {
  std::vector<Claim> out;
  for (const Claim& claim : all.claims) {
    ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
    const auto& properties = fragment->properties;
    RETURN_IF_ERROR(spend(claim.place, 1 + properties.size()));
    const auto it =
        name ? std::find_if(properties.begin(), properties.end(), [&](const auto& p) { return p.first == *name; })
             : properties.end();
    const std::optional<Claim> found = it != properties.end() ? std::optional(it->second) : fragment->additional;
    if (found && std::find(out.begin(), out.end(), *found) == out.end()) out.push_back(*found);
  }
  return out;
}

Result<std::vector<std::string_view>> SchemaClaims::member_names(const Conjunction& all) {
  std::vector<std::string_view> out;
  std::set<std::string_view> seen;
  for (const bool declared : {true, false})
    for (const Claim& claim : all.claims) {
      ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
      RETURN_IF_ERROR(spend(claim.place, fragment->properties.size() + fragment->required.size()));
      if (declared) {
        for (const auto& [name, value] : fragment->properties)
          if (seen.insert(name).second) out.push_back(name);
      } else {
        for (const std::string_view name : fragment->required)
          if (seen.insert(name).second) out.push_back(name);
      }
    }
  return out;
}

Result<std::set<std::string_view>> SchemaClaims::required_names(const Conjunction& all) {
  std::set<std::string_view> out(all.forced.begin(), all.forced.end());
  for (const Claim& claim : all.claims) {
    ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
    RETURN_IF_ERROR(spend(claim.place, fragment->required.size()));
    out.insert(fragment->required.begin(), fragment->required.end());
  }
  return out;
}

// The choices of a oneOf: those of all branches, when no value can match two of them.
Result<Choices> SchemaClaims::exclusive(const std::vector<Claim>& branches) {
  std::vector<Choices> all;
  for (const Claim& branch : branches) {
    ASSIGN_OR_RETURN(const Choices* const choices, expand_claim(branch));
    all.push_back(*choices);
  }
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      for (Conjunction& a : all[i])
        for (Conjunction& b : all[j]) {
          ASSIGN_OR_RETURN(const bool apart, disjoint(a, b, 0));
          if (apart) continue;
          ASSIGN_OR_RETURN(const auto member, telling_member(a, b));
          if (!member)
            return document_.unsupported(branches[i].place,
                                         "a value may match this branch of oneOf and {} too; only branches that "
                                         "exclude each other are supported (or use anyOf)",
                                         document_.pointer(branches[j].place));
          append_new(a.forced, {*member});
          append_new(b.forced, {*member});
        }
  Choices out;
  for (const Choices& choices : all) append_new(out, choices);
  return out;
}

Result<bool> SchemaClaims::disjoint(const Conjunction& a, const Conjunction& b, int depth) {
  RETURN_IF_ERROR(spend(a.claims.empty() ? 0 : a.claims[0].place, 10));
  ASSIGN_OR_RETURN(const Outline x, outline(a));
  ASSIGN_OR_RETURN(const Outline y, outline(b));
  const std::uint8_t types = x.types & y.types;
  if (types == 0) return true;
  if (x.scalars && y.scalars)
    return std::none_of(x.scalars->begin(), x.scalars->end(), [&](const std::string& scalar) {
      return std::find(y.scalars->begin(), y.scalars->end(), scalar) != y.scalars->end();
    });
  if ((types & (kNullType | kBooleanType | kStringType)) != 0) return false;
  if ((types & kNumberTypes) != 0) {
    ASSIGN_OR_RETURN(const bool apart, disjoint_numbers(a, b));
    if (!apart) return false;
  }
  if ((types & kArrayType) != 0) {
    ASSIGN_OR_RETURN(const bool apart, disjoint_lengths(a, b));
    if (!apart) return false;
  }
  if ((types & kObjectType) == 0) return true;
  return disjoint_members(a, b, depth);
}

Result<bool> SchemaClaims::disjoint_numbers(const Conjunction& a, const Conjunction& b) {
  NumberRule rules[2];
  for (const auto& [all, rule] : {std::pair{&a, &rules[0]}, std::pair{&b, &rules[1]}})
    for (const Claim& claim : all->claims) {
      ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
      const NumberRule& more = fragment->numbers;
      if (more.low) rule->raise_low(*more.low, more.low_excluded);
      if (more.high) rule->lower_high(*more.high, more.high_excluded);
    }
  const auto above = [](const NumberRule& low, const NumberRule& high) {
    return low.low && high.high && compare(*low.low, *high.high) >= (low.low_excluded || high.high_excluded ? 0 : 1);
  };
  return above(rules[0], rules[1]) || above(rules[1], rules[0]);
}

Result<bool> SchemaClaims::disjoint_lengths(const Conjunction& a, const Conjunction& b) {
  std::int64_t least[2] = {0, 0}, most[2] = {-1, -1};
  for (int i = 0; i < 2; ++i)
    for (const Claim& claim : (i == 0 ? a : b).claims) {
      ASSIGN_OR_RETURN(const Fragment* const fragment, document_.fragment(claim));
      least[i] = std::max(least[i], fragment->min_items);
      if (fragment->max_items >= 0 && (most[i] < 0 || fragment->max_items < most[i])) most[i] = fragment->max_items;
    }
  return (most[0] >= 0 && least[1] > most[0]) || (most[1] >= 0 && least[0] > most[1]);
}

// No value of the member fits both. `possible`: both sides allow the member at all.
Result<bool> SchemaClaims::disjoint_values(const Conjunction& a, const Conjunction& b, std::string_view name, int depth,
                                           bool& possible) {
  ASSIGN_OR_RETURN(const std::vector<Claim> claims_a, member_claims(a, name));
  ASSIGN_OR_RETURN(const std::vector<Claim> claims_b, member_claims(b, name));
  const bool looking = std::exchange(looking_, true);
  const Result<Choices> values_a = expand(claims_a), values_b = expand(claims_b);
  looking_ = looking;
  possible = true;
  for (const auto* values : {&values_a, &values_b}) {
    if (*values) continue;
    if (values->error().code == Code::kCancelled) return false;
    return tl::unexpected(values->error());
  }
  possible = !values_a->empty() && !values_b->empty();
  for (const Conjunction& x : *values_a)
    for (const Conjunction& y : *values_b) {
      ASSIGN_OR_RETURN(const bool apart, disjoint(x, y, depth + 1));
      if (!apart) return false;
    }
  return true;
}

Result<bool> SchemaClaims::disjoint_members(const Conjunction& a, const Conjunction& b, int depth) {
  if (depth >= kMaxLook) return false;
  ASSIGN_OR_RETURN(const std::set<std::string_view> required_a, required_names(a));
  ASSIGN_OR_RETURN(const std::set<std::string_view> required_b, required_names(b));
  for (const auto& [required, other] : {std::pair{&required_a, &required_b}, std::pair{&required_b, &required_a}})
    for (const std::string_view name : *required) {
      bool possible = false;
      ASSIGN_OR_RETURN(const bool apart, disjoint_values(a, b, name, depth, possible));
      if (apart && (!possible || other->contains(name))) return true;
    }
  return false;
}

// A member that would tell two objects apart if it were always there.
Result<std::optional<std::string>> SchemaClaims::telling_member(const Conjunction& a, const Conjunction& b) {
  ASSIGN_OR_RETURN(const Outline x, outline(a));
  ASSIGN_OR_RETURN(const Outline y, outline(b));
  if ((x.types & y.types) != kObjectType) return std::nullopt;
  ASSIGN_OR_RETURN(const std::vector<std::string_view> names_a, member_names(a));
  ASSIGN_OR_RETURN(const std::vector<std::string_view> names_b, member_names(b));
  const std::set<std::string_view> both(names_b.begin(), names_b.end());
  for (const std::string_view name : names_a) {
    if (!both.contains(name)) continue;
    bool possible = false;
    ASSIGN_OR_RETURN(const bool apart, disjoint_values(a, b, name, 0, possible));
    if (apart && possible) return std::string(name);
  }
  return std::nullopt;
}

}  // namespace chiasm
