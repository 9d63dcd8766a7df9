#include <algorithm>

#include "kernels/collective.h"

namespace chiasm {
namespace {

class HostCollective final : public Collective {
 public:
  void sum(std::span<const View> views) const override {
    const MatrixView first = views[0].f32();
    for (std::int64_t row = 0; row < first.rows; ++row) {
      float* const to = first.row(row);
      for (const View& view : views.subspan(1)) {
        const float* const from = view.f32().row(row);
        for (std::int64_t i = 0; i < first.cols; ++i) to[i] += from[i];
      }
      for (const View& view : views.subspan(1)) std::copy_n(to, first.cols, view.f32().row(row));
    }
  }

  void gather(std::span<const View> views, std::span<const std::int64_t> begins) const override {
    const MatrixView to = views[0].f32();
    for (std::size_t i = 1; i < views.size(); ++i)
      for (std::int64_t row = 0; row < to.rows; ++row)
        std::copy_n(views[i].f32().row(row) + begins[i], begins[i + 1] - begins[i], to.row(row) + begins[i]);
  }
};

}  // namespace

std::unique_ptr<Collective> make_host_collective() { return std::make_unique<HostCollective>(); }

}  // namespace chiasm
