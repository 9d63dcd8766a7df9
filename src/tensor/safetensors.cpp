#include "tensor/safetensors.h"

#include <algorithm>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace chiasm {
namespace {

constexpr std::size_t kPrefix = 8;  // the header's size, u64 little-endian
constexpr std::string_view kMetadata = "__metadata__";

std::uint64_t load_little_endian(std::span<const std::byte> bytes) {
  std::uint64_t out = 0;
  for (std::size_t i = 0; i < kPrefix; ++i) out |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  return out;
}

Result<TensorInfo> parse_tensor(std::string_view name, const JsonValue& value, const std::string& source) {
  const auto in_tensor = [&](const Error& error) {
    return fail_in(fmt::format("{}: tensor '{}'", source, name), error);
  };
  TensorInfo out;
  ASSIGN_OR_RETURN(const JsonValue dtype_value, value.at("dtype"));
  ASSIGN_OR_RETURN(const std::string_view dtype_text, dtype_value.string());
  const auto dtype = dtype_from_name(dtype_text);
  if (!dtype) return in_tensor(dtype.error());
  out.dtype = *dtype;

  ASSIGN_OR_RETURN(const JsonValue shape_value, value.at("shape"));
  ASSIGN_OR_RETURN(const std::vector<JsonValue> sizes, shape_value.elements());
  out.shape.reserve(sizes.size());
  for (const JsonValue& size : sizes) {
    ASSIGN_OR_RETURN(const std::int64_t number, size.integer(0, INT64_MAX));
    out.shape.push_back(number);
  }

  ASSIGN_OR_RETURN(const JsonValue offsets_value, value.at("data_offsets"));
  ASSIGN_OR_RETURN(const std::vector<JsonValue> offsets, offsets_value.elements());
  if (offsets.size() != 2)
    return fail(Code::kInvalidArgument, "{}: expected [begin, end], got {} numbers", offsets_value.where(),
                offsets.size());
  ASSIGN_OR_RETURN(const std::int64_t begin, offsets[0].integer(0, INT64_MAX));
  ASSIGN_OR_RETURN(const std::int64_t end, offsets[1].integer(0, INT64_MAX));
  out.begin = static_cast<std::uint64_t>(begin);
  out.end = static_cast<std::uint64_t>(end);
  if (out.begin > out.end)
    return fail(Code::kInvalidArgument, "{}: expected [begin, end] in this order, got [{}, {}]", offsets_value.where(),
                begin, end);
  const auto bytes = byte_count(out.shape, out.dtype);
  if (!bytes) return in_tensor(bytes.error());
  if (*bytes != out.end - out.begin)
    return fail(Code::kInvalidArgument,
                "{}: tensor '{}' of shape {} and dtype {} has {} bytes, its data_offsets say {}", source, name,
                shape_text(out.shape), dtype_name(out.dtype), *bytes, out.end - out.begin);
  return out;
}

// The tensors must cover the data part exactly, without holes and without sharing.
Status check_cover(const std::map<std::string, TensorInfo, std::less<>>& tensors, std::uint64_t data_size,
                   const std::string& source) {
  std::vector<std::pair<const std::string*, const TensorInfo*>> order;
  order.reserve(tensors.size());
  for (const auto& [name, info] : tensors) order.emplace_back(&name, &info);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  std::uint64_t at = 0;
  for (const auto& [name, info] : order) {
    if (info->begin != at)
      return fail(Code::kInvalidArgument, "{}: tensor '{}' begins at byte {} of the data, expected {} ({})", source,
                  *name, info->begin, at, info->begin < at ? "it overlaps another" : "there is a gap before it");
    at = info->end;
  }
  if (at != data_size)
    return fail(Code::kDataLoss, "{}: the tensors end at byte {} of the data part, which has {}", source, at,
                data_size);
  return {};
}

}  // namespace

Result<SafetensorsView> SafetensorsView::parse(std::span<const std::byte> bytes, std::string source) {
  if (bytes.size() < kPrefix)
    return fail(Code::kDataLoss, "{}: not a safetensors file: expected at least 8 bytes, got {}", source, bytes.size());
  const std::uint64_t header_size = load_little_endian(bytes);
  if (header_size > kMaxSafetensorsHeader)
    return fail(Code::kInvalidArgument, "{}: not a safetensors file: a header of {} bytes, the limit is {}", source,
                header_size, kMaxSafetensorsHeader);
  if (header_size > bytes.size() - kPrefix)
    return fail(Code::kDataLoss, "{}: truncated: {} bytes are there, its header alone needs {}", source, bytes.size(),
                kPrefix + header_size);
  const auto header = bytes.subspan(kPrefix, header_size);
  SafetensorsView out;
  out.data_ = bytes.subspan(kPrefix + header_size);
  out.source_ = std::move(source);

  ASSIGN_OR_RETURN(const Json json, Json::parse({reinterpret_cast<const char*>(header.data()), header.size()},
                                                out.source_ + " (header)"));
  ASSIGN_OR_RETURN(const auto members, json.root().members());
  bool metadata_seen = false;
  for (const auto& [name, value] : members) {
    if (name == kMetadata) {
      if (std::exchange(metadata_seen, true))
        return fail(Code::kInvalidArgument, "{}: __metadata__ occurs twice", out.source_);
      ASSIGN_OR_RETURN(const auto entries, value.members());
      for (const auto& [key, entry] : entries) {
        ASSIGN_OR_RETURN(const std::string_view text, entry.string());
        if (!out.metadata_.emplace(key, text).second)
          return fail(Code::kInvalidArgument, "{}: metadata '{}' occurs twice", out.source_, key);
      }
      continue;
    }
    ASSIGN_OR_RETURN(TensorInfo info, parse_tensor(name, value, out.source_));
    if (!out.tensors_.emplace(name, std::move(info)).second)
      return fail(Code::kInvalidArgument, "{}: tensor '{}' occurs twice", out.source_, name);
  }
  std::uint64_t end = 0;
  for (const auto& [name, info] : out.tensors_) end = std::max(end, info.end);
  if (end > out.data_.size())
    return fail(Code::kDataLoss, "{}: truncated: {} bytes are there, {} are needed", out.source_, bytes.size(),
                kPrefix + header_size + end);
  RETURN_IF_ERROR(check_cover(out.tensors_, out.data_.size(), out.source_));
  return out;
}

Result<TensorView> SafetensorsView::tensor(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return fail(Code::kNotFound, "{}: no tensor '{}'", source_, name);
  const TensorInfo& info = found->second;
  return TensorView{info.dtype, info.shape, data_.subspan(info.begin, info.end - info.begin)};
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  SafetensorsFile out;
  out.file_ = std::make_unique<MappedFile>(std::move(file));
  ASSIGN_OR_RETURN(out.view_, SafetensorsView::parse(out.file_->bytes(), path.string()));
  return out;
}

Result<std::string> safetensors_header(std::span<const NamedTensor> tensors,
                                       const std::map<std::string, std::string, std::less<>>& metadata) {
  try {
    std::set<std::string_view> names;
    std::string json = "{";
    if (!metadata.empty()) json += fmt::format("\"{}\":{}", kMetadata, nlohmann::json(metadata).dump());
    std::uint64_t at = 0;
    for (const auto& [name, tensor] : tensors) {
      ASSIGN_OR_RETURN(const std::uint64_t bytes, byte_count(tensor.shape, tensor.dtype));
      if (bytes != tensor.bytes.size())
        return fail(Code::kInvalidArgument, "tensor '{}' of shape {} and dtype {} has {} bytes, got {}", name,
                    shape_text(tensor.shape), dtype_name(tensor.dtype), bytes, tensor.bytes.size());
      if (name == kMetadata || !names.insert(name).second)
        return fail(Code::kInvalidArgument, "tensor name '{}' is reserved or occurs twice", name);
      if (json.size() > 1) json += ',';
      json += nlohmann::json(name).dump() + ':' +
              nlohmann::ordered_json{
                  {"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {at, at + bytes}}}
                  .dump();
      at += bytes;
    }
    json += '}';
    json.resize((json.size() + 7) / 8 * 8, ' ');
    if (json.size() > kMaxSafetensorsHeader)
      return fail(Code::kResourceExhausted, "a safetensors header of {} bytes, the limit is {}", json.size(),
                  kMaxSafetensorsHeader);
    std::string out;
    for (std::size_t i = 0; i < kPrefix; ++i) out += static_cast<char>(std::uint64_t{json.size()} >> (8 * i));
    return out + json;
  } catch (const nlohmann::json::exception& error) {  // a name or value that is not UTF-8
    return fail(Code::kInvalidArgument, "cannot write a safetensors header: {}", error.what());
  }
}

Status write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                         const std::map<std::string, std::string, std::less<>>& metadata,
                         const std::function<Status(std::span<const std::byte>)>& written) {
  auto header = safetensors_header(tensors, metadata);
  if (!header) return fail_in(path.string(), header.error());
  const std::byte* const header_begin = std::as_bytes(std::span(*header)).data();
  std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(*header))};
  pieces.reserve(tensors.size() + 1);
  for (const NamedTensor& tensor : tensors) pieces.push_back(tensor.tensor.bytes);
  const auto tell = [&](std::span<const std::byte> part) -> Status {
    const bool in_header = part.data() >= header_begin && part.data() < header_begin + header->size();
    return written && !in_header ? written(part) : Status();
  };
  return publish_pieces(path, pieces, tell);
}

}  // namespace chiasm
