// Lists of tensor names that stay short without leaving one out: names that differ only in their layer's number become
// one with ranges, "visual.blocks.{0-2,5}.attn.qkv.weight".
//
// Thread contract: one thread a list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chiasm {

class NameList {
 public:
  // `detail` stands behind the name, with a space; names with different details do not fold.
  void add(std::string_view name, std::string_view detail = "");
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Comma-separated; a group stands where its first name came.
  std::string text() const;

 private:
  struct Group {
    std::string before, after;           // around the number; `after` includes the detail
    std::vector<std::uint64_t> numbers;  // none: the name is as it is
  };
  std::vector<Group> groups_;
  std::map<std::pair<std::string, std::string>, std::size_t> place_;  // of the groups with a number
  std::size_t size_ = 0;
};

}  // namespace chiasm
