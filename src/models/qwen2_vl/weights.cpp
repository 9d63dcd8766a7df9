#include "models/qwen2_vl/weights.h"

namespace chiasm {

Result<Linear> WeightLoader::linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias) {
  const std::string weight_name = name + ".weight";
  ASSIGN_OR_RETURN(const TensorView view, checkpoint_.tensor(weight_name));
  ASSIGN_OR_RETURN(const std::int64_t count, element_count(view.shape));
  if (view.shape.empty() || view.shape[0] != out || count != out * in) {
    return fail(Code::kFailedPrecondition, "{}: tensor '{}': expected shape {}, got {}", checkpoint_.dir().string(),
                weight_name, shape_text({out, in}), shape_text(view.shape));
  }
  Linear linear;
  auto prepared = ops_.prepare(view);
  if (!prepared) return fail_in(checkpoint_.dir().string() + ": tensor '" + weight_name + "'", prepared.error());
  linear.weight = std::move(*prepared);
  checkpoint_.release(weight_name);
  bytes_ += linear.weight->bytes();
  if (bias) {
    ASSIGN_OR_RETURN(linear.bias, vector(name + ".bias", out));
  }
  return linear;
}

Result<Norm> WeightLoader::norm(const std::string& name, std::int64_t width, bool bias) {
  Norm norm;
  ASSIGN_OR_RETURN(norm.weight, vector(name + ".weight", width));
  if (bias) {
    ASSIGN_OR_RETURN(norm.bias, vector(name + ".bias", width));
  }
  return norm;
}

Result<Matrix> WeightLoader::vector(const std::string& name, std::int64_t size) {
  ASSIGN_OR_RETURN(const TensorView view, checkpoint_.tensor(name));
  if (view.shape != Shape{size}) {
    return fail(Code::kFailedPrecondition, "{}: tensor '{}': expected shape {}, got {}", checkpoint_.dir().string(),
                name, shape_text({size}), shape_text(view.shape));
  }
  auto values = to_f32(view);
  if (!values) return fail_in(checkpoint_.dir().string() + ": tensor '" + name + "'", values.error());
  ASSIGN_OR_RETURN(Matrix out, ops_.allocate(1, size));
  ops_.upload(*values, out.view());
  checkpoint_.release(name);
  bytes_ += static_cast<std::uint64_t>(size) * sizeof(float);
  return out;
}

}  // namespace chiasm
