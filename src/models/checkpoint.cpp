#include "models/checkpoint.h"

#include <algorithm>
#include <optional>

#include "models/weight_files.h"

namespace chiasm {
namespace {

bool wants(Role role, Part part) { return role == Role::kWhole || (role == Role::kVision) == (part == Part::kVision); }

std::string_view part_name(Part part) { return part == Part::kVision ? "vision" : "language"; }

// Buffers that old versions of transformers saved although they follow from the config.
bool is_derived(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_pos_emb.inv_freq");
}

bool is_weight_dtype(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }

// Names of one kind of trouble: "; 3 missing: a, b, c", at most kShown of them.
class Trouble {
 public:
  explicit Trouble(std::string_view kind) : kind_(kind) {}
  void add(std::string what) {
    if (++count_ <= kShown) text_ += (count_ == 1 ? " " : ", ") + std::move(what);
  }
  bool none() const { return count_ == 0; }
  std::string text() const {
    if (none()) return "";
    return fmt::format("; {} {}:{}{}", count_, kind_, text_,
                       count_ > kShown ? fmt::format(" and {} more", count_ - kShown) : "");
  }

 private:
  static constexpr std::size_t kShown = 20;
  std::string_view kind_;
  std::size_t count_ = 0;
  std::string text_;
};

// Opens a file where find_weight_files had no reason to, and holds it against the index.
Result<std::shared_ptr<const SafetensorsFile>> open_indexed(const WeightFile& file) {
  if (file.open != nullptr) return file.open;
  ASSIGN_OR_RETURN(SafetensorsFile opened, SafetensorsFile::open(file.path));
  Trouble absent("tensors that the index promises are not in it");
  for (const std::string& name : file.indexed)
    if (!opened.view().contains(name)) absent.add(name);
  if (!absent.none()) return fail(Code::kDataLoss, "{}: does not fit its index{}", file.path.string(), absent.text());
  return std::make_shared<const SafetensorsFile>(std::move(opened));
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::filesystem::path& dir, Role role) {
  Checkpoint out;
  out.dir_ = dir;
  out.role_ = role;
  ASSIGN_OR_RETURN(std::vector<WeightFile> files, find_weight_files(dir));
  ASSIGN_OR_RETURN(out.config_, load_model_config(dir));
  RETURN_IF_ERROR(check_runnable(out.config_, (dir / "config.json").string()));
  std::error_code ignored;
  if (std::filesystem::exists(dir / "preprocessor_config.json", ignored)) {
    ASSIGN_OR_RETURN(const PreprocessorConfig preprocessor, load_preprocessor_config(dir));
    RETURN_IF_ERROR(check_agreement(out.config_.vision, preprocessor, (dir / "preprocessor_config.json").string()));
  }
  for (const Part part : {Part::kVision, Part::kLanguage}) {
    const bool there = std::any_of(files.begin(), files.end(), [&](const WeightFile& file) {
      return part == Part::kVision ? file.has_vision : file.has_language;
    });
    if (wants(role, part) && !there)
      return fail(Code::kFailedPrecondition,
                  "{}: this folder holds no {} tensors (is it one half of a split checkpoint?)", dir.string(),
                  part_name(part));
  }

  std::map<std::string, Shape, std::less<>> expected;
  for (const Part part : {Part::kVision, Part::kLanguage}) {
    if (!wants(role, part)) continue;
    for (auto& [name, shape] : part == Part::kVision ? expected_vision_tensors(out.config_.vision)
                                                     : expected_language_tensors(out.config_.text))
      expected.emplace(std::move(name), std::move(shape));
  }

  Trouble missing("missing"), unexpected("unexpected"), misshapen("misshapen"), twice("given twice"),
      mistyped("of a dtype that is none of F32, BF16, F16"), misaligned("not aligned to its dtype in the file");
  for (const WeightFile& file : files) {
    if (!(wants(role, Part::kVision) && file.has_vision) && !(wants(role, Part::kLanguage) && file.has_language))
      continue;
    ASSIGN_OR_RETURN(const std::shared_ptr<const SafetensorsFile> opened, open_indexed(file));
    for (const auto& [stored_name, info] : opened->view().tensors()) {
      const std::string name = canonical_name(stored_name);
      if (!wants(role, part_of(name)) || is_derived(name)) continue;
      // Some savers write the tied matrix a second time; the embedding is the one that counts.
      if (name == "lm_head.weight" && out.config_.text.tie_word_embeddings) continue;
      const auto found = expected.find(name);
      if (found == expected.end()) {
        unexpected.add(stored_name);
        continue;
      }
      if (info.shape != found->second)
        misshapen.add(fmt::format("{} is {}, expected {}", name, shape_text(info.shape), shape_text(found->second)));
      if (!is_weight_dtype(info.dtype)) mistyped.add(fmt::format("{} ({})", name, dtype_name(info.dtype)));
      const auto address = reinterpret_cast<std::uintptr_t>(opened->view().data().data() + info.begin);
      if (address % size_of(info.dtype) != 0) misaligned.add(name);
      if (!out.tensors_.emplace(name, Place{opened, stored_name}).second) twice.add(name);
    }
  }
  for (const auto& [name, shape] : expected)
    if (!out.contains(name)) missing.add(name);
  std::string troubles;
  bool any = false;
  for (const Trouble* trouble : {&missing, &unexpected, &misshapen, &twice, &mistyped, &misaligned}) {
    any |= !trouble->none();
    troubles += trouble->text();
  }
  if (any) return fail(Code::kFailedPrecondition, "{}: the tensors do not fit config.json{}", dir.string(), troubles);
  return out;
}

Result<TensorView> Checkpoint::tensor(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    return fail(Code::kNotFound, "{}: no tensor '{}' (opened for {})", dir_.string(), name,
                role_ == Role::kWhole    ? "both roles"
                : role_ == Role::kVision ? "vision"
                                         : "language");
  return found->second.file->view().tensor(found->second.stored_name);
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> out;
  out.reserve(tensors_.size());
  for (const auto& [name, place] : tensors_) out.push_back(name);
  return out;
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
