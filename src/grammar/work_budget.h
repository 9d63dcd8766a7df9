// How much work one schema may cause: a hostile one is refused before it takes long.
//
// Thread contract: one thread.
#pragma once

#include <cstddef>

namespace chiasm {

// A unit is a small step: a state looked at, an edge made, a claim copied. Some tens of nanoseconds.
class WorkBudget {
 public:
  static constexpr std::size_t kSchema = 10'000'000;

  explicit WorkBudget(std::size_t units = kSchema) : left_(units) {}

  // False when it is used up, and from then on.
  bool spend(std::size_t units) {
    if (units > left_) left_ = 0;
    left_ -= units < left_ ? units : left_;
    return left_ > 0;
  }
  std::size_t left() const { return left_; }

 private:
  std::size_t left_;
};

}  // namespace chiasm
