#include "http/accept.h"

#include <algorithm>
#include <charconv>

#include "http/text.h"

namespace chiasm {
namespace {

double weight_of(std::string_view item, std::string_view type) {
  if (!same_word(trimmed(item.substr(0, item.find(';'))), type)) return -1;
  while (item.find(';') != std::string_view::npos) {
    item.remove_prefix(item.find(';') + 1);
    const std::string_view parameter = trimmed(item.substr(0, item.find(';')));
    if (parameter.size() < 3 || !same_word(parameter.substr(0, 2), "q=")) continue;
    double weight = 0;
    const char* const end = parameter.data() + parameter.size();
    const auto read = std::from_chars(parameter.data() + 2, end, weight);
    return read.ec == std::errc() && read.ptr == end && weight >= 0 && weight <= 1 ? weight : 1;
  }
  return 1;
}

}  // namespace

double accept_weight(std::string_view accept, std::string_view type) {
  double best = -1;
  while (!accept.empty()) {
    const std::size_t comma = std::min(accept.find(','), accept.size());
    best = std::max(best, weight_of(accept.substr(0, comma), type));
    accept.remove_prefix(std::min(comma + 1, accept.size()));
  }
  return best;
}

}  // namespace chiasm
