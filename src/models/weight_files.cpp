#include "models/weight_files.h"

#include <algorithm>
#include <cctype>
#include <fstream>

#include "base/json.h"
#include "models/name_list.h"

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

// What lies where weights should, when it is one of the things that people find there instead.
std::string_view other_content(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return "";
  if (std::filesystem::is_empty(path, error)) return "this file is empty: download it again";
  char start[64] = {};
  std::ifstream in(path, std::ios::binary);
  in.read(start, sizeof(start));
  std::string text(start, static_cast<std::size_t>(in.gcount()));
  if (text.starts_with("version https://git-lfs"))
    return "this is a Git LFS pointer, not the weights: run `git lfs pull` in this folder";
  if (text.starts_with("PK\x03\x04") || text.starts_with("\x80\x02"))
    return "this is a PyTorch file, not safetensors: convert it (transformers' save_pretrained writes safetensors)";
  text.erase(0, text.find_first_not_of(" \t\r\n"));
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  if (text.starts_with("<!doctype") || text.starts_with("<html"))
    return "this is a web page (HTML), not the weights: the download went wrong, download it again";
  return "";
}

Result<SafetensorsFile> open_weights(const std::filesystem::path& path) {
  auto file = SafetensorsFile::open(path);
  if (file) return file;
  if (file.error().code == Code::kNotFound) return file;
  if (const std::string_view content = other_content(path); !content.empty())
    return fail(Code::kInvalidArgument, "{}: {}", path.string(), content);
  if (file.error().code == Code::kDataLoss) return fail(Code::kDataLoss, "{}: download it again", file.error().message);
  return file;
}

Result<WeightFile> read_header(const std::filesystem::path& path) {
  WeightFile out;
  out.path = path;
  ASSIGN_OR_RETURN(SafetensorsFile file, open_weights(path));
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
  std::string pytorch;  // the first of these files
  for (; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (at->path().extension() == kExtension && !name.starts_with('.')) paths.push_back(at->path());
    if (name.starts_with("pytorch_model") && name.ends_with(".bin") && (pytorch.empty() || name < pytorch))
      pytorch = name;
  }
  if (error) return fail(Code::kUnavailable, "{}: {}", dir.string(), error.message());
  if (paths.empty())
    return fail(Code::kNotFound, "{}: no safetensors files: expected model.safetensors, or several files and {}{}",
                dir.string(), kIndex,
                pytorch.empty() ? ""
                                : fmt::format("; there is {}, which must be converted (transformers' save_pretrained "
                                              "writes safetensors)",
                                              pytorch));
  std::sort(paths.begin(), paths.end());
  std::vector<WeightFile> out;
  for (const auto& path : paths) {
    ASSIGN_OR_RETURN(WeightFile file, read_header(path));
    out.push_back(std::move(file));
  }
  return out;
}

Result<std::shared_ptr<const SafetensorsFile>> open_weight_file(const WeightFile& file) {
  if (file.open != nullptr) return file.open;
  auto opened = open_weights(file.path);
  if (!opened && opened.error().code == Code::kNotFound)
    return fail(Code::kNotFound, "{}: this file is not there, but {} says that it holds {} tensors: download it again",
                file.path.string(), kIndex, file.indexed.size());
  if (!opened) return tl::unexpected(std::move(opened).error());
  NameList absent;
  for (const std::string& name : file.indexed)
    if (!opened->view().contains(name)) absent.add(name);
  if (!absent.empty())
    return fail(Code::kDataLoss,
                "{}: does not fit {}: {} tensors that the index promises are not in it: {}; download both again",
                file.path.string(), kIndex, absent.size(), absent.text());
  return std::make_shared<const SafetensorsFile>(std::move(*opened));
}

}  // namespace chiasm
