#include "api/image_input.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/base64.h"

namespace chiasm {
namespace {

constexpr std::size_t kLongestUrl = 8 << 10;
constexpr std::size_t kLongestMediaType = 256;
constexpr std::array<std::string_view, 5> kImageTypes = {"image_url", "image_id", "image_features", "image_embeds",
                                                         "url"};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// Many encoders break lines (MIME's 76 characters) or end with one.
bool is_blank(char c) { return c == '\n' || c == '\r' || c == ' ' || c == '\t'; }

ApiResult<std::string> base64_of(const FieldValue& field, std::string_view text) {
  std::string dense;
  if (text.find_first_of("\n\r \t") != std::string_view::npos) {
    dense = text;
    std::erase_if(dense, is_blank);
    text = dense;
  }
  auto out = decode_base64(text);
  if (!out) {
    const bool percent = text.find('%') != std::string_view::npos;
    return invalid(field.path, "{}{}", out.error().message, percent ? " (percent-encoding is not read)" : "");
  }
  if (out->empty()) return invalid(field.path, "expected base64 of at least one byte, got none");
  return std::move(*out);
}

// data:[TYPE][;NAME=VALUE...];base64,DATA (RFC 2397). Any picture type will do, as the bytes say what they are.
ApiResult<std::string> data_uri_bytes(const FieldValue& field, std::string_view uri) {
  const std::string_view rest = uri.substr(std::string_view("data:").size());
  const std::size_t comma = rest.substr(0, kLongestMediaType).find(',');
  if (comma == std::string_view::npos)
    return invalid(field.path, "expected a data URI \"data:image/png;base64,...\", got {}", field.shown());
  const std::string head = lower(rest.substr(0, comma));
  const std::size_t semicolon = head.find(';');
  const std::string_view type = std::string_view(head).substr(0, semicolon);
  const bool unnamed = type.empty() || type == "application/octet-stream" || type == "binary/octet-stream";
  if (!type.starts_with("image/") && !unnamed)
    return invalid(field.path, "expected a data URI of a picture, such as image/png, got the type \"{}\"", type);
  if (!head.ends_with(";base64"))
    return invalid(field.path, "expected \";base64,\" in the data URI, got \"{};\": percent-encoding is not read",
                   type);
  return base64_of(field, rest.substr(comma + 1));
}

ApiResult<ImageInput> read_source(const FieldValue& field) {
  constexpr std::string_view kWhat = "a data URI, or an http or https URL";
  const auto text = field.value.string();
  if (!text) return expected(field, kWhat);
  ImageInput out;
  out.param = field.path;
  const std::string scheme = lower(text->substr(0, 8));
  if (scheme.starts_with("data:")) {
    API_ASSIGN(out.bytes, data_uri_bytes(field, *text));
    return out;
  }
  const std::size_t prefix = scheme.starts_with("http://") ? 7 : scheme.starts_with("https://") ? 8 : 0;
  if (prefix == 0 || text->size() == prefix) return expected(field, kWhat);
  if (text->size() > kLongestUrl)
    return invalid(field.path, "expected a URL of at most {} bytes, got {}", kLongestUrl, text->size());
  const bool printable = std::all_of(text->begin(), text->end(), [](char c) { return c > ' ' && c < 0x7F; });
  if (!printable) return invalid(field.path, "expected a URL of printable ASCII characters, got {}", field.shown());
  out.kind = ImageInput::Kind::kUrl;
  out.url = *text;
  return out;
}

// {"url", "detail"}, or the URL itself as some clients send it.
ApiResult<ImageInput> read_image_url(const FieldValue& field) {
  constexpr std::string_view kWhat = "an object with a url";
  if (field.value.is_string()) return read_source(field);
  API_ASSIGN(const Members members, field.members(kWhat));
  const FieldValue* url = find_member(members, "url");
  if (url == nullptr) return invalid(field.path, "expected {}", kWhat);
  API_ASSIGN(ImageInput out, read_source(*url));
  const FieldValue* detail = find_member(members, "detail");
  if (detail == nullptr) return out;
  API_ASSIGN(const std::string_view word, detail->string());
  if (word == "low") {
    out.detail = ImageInput::Detail::kLow;
  } else if (word == "high") {
    out.detail = ImageInput::Detail::kHigh;
  } else if (word != "auto") {
    return expected(*detail, "one of auto, low, high");
  }
  return out;
}

ApiResult<ImageInput> read_image_id(const FieldValue& field) {
  constexpr std::string_view kWhat = "an id of 64 hexadecimal digits";
  if (field.value.is_object()) {
    API_ASSIGN(const Members members, field.members(kWhat));
    const FieldValue* id = find_member(members, "id");
    if (id == nullptr || id->value.is_object()) return invalid(field.path, "expected an object with an id");
    return read_image_id(*id);
  }
  const auto text = field.value.string();
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); };
  if (!text || text->size() != 64 || !std::all_of(text->begin(), text->end(), is_hex)) return expected(field, kWhat);
  ImageInput out;
  out.kind = ImageInput::Kind::kId;
  out.id = lower(*text);
  out.param = field.path;
  return out;
}

ApiResult<ImageInput> read_features(const FieldValue& field) {
  const auto text = field.value.string();
  if (!text) return expected(field, "a feature file as base64");
  ImageInput out;
  out.kind = ImageInput::Kind::kFeatures;
  out.param = field.path;
  API_ASSIGN(out.bytes, base64_of(field, *text));
  return out;
}

// As vLLM takes them, though as .npy and never as a pickle.
ApiResult<ImageInput> read_embeds(const FieldValue& field) {
  API_ASSIGN(const Members members, field.members("an object with image_embeds and image_grid_thw"));
  ImageInput out;
  out.kind = ImageInput::Kind::kEmbeds;
  out.param = field.path;
  for (const auto& [name, bytes] : {std::pair{"image_embeds", &out.bytes}, {"image_grid_thw", &out.grid}}) {
    const FieldValue* value = find_member(members, name);
    if (value == nullptr) return invalid(fmt::format("{}.{}", field.path, name), "missing, expected base64 of a .npy");
    const auto text = value->value.string();
    if (!text) return expected(*value, "base64 of a .npy");
    API_ASSIGN(*bytes, base64_of(*value, *text));
  }
  return out;
}

}  // namespace

const FieldValue* find_member(const Members& members, std::string_view name) {
  const auto found = std::find_if(members.begin(), members.end(), [&](const auto& one) { return one.first == name; });
  return found == members.end() ? nullptr : &found->second;
}

ApiResult<std::string_view> type_of_part(const FieldValue& part, const Members& members,
                                         std::span<const std::string_view> known,
                                         std::span<const std::string_view> foreign) {
  const auto has = [](std::span<const std::string_view> names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const std::string what = fmt::format("one of {}", fmt::join(known, ", "));
  const FieldValue* type = find_member(members, "type");
  if (type == nullptr) {
    for (const std::string_view name : known)
      if (find_member(members, name) != nullptr) return name;
    return invalid(part.path + ".type", "missing, expected {}", what);
  }
  API_ASSIGN(const std::string_view name, type->string());
  if (has(known, name)) return name;
  if (has(foreign, name))
    return refuse(ErrorKind::kUnsupported, type->path,
                  fmt::format("parts of type {} are not supported here, expected {}", name, what));
  return expected(*type, what);
}

ApiResult<ImageInput> read_image(const FieldValue& field) {
  if (field.value.is_string()) return read_source(field);
  API_ASSIGN(const Members members, field.members("a picture (a data URI, a URL or a part)"));
  API_ASSIGN(const std::string_view type, type_of_part(field, members, kImageTypes, {}));
  if (type == "url") return read_image_url(field);
  const FieldValue* value = find_member(members, type);
  if (value == nullptr) return invalid(field.path, "expected a member \"{}\" beside its type", type);
  if (type == "image_url") return read_image_url(*value);
  if (type == "image_id") return read_image_id(*value);
  if (type == "image_features") return read_features(*value);
  return read_embeds(*value);
}

}  // namespace chiasm
