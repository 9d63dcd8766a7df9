// What several places of a schema claim of one value: references followed, choices multiplied out, exclusive choices
// checked.
//
// Thread contract: one thread at a time.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/schema_document.h"
#include "grammar/work_budget.h"

namespace chiasm {

// Claims that hold together and hold no reference and no choice any more, and members that must be written to tell the
// branches of a oneOf apart.
struct Conjunction {
  std::vector<Claim> claims;
  std::vector<std::string> forced;
  auto operator<=>(const Conjunction&) const = default;
};
using Choices = std::vector<Conjunction>;  // none: nothing matches

// What the claims together say of types and enumerated scalars.
struct Outline {
  std::uint8_t types = kAllTypes;
  std::optional<std::vector<std::string>> scalars;
};

class SchemaClaims {
 public:
  SchemaClaims(SchemaDocument& document, WorkBudget& budget) : document_(document), budget_(budget) {}

  Result<Choices> expand(const std::vector<Claim>& claims);
  Result<Outline> outline(const Conjunction& all);
  // Of a member `name`, or of any that is not declared where `name` is nothing.
  Result<std::vector<Claim>> member_claims(const Conjunction& all, std::optional<std::string_view> name);
  // Declared members in the order in which they are written, then those that are only required.
  Result<std::vector<std::string_view>> member_names(const Conjunction& all);
  Result<std::set<std::string_view>> required_names(const Conjunction& all);

  Status spend(Place place, std::size_t units);

 private:
  Result<const Choices*> expand_claim(const Claim& claim);
  Result<Choices> expand_fragment(const Claim& claim, const Fragment& fragment);
  Result<Choices> product(Place place, const Choices& a, const Choices& b);
  Result<Choices> exclusive(const std::vector<Claim>& branches);
  Result<bool> disjoint(const Conjunction& a, const Conjunction& b, int depth);
  Result<bool> disjoint_members(const Conjunction& a, const Conjunction& b, int depth);
  Result<bool> disjoint_numbers(const Conjunction& a, const Conjunction& b);
  Result<bool> disjoint_lengths(const Conjunction& a, const Conjunction& b);
  Result<bool> disjoint_values(const Conjunction& a, const Conjunction& b, std::string_view name, int depth,
                               bool& possible);
  Result<std::optional<std::string>> telling_member(const Conjunction& a, const Conjunction& b);

  SchemaDocument& document_;
  WorkBudget& budget_;
  std::map<Claim, Choices> known_;
  std::set<Claim> open_;  // being expanded
  bool looking_ = false;  // from disjoint_values()
};

// Of a scalar by its spelling.
std::uint8_t type_of_spelling(std::string_view scalar);

}  // namespace chiasm
