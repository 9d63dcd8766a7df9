#include "models/qwen2_vl/weights.h"

#include <utility>

namespace chiasm {

WeightLoader::WeightLoader(const Checkpoint& checkpoint, const Ops& ops, Role side, Precision precision,
                           const WeightCache* cache)
    : checkpoint_(checkpoint), ops_(ops), precision_(precision), cache_(cache) {
  if (cache_ == nullptr || precision_ == Precision::kExact || ops_.packed_layout().empty()) return;
  if (auto key = cache_->key_of(checkpoint_, side, precision_, ops_.packed_layout())) key_ = std::move(*key);
  if (key_) file_ = cache_->find(*key_);
}

void WeightLoader::finish() {
  if (key_ && !file_ && !rounded_.empty()) cache_->keep(*key_, rounded_);
  rounded_.clear();
}

Result<std::unique_ptr<const Weight>> WeightLoader::kept(const std::string& name, std::int64_t out, std::int64_t in,
                                                         std::span<const TensorView> biases,
                                                         Precision precision) const {
  const PackedEntry* entry = file_ ? file_->find(name) : nullptr;
  if (entry == nullptr || entry->precision != precision || entry->out_features != out || entry->in_features != in)
    return nullptr;
  auto adopted = ops_.adopt({out, in, precision, entry->bytes, file_->owner()}, biases);
  return adopted ? std::move(*adopted) : nullptr;  // what is wrong costs time only
}

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

Result<std::unique_ptr<const Weight>> WeightLoader::prepare(const std::vector<LinearName>& parts, std::int64_t in,
                                                            std::span<const TensorView> biases, Precision precision,
                                                            const Split& split) const {
  const Precision stored = checkpoint_.precision_of(parts.front().name + ".weight");
  if (stored == Precision::kExact) {
    std::vector<TensorView> weights;
    for (const LinearName& part : parts) {
      ASSIGN_OR_RETURN(TensorView view, matrix(part.name + ".weight", part.out, in));
      weights.push_back(std::move(view));
    }
    return precision == Precision::kExact ? ops_.prepare_split(weights, biases, split)
                                          : ops_.quantise(weights, biases, precision);
  }
  std::vector<QuantisedTensor> weights;
  for (const LinearName& part : parts) {
    ASSIGN_OR_RETURN(QuantisedTensor tensor, checkpoint_.quantised(part.name + ".weight"));
    if (tensor.values.shape[0] != part.out || tensor.depth != in)
      return fail(Code::kFailedPrecondition, "expected shape {}, got {} rows of {}", shape_text({part.out, in}),
                  tensor.values.shape[0], tensor.depth);
    weights.push_back(std::move(tensor));
  }
  return ops_.prepare_quantised(weights, biases, stored);
}

Result<std::unique_ptr<const Weight>> WeightLoader::linear(const std::vector<LinearName>& parts, std::int64_t in,
                                                           bool bias, const Split& split) {
  return linear(parts, in, bias, precision_, split);
}

Result<std::unique_ptr<const Weight>> WeightLoader::down(const std::string& name, std::int64_t out, std::int64_t in,
                                                         const Split& split) {
  return linear({{name, out}}, in, false, down_precision(precision_), split);
}

Result<std::unique_ptr<const Weight>> WeightLoader::table(const std::string& name, std::int64_t rows,
                                                          std::int64_t width, const Split& split) {
  return linear({{name, rows}}, width, false, embedding_precision(precision_), split);
}

Result<std::unique_ptr<const Weight>> WeightLoader::linear(const std::vector<LinearName>& parts, std::int64_t in,
                                                           bool bias, Precision precision, const Split& split) {
  std::vector<TensorView> biases;
  for (const LinearName& part : parts) {
    if (!bias) break;
    ASSIGN_OR_RETURN(TensorView values, vector(part.name + ".bias", part.out));
    biases.push_back(std::move(values));
  }
  std::int64_t out = 0;
  for (const LinearName& part : parts) out += part.out;
  const Precision stored = checkpoint_.precision_of(parts.front().name + ".weight");
  const Precision used = stored == Precision::kExact ? precision : stored;
  auto prepared = kept(parts.front().name, out, in, biases, used);
  if (prepared && *prepared == nullptr) {
    prepared = prepare(parts, in, biases, precision, split);
    if (prepared && key_ && !file_) rounded_.push_back({parts.front().name, used, out, in, (*prepared)->packed()});
  }
  if (!prepared)
    return fail_in(checkpoint_.dir().string() + ": tensor '" + parts.front().name + ".weight'", prepared.error());
  for (const LinearName& part : parts) {
    if ((*prepared)->in_place()) {
      checkpoint_.bring(part.name + ".weight");
    } else {
      checkpoint_.release(part.name + ".weight");
    }
    checkpoint_.release(part.name + ".weight_scales");
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
