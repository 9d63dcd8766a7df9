#include "app/eval_data.h"

#include <utility>

#include "base/json.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kMaxFile = 64ULL << 20;

Result<std::string> text_at(JsonValue object, std::string_view key) {
  ASSIGN_OR_RETURN(const JsonValue value, object.at(key));
  ASSIGN_OR_RETURN(const std::string_view text, value.string());
  return std::string(text);
}

// Names of files beside the JSON file.
Result<std::vector<std::string>> files_at(JsonValue object, std::string_view key, const fs::path& dir) {
  ASSIGN_OR_RETURN(const JsonValue value, object.at(key));
  ASSIGN_OR_RETURN(const std::vector<JsonValue> names, value.elements());
  if (names.empty()) return fail(Code::kInvalidArgument, "{}: expected at least one name", value.where());
  std::vector<std::string> out;
  for (const JsonValue name : names) {
    ASSIGN_OR_RETURN(const std::string_view text, name.string());
    out.push_back((dir / text).string());
  }
  return out;
}

// Attached to the question that the reference was made with, which is added where it is not among the item's.
Status read_reference(JsonValue object, EvalItem& item) {
  const std::optional<JsonValue> reference = object.find("reference");
  if (!reference || reference->is_null()) return {};
  ASSIGN_OR_RETURN(const std::string question, text_at(*reference, "question"));
  ASSIGN_OR_RETURN(const JsonValue ids, reference->at("generated_ids"));
  ASSIGN_OR_RETURN(const std::vector<JsonValue> elements, ids.elements());
  std::vector<std::int32_t> tokens;
  for (const JsonValue element : elements) {
    ASSIGN_OR_RETURN(const std::int64_t id, element.integer(0, INT32_MAX));
    tokens.push_back(static_cast<std::int32_t>(id));
  }
  for (EvalQuestion& candidate : item.questions) {
    if (candidate.question != question) continue;
    candidate.reference_ids = std::move(tokens);
    return {};
  }
  ASSIGN_OR_RETURN(std::string answer, text_at(*reference, "generated"));
  item.questions.push_back({question, std::move(answer), "reference", std::move(tokens)});
  return {};
}

Status read_questions(JsonValue object, EvalItem& item) {
  ASSIGN_OR_RETURN(const JsonValue list, object.at("questions"));
  ASSIGN_OR_RETURN(const std::vector<JsonValue> elements, list.elements());
  for (const JsonValue element : elements) {
    EvalQuestion out;
    ASSIGN_OR_RETURN(out.question, text_at(element, "question"));
    ASSIGN_OR_RETURN(out.answer, text_at(element, "answer"));
    ASSIGN_OR_RETURN(out.kind, text_at(element, "kind"));
    item.questions.push_back(std::move(out));
  }
  return read_reference(object, item);
}

using ReadPictures = Result<std::vector<PictureInput>> (*)(JsonValue, const fs::path&);

Result<std::vector<PictureInput>> one_picture(JsonValue object, const fs::path& dir) {
  ASSIGN_OR_RETURN(const std::string name, text_at(object, "image"));
  return std::vector<PictureInput>{{{(dir / name).string()}, false}};
}
Result<std::vector<PictureInput>> several_pictures(JsonValue object, const fs::path& dir) {
  ASSIGN_OR_RETURN(const std::vector<std::string> files, files_at(object, "images", dir));
  std::vector<PictureInput> out;
  out.reserve(files.size());
  for (const std::string& file : files) out.push_back({{file}, false});
  return out;
}
Result<std::vector<PictureInput>> one_video(JsonValue object, const fs::path& dir) {
  ASSIGN_OR_RETURN(std::vector<std::string> files, files_at(object, "frames", dir));
  return std::vector<PictureInput>{{std::move(files), true}};
}

Status read_items(const fs::path& file, ReadPictures pictures, std::vector<EvalItem>& items) {
  ASSIGN_OR_RETURN(const Json json, Json::load(file.string(), kMaxFile));
  std::vector<JsonValue> records{json.root()};
  if (json.root().is_array()) {
    ASSIGN_OR_RETURN(records, json.root().elements());
  }
  for (const JsonValue record : records) {
    EvalItem item;
    ASSIGN_OR_RETURN(item.pictures, pictures(record, file.parent_path()));
    RETURN_IF_ERROR(read_questions(record, item));
    if (!item.questions.empty()) items.push_back(std::move(item));
  }
  return {};
}

}  // namespace

Result<std::vector<EvalItem>> load_eval(const fs::path& dir) {
  std::error_code error;
  if (!fs::is_regular_file(dir / "truth.json", error))
    return fail(
        Code::kNotFound,
        "'{}' is not an evaluation folder: it has no truth.json; name one with --data DIR (default: MODEL/eval)",
        dir.string());
  std::vector<EvalItem> out;
  RETURN_IF_ERROR(read_items(dir / "truth.json", one_picture, out));
  if (fs::exists(dir / "pair.json", error)) RETURN_IF_ERROR(read_items(dir / "pair.json", several_pictures, out));
  if (fs::exists(dir / "video.json", error)) RETURN_IF_ERROR(read_items(dir / "video.json", one_video, out));
  if (out.empty()) return fail(Code::kInvalidArgument, "{}: no questions", (dir / "truth.json").string());
  return out;
}

}  // namespace chiasm
