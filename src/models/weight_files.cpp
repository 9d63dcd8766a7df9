#include "models/weight_files.h"

#include <algorithm>

#include "base/json.h"

namespace chiasm {
namespace {

constexpr std::uint64_t kMaxIndexFile = 64 << 20;
constexpr std::string_view kSingle = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";
constexpr std::string_view kExtension = ".safetensors";

// A weight file lies in the checkpoint's folder itself: an index must not be able to point elsewhere.
Status check_file_name(std::string_view name, const JsonValue& value) {
  const bool plain = name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos &&
                     name.ends_with(kExtension) && name.size() > kExtension.size();
  if (!plain)
    return fail(Code::kInvalidArgument, "{}: expected the name of a .safetensors file in the same folder, got '{}'",
                value.where(), name);
  return {};
}

void note(WeightFile& file, std::string_view stored_name) {
  (part_of(canonical_name(stored_name)) == Part::kVision ? file.has_vision : file.has_language) = true;
}

Result<WeightFile> read_header(const std::filesystem::path& path) {
  WeightFile out;
  out.path = path;
  ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(path));
  for (const auto& [name, info] : file.view().tensors()) note(out, name);
  out.open = std::make_shared<const SafetensorsFile>(std::move(file));
  return out;
}

Result<std::vector<WeightFile>> read_index(const std::filesystem::path& dir) {
  ASSIGN_OR_RETURN(const Json json, Json::load((dir / kIndex).string(), kMaxIndexFile));
  ASSIGN_OR_RETURN(const JsonValue map, json.root().at("weight_map"));
  ASSIGN_OR_RETURN(const auto entries, map.members());
  std::map<std::string, WeightFile, std::less<>> files;
  for (const auto& [tensor, value] : entries) {
    ASSIGN_OR_RETURN(const std::string_view name, value.string());
    auto found = files.find(name);
    if (found == files.end()) {
      RETURN_IF_ERROR(check_file_name(name, value));
      found = files.emplace(name, WeightFile{}).first;
      found->second.path = dir / name;
    }
    found->second.indexed.emplace_back(tensor);
    note(found->second, tensor);
  }
  if (files.empty()) return fail(Code::kInvalidArgument, "{}: names no tensors", map.where());
  std::vector<WeightFile> out;
  for (auto& [name, file] : files) out.push_back(std::move(file));
  return out;
}

}  // namespace

std::string canonical_name(std::string_view stored) {
  constexpr std::string_view kVisual = "model.visual.", kLanguage = "model.language_model.";
  if (stored.starts_with(kVisual)) return std::string(stored.substr(kVisual.find("visual")));
  if (stored.starts_with(kLanguage)) return fmt::format("model.{}", stored.substr(kLanguage.size()));
  return std::string(stored);
}

Part part_of(std::string_view canonical) { return canonical.starts_with("visual.") ? Part::kVision : Part::kLanguage; }

Result<std::vector<WeightFile>> find_weight_files(const std::filesystem::path& dir) {
  std::error_code error;
  if (!std::filesystem::is_directory(dir, error))
    return fail(Code::kNotFound, "{}: expected a checkpoint folder, but this is {}", dir.string(),
                std::filesystem::exists(dir, error) ? "not a folder" : "not there");
  if (std::filesystem::exists(dir / kSingle, error)) {
    ASSIGN_OR_RETURN(WeightFile single, read_header(dir / kSingle));
    return std::vector{std::move(single)};
  }
  if (std::filesystem::exists(dir / kIndex, error)) return read_index(dir);

  std::vector<std::filesystem::path> paths;
  std::filesystem::directory_iterator at(dir, error), end;
  for (; !error && at != end; at.increment(error))
    if (at->path().extension() == kExtension && !at->path().filename().string().starts_with('.'))
      paths.push_back(at->path());
  if (error) return fail(Code::kUnavailable, "{}: {}", dir.string(), error.message());
  if (paths.empty()) return fail(Code::kNotFound, "{}: no safetensors files", dir.string());
  std::sort(paths.begin(), paths.end());
  std::vector<WeightFile> out;
  for (const auto& path : paths) {
    ASSIGN_OR_RETURN(WeightFile file, read_header(path));
    out.push_back(std::move(file));
  }
  return out;
}

}  // namespace chiasm
