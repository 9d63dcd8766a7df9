#include "models/qwen2_vl/weights.h"

#include <utility>

namespace chiasm {

Result<TensorView> WeightLoader::matrix(const std::string& name, std::int64_t out, std::int64_t in) const {
  ASSIGN_OR_RETURN(TensorView view, checkpoint_.tensor(name));
  ASSIGN_OR_RETURN(const std::int64_t count, element_count(view.shape));
  if (view.shape.empty() || view.shape[0] != out || count != out * in) {
    return fail(Code::kFailedPrecondition, "{}: tensor '{}': expected shape {}, got {}", checkpoint_.dir().string(),
                name, shape_text({out, in}), shape_text(view.shape));
  }
  return view;
}

Result<TensorView> WeightLoader::vector(const std::string& name, std::int64_t size) const {
  ASSIGN_OR_RETURN(TensorView view, checkpoint_.tensor(name));
  if (view.shape != Shape{size}) {
    return fail(Code::kFailedPrecondition, "{}: tensor '{}': expected shape {}, got {}", checkpoint_.dir().string(),
                name, shape_text({size}), shape_text(view.shape));
  }
  return view;
}

Result<std::unique_ptr<const Weight>> WeightLoader::linear(const std::vector<LinearName>& parts, std::int64_t in,
                                                           bool bias) {
  std::vector<TensorView> weights, biases;
  for (const LinearName& part : parts) {
    ASSIGN_OR_RETURN(TensorView view, matrix(part.name + ".weight", part.out, in));
    weights.push_back(std::move(view));
    if (!bias) continue;
    ASSIGN_OR_RETURN(TensorView values, vector(part.name + ".bias", part.out));
    biases.push_back(std::move(values));
  }
  auto prepared = ops_.prepare(weights, biases);
  if (!prepared)
    return fail_in(checkpoint_.dir().string() + ": tensor '" + parts.front().name + ".weight'", prepared.error());
  for (const LinearName& part : parts) {
    checkpoint_.release(part.name + ".weight");
    if (bias) checkpoint_.release(part.name + ".bias");
  }
  bytes_ += (*prepared)->bytes();
  return std::move(*prepared);
}

Result<Norm> WeightLoader::norm(const std::string& name, std::int64_t width, bool bias) {
  Norm norm;
  ASSIGN_OR_RETURN(norm.weight, upload(name + ".weight", width));
  if (bias) {
    ASSIGN_OR_RETURN(norm.bias, upload(name + ".bias", width));
  }
  return norm;
}

Result<Buffer> WeightLoader::upload(const std::string& name, std::int64_t size) {
  ASSIGN_OR_RETURN(const TensorView view, vector(name, size));
  auto values = to_f32(view);
  if (!values) return fail_in(checkpoint_.dir().string() + ": tensor '" + name + "'", values.error());
  ASSIGN_OR_RETURN(Buffer out, ops_.allocate(1, size));
  ops_.upload(*values, out.view());
  checkpoint_.release(name);
  bytes_ += static_cast<std::uint64_t>(size) * sizeof(float);
  return out;
}

Status show_stage(const Ops& ops, const std::function<void(std::string_view stage, ConstMatrixView value)>& probe,
                  std::string_view stage, ConstView value) {
  if (!probe) return {};
  ASSIGN_OR_RETURN(Matrix host, Matrix::create(value.rows, value.cols));
  RETURN_IF_ERROR(ops.download(value, {host.data(), static_cast<std::size_t>(host.size())}));
  probe(stage, host.view());
  return {};
}

}  // namespace chiasm
