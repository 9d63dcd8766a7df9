// What the members of a group of Ops (ops_group.h) tell each other: sums, and columns brought together.
//
// A call takes its place in the order of every member's operations. Thread contract: any thread; calls do not mix.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/buffer.h"

namespace chiasm {

class Collective {
 public:
  virtual ~Collective() = default;
  // views[i] in the memory of member i, all of one shape, F32, rows without gaps: each becomes the sum of all, the same
  // bits everywhere, and those of a row whatever rows stand beside it.
  virtual void sum(std::span<const View> views) const = 0;
  // Likewise; begins [views.size() + 1]: columns [begins[i], begins[i + 1]) of views[i] go to views[0]. What the others
  // hold then is undefined.
  virtual void gather(std::span<const View> views, std::span<const std::int64_t> begins) const = 0;
};

// For members whose memory is the host's.
std::unique_ptr<Collective> make_host_collective();

}  // namespace chiasm
