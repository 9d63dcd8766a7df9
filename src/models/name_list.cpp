#include "models/name_list.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace chiasm {
namespace {

// "0-2,5" of numbers in any order.
std::string ranges(std::vector<std::uint64_t> numbers) {
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  std::string out;
  for (std::size_t first = 0; first < numbers.size();) {
    std::size_t last = first;
    while (last + 1 < numbers.size() && numbers[last + 1] - numbers[last] == 1) ++last;
    if (!out.empty()) out += ',';
    out += last == first ? fmt::format("{}", numbers[first]) : fmt::format("{}-{}", numbers[first], numbers[last]);
    first = last + 1;
  }
  return numbers.size() == 1 ? out : "{" + out + "}";
}

// The first dotted component that is a number as one writes it (no "007", which would not come out as it was).
struct Number {
  std::size_t begin = 0, end = 0;  // equal: there is none
  std::uint64_t value = 0;
};

Number find_number(std::string_view name) {
  for (std::size_t begin = 0; begin < name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    Number out{begin, end, 0};
    const auto [stop, error] = std::from_chars(name.data() + begin, name.data() + end, out.value);
    const bool plain = error == std::errc() && stop == name.data() + end && (name[begin] != '0' || end - begin == 1);
    if (plain) return out;
    begin = end + 1;
  }
  return {};
}

}  // namespace

void NameList::add(std::string_view name, std::string_view detail) {
  ++size_;
  const std::string behind = detail.empty() ? "" : fmt::format(" {}", detail);
  const Number number = find_number(name);
  if (number.begin == number.end) {
    groups_.push_back({fmt::format("{}{}", name, behind), "", {}});
    return;
  }
  std::pair<std::string, std::string> key{name.substr(0, number.begin),
                                          fmt::format("{}{}", name.substr(number.end), behind)};
  const auto [found, is_new] = place_.try_emplace(key, groups_.size());
  if (is_new) groups_.push_back({std::move(key.first), std::move(key.second), {}});
  groups_[found->second].numbers.push_back(number.value);
}

std::string NameList::text() const {
  std::string out;
  for (const Group& group : groups_) {
    if (&group != &groups_.front()) out += ", ";
    out += group.before;
    if (!group.numbers.empty()) out += ranges(group.numbers);
    out += group.after;
  }
  return out;
}

}  // namespace chiasm
