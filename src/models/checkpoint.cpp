#include "models/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "models/name_list.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

bool wants(Role role, Part part) { return role == Role::kWhole || (role == Role::kVision) == (part == Part::kVision); }

std::string_view part_name(Part part) { return part == Part::kVision ? "vision" : "language"; }

// Buffers that old versions of transformers saved although they follow from the config.
bool is_derived(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_pos_emb.inv_freq");
}

constexpr std::string_view kScales = "_scales";

// What a tensor that should be a matrix of this shape is in; kExact where its own shape is none of a quantised one.
Precision precision_of_shape(const TensorInfo& info, const Shape& matrix) {
  if (info.dtype != DType::kU8 || matrix.size() < 2 || info.shape.size() != 2 || info.shape[0] != matrix[0])
    return Precision::kExact;
  const auto count = element_count(matrix);
  if (!count || *count < matrix[0]) return Precision::kExact;
  for (const Precision precision : {Precision::kInt8, Precision::kInt8Fine, Precision::kInt4})
    if (info.shape[1] == integer_format(precision).row_bytes(*count / matrix[0])) return precision;
  return Precision::kExact;
}

constexpr std::string_view kHead = "lm_head.weight", kEmbedding = "model.embed_tokens.weight";

// Every trouble of the tensors with their config, by kind.
struct Troubles {
  NameList missing, unexpected, misshapen, twice, mistyped, misaligned;

  Status status(const std::filesystem::path& dir) const {
    std::string text;
    for (const auto& [kind, names] : {std::pair{"missing", &missing},
                                      {"unexpected", &unexpected},
                                      {"misshapen", &misshapen},
                                      {"given twice", &twice},
                                      {"of a dtype that weights cannot have (accepted: BF16, F16, F32)", &mistyped},
                                      {"not aligned to its dtype in the file", &misaligned}})
      if (!names->empty()) text += fmt::format("; {} {}: {}", names->size(), kind, names->text());
    if (text.empty()) return {};
    return fail(Code::kFailedPrecondition, "{}: the tensors do not fit config.json{}", dir.string(), text);
  }
};

// One pass over both; its pages leave memory as it goes.
bool same_bytes(const Checkpoint& checkpoint, std::string_view a, std::string_view b) {
  constexpr std::size_t kPart = 4U << 20;
  const auto left = checkpoint.tensor(a), right = checkpoint.tensor(b);
  if (!left || !right || left->dtype != right->dtype || left->shape != right->shape) return false;
  bool same = true;
  for (std::size_t begin = 0; same && begin < left->bytes.size(); begin += kPart) {
    const std::size_t size = std::min(kPart, left->bytes.size() - begin);
    const auto x = left->bytes.subspan(begin, size), y = right->bytes.subspan(begin, size);
    same = std::memcmp(x.data(), y.data(), size) == 0;
    checkpoint.release(a, x);
    checkpoint.release(b, y);
  }
  return same;
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::filesystem::path& dir, Role role) {
  Checkpoint out;
  out.dir_ = dir;
  out.role_ = role;
  ASSIGN_OR_RETURN(std::vector<WeightFile> files, find_weight_files(dir));
  ASSIGN_OR_RETURN(out.config_, load_model_config(dir));
  RETURN_IF_ERROR(check_runnable(out.config_, (dir / "config.json").string()));
  ASSIGN_OR_RETURN(const auto preprocessor, find_preprocessor_config(dir));
  if (preprocessor) RETURN_IF_ERROR(check_agreement(out.config_.vision, preprocessor->config, preprocessor->source));
  for (const Part part : {Part::kVision, Part::kLanguage}) {
    const bool there = std::any_of(files.begin(), files.end(), [&](const WeightFile& file) {
      return part == Part::kVision ? file.has_vision : file.has_language;
    });
    if (wants(role, part) && !there)
      return fail(Code::kFailedPrecondition,
                  "{}: this folder holds no {} tensors (is it one half of a split checkpoint?)", dir.string(),
                  part_name(part));
  }

  RETURN_IF_ERROR(out.map_tensors(files));
  if (out.contains(kHead) && out.config_.text.tie_word_embeddings) {
    // transformers 5 ties the two only where they are the same (modeling_utils.py, tie_weights).
    if (same_bytes(out, kHead, kEmbedding)) {
      out.tensors_.erase(out.tensors_.find(kHead));
    } else {
      out.config_.text.tie_word_embeddings = false;
    }
  }
  return out;
}

Status Checkpoint::map_tensors(const std::vector<WeightFile>& files) {
  std::map<std::string, Shape, std::less<>> expected;
  for (const Part part : {Part::kVision, Part::kLanguage}) {
    if (!wants(role_, part)) continue;
    for (auto& [name, shape] :
         part == Part::kVision ? expected_vision_tensors(config_.vision) : expected_language_tensors(config_.text))
      expected.emplace(std::move(name), std::move(shape));
  }
  // Some savers write the tied matrix a second time: it may be there.
  const bool may_have_head = wants(role_, Part::kLanguage) && config_.text.tie_word_embeddings;
  if (may_have_head) expected.emplace(kHead, Shape{config_.text.vocab_size, config_.text.hidden_size});

  Troubles troubles;
  for (const WeightFile& file : files) {
    if (!(wants(role_, Part::kVision) && file.has_vision) && !(wants(role_, Part::kLanguage) && file.has_language))
      continue;
    ASSIGN_OR_RETURN(const std::shared_ptr<const SafetensorsFile> opened, open_weight_file(file));
    for (const auto& [stored_name, info] : opened->view().tensors()) {
      const std::string name = canonical_name(stored_name);
      if (!wants(role_, part_of(name)) || is_derived(name)) continue;
      if (name.ends_with(kScales) && expected.contains(name.substr(0, name.size() - kScales.size()))) {
        if (!tensors_.emplace(name, Place{opened, stored_name}).second) troubles.twice.add(name);
        continue;  // held against its matrix below
      }
      const auto found = expected.find(name);
      if (found == expected.end()) {
        troubles.unexpected.add(stored_name);
        continue;
      }
      if (const Precision precision = precision_of_shape(info, found->second); precision != Precision::kExact) {
        const std::int64_t depth = element_count(found->second).value_or(0) / found->second[0];
        if (!tensors_.emplace(name, Place{opened, stored_name, precision, depth}).second) troubles.twice.add(name);
        continue;
      }
      if (info.shape != found->second)
        troubles.misshapen.add(name,
                               fmt::format("is {}, expected {}", shape_text(info.shape), shape_text(found->second)));
      const auto address = reinterpret_cast<std::uintptr_t>(opened->view().data().data() + info.begin);
      if (!is_weight_dtype(info.dtype)) {
        troubles.mistyped.add(name, fmt::format("({})", dtype_name(info.dtype)));
      } else if (address % size_of(info.dtype) != 0) {
        troubles.misaligned.add(name);
      }
      if (!tensors_.emplace(name, Place{opened, stored_name}).second) troubles.twice.add(name);
    }
  }
  for (auto& [name, place] : tensors_) {
    if (place.precision == Precision::kInt8) {  // its scales say in groups of how many
      const auto scales = tensor(name + std::string(kScales));
      const std::int64_t groups = scales && scales->shape.size() == 2 ? scales->shape[1] : 0;
      if (groups == integer_format(Precision::kInt8Fine).groups(place.depth) &&
          groups != integer_format(Precision::kInt8).groups(place.depth))
        place.precision = Precision::kInt8Fine;
    }
    if (place.precision != Precision::kExact) {
      const auto tensor = quantised(name);
      if (!tensor) {
        troubles.missing.add(name + std::string(kScales));
      } else if (const Status sound = check_quantised(*tensor, place.precision); !sound) {
        troubles.misshapen.add(name, fmt::format("is {}", sound.error().message));
      }
    } else if (name.ends_with(kScales)) {
      const auto matrix = tensors_.find(name.substr(0, name.size() - kScales.size()));
      if (matrix == tensors_.end() || matrix->second.precision == Precision::kExact) troubles.unexpected.add(name);
    }
  }
  for (const auto& [name, shape] : expected)
    if (!contains(name) && !(may_have_head && name == kHead)) troubles.missing.add(name);
  return troubles.status(dir_);
}

Result<TensorView> Checkpoint::tensor(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    return fail(Code::kNotFound, "{}: no tensor '{}' (opened for {})", dir_.string(), name,
                role_ == Role::kWhole    ? "both roles"
                : role_ == Role::kVision ? "vision"
                                         : "language");
  ASSIGN_OR_RETURN(TensorView view, found->second.file->view().tensor(found->second.stored_name));
  view.owner = found->second.file;
  return view;
}

Precision Checkpoint::precision_of(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? Precision::kExact : found->second.precision;
}

Result<QuantisedTensor> Checkpoint::quantised(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end() || found->second.precision == Precision::kExact)
    return fail(Code::kNotFound, "{}: no quantised tensor '{}'", dir_.string(), name);
  QuantisedTensor out;
  ASSIGN_OR_RETURN(out.values, tensor(name));
  ASSIGN_OR_RETURN(out.scales, tensor(std::string(name) + std::string(kScales)));
  out.depth = found->second.depth;
  return out;
}

Precision Checkpoint::precision(Role side) const {
  return precision_of(side == Role::kVision ? "visual.patch_embed.proj.weight"
                                            : "model.layers.0.self_attn.q_proj.weight");
}

Result<Precision> Checkpoint::precision(Role side, std::optional<Precision> asked) const {
  const Precision stored = precision(side);
  if (stored == Precision::kExact) return asked.value_or(stored);
  if (!asked || *asked == stored) return stored;
  return fail(
      Code::kFailedPrecondition,
      "{}: the {} matrices are stored as {}, {} was asked for: leave --precision out, or name the checkpoint that "
      "they were made of",
      dir_.string(), side == Role::kVision ? "vision" : "language", precision_name(stored), precision_name(*asked));
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> out;
  out.reserve(tensors_.size());
  for (const auto& [name, place] : tensors_) out.push_back(name);
  return out;
}

void Checkpoint::bring(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return;
  if (const auto view = tensor(name)) found->second.file->file().bring(view->bytes);
}

void Checkpoint::release(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return;
  if (const auto view = tensor(name)) found->second.file->file().release(view->bytes);
}

void Checkpoint::release(std::string_view name, std::span<const std::byte> part) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) found->second.file->file().release(part);
}

}  // namespace chiasm
