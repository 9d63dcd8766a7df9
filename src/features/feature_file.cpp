#include "features/feature_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <fstream>
#include <new>

#include "base/file.h"
#include "base/json.h"
#include "tensor/safetensors.h"

namespace chiasm {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors holds little-endian values");

constexpr std::string_view kMark = "chiasm.feature/";  // what every version's format begins with
constexpr std::size_t kMaxModelName = 256;

using Metadata = std::map<std::string, std::string, std::less<>>;

std::string hex16(std::uint64_t value) { return fmt::format("{:016x}", value); }

std::uint64_t header_size(std::span<const std::byte> bytes) {
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof(size));
  return size;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <class... Args>
tl::unexpected<FeatureFileError> bad(FeatureFault fault, std::string_view source, fmt::format_string<Args...> format,
                                     Args&&... args) {
  static constexpr std::array<Code, kFeatureFaults> kCodes = {Code::kNotFound,          Code::kDataLoss,
                                                              Code::kDataLoss,          Code::kInvalidArgument,
                                                              Code::kResourceExhausted, Code::kFailedPrecondition};
  return tl::unexpected<FeatureFileError>(
      FeatureFileError{{kCodes[static_cast<std::size_t>(fault)],
                        fmt::format("{}: {}", source, fmt::format(format, std::forward<Args>(args)...))},
                       fault});
}

// Why bytes whose header fits the file are no safetensors file.
FeatureFault fault_of(std::span<const std::byte> bytes) {
  const std::uint64_t header = header_size(bytes);
  const std::string_view text = text_of(bytes.subspan(8, header));
  if (text.find(kMark) == std::string_view::npos) return FeatureFault::kForeign;
  const auto json = Json::parse(text, "");
  if (!json) return FeatureFault::kCorrupt;
  const auto tensor = json->root().find(kFeatureTensor);
  const auto offsets = tensor ? tensor->find("data_offsets") : std::nullopt;
  if (!offsets) return FeatureFault::kCorrupt;
  const auto elements = offsets->elements();
  if (!elements || elements->size() != 2) return FeatureFault::kCorrupt;
  const auto end = (*elements)[1].integer();
  const auto left = static_cast<std::int64_t>(bytes.size() - 8 - header);
  return end && *end > left ? FeatureFault::kTruncated : FeatureFault::kCorrupt;
}

// "1,16,20" and nothing else: no sign, no space, no leading zero.
std::optional<std::array<std::int64_t, 3>> parse_grid(std::string_view text) {
  std::array<std::int64_t, 3> grid{};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::size_t comma = i < 2 ? text.find(',') : text.size();
    if (comma == std::string_view::npos || comma == 0 || text[0] < '1' || text[0] > '9') return std::nullopt;
    const char* const begin = text.data();
    const char* const stop = begin + comma;
    const auto [end, error] = std::from_chars(begin, stop, grid[i]);
    if (error != std::errc() || end != stop) return std::nullopt;
    text.remove_prefix(i < 2 ? comma + 1 : comma);
  }
  return grid;
}

// Metadata of a file whose checksums hold.
FeatureFileResult<FeatureMeta> parse_meta(const Metadata& fields, DType stored, std::string_view source) {
  FeatureMeta meta{.dtype = stored};
  const auto find = [&](std::string_view name) {
    const auto it = fields.find(name);
    return it == fields.end() ? nullptr : &it->second;
  };
  for (const auto& [name, digest] : {std::pair<std::string_view, Digest*>{"feature_id", &meta.id.digest},
                                     {"vision_digest", &meta.vision_digest},
                                     {"preprocess_digest", &meta.preprocess_digest},
                                     {"image_digest", &meta.image_digest}}) {
    const std::string* text = find(name);
    if (text == nullptr) return bad(FeatureFault::kCorrupt, source, "metadata field '{}' is absent", name);
    const auto value = Digest::from_hex(*text);
    if (!value) return bad(FeatureFault::kCorrupt, source, "metadata field '{}': {}", name, value.error().message);
    *digest = *value;
  }
  const std::string *grid = find("grid_thw"), *model = find("model"), *dtype = find("dtype");
  if (grid == nullptr || model == nullptr || dtype == nullptr)
    return bad(FeatureFault::kCorrupt, source, "metadata field '{}' is absent",
               grid == nullptr    ? "grid_thw"
               : model == nullptr ? "model"
                                  : "dtype");
  const auto sides = parse_grid(*grid);
  if (!sides)
    return bad(FeatureFault::kCorrupt, source,
               "metadata field 'grid_thw': expected three numbers as in '1,16,20', got '{}'", *grid);
  meta.grid_thw = *sides;
  if (model->size() > kMaxModelName)
    return bad(FeatureFault::kCorrupt, source, "metadata field 'model': {} bytes, the limit is {}", model->size(),
               kMaxModelName);
  meta.model = *model;
  if (const std::string* arithmetic = find("arithmetic")) {
    if (arithmetic->size() > kMaxModelName)
      return bad(FeatureFault::kCorrupt, source, "metadata field 'arithmetic': {} bytes, the limit is {}",
                 arithmetic->size(), kMaxModelName);
    meta.arithmetic = *arithmetic;
  }
  if (*dtype != dtype_name(stored))
    return bad(FeatureFault::kCorrupt, source, "metadata field 'dtype' is '{}', the tensor's type is {}", *dtype,
               dtype_name(stored));
  return meta;
}

FeatureFileResult<void> check_checksum(const Metadata& fields, std::string_view name, const std::string& computed,
                                       std::string_view source) {
  const auto it = fields.find(name);
  if (it == fields.end()) return bad(FeatureFault::kCorrupt, source, "metadata field '{}' is absent", name);
  if (it->second != computed)
    return bad(FeatureFault::kCorrupt, source, "checksum '{}' is {}, the bytes give {}", name, it->second, computed);
  return {};
}

FeatureFileResult<void> check_expected(const FeatureMeta& meta, const FeatureExpectations& expected,
                                       std::string_view source) {
  const auto check = [&](std::string_view name, const Digest& got,
                         const std::optional<Digest>& want) -> FeatureFileResult<void> {
    if (want && got != *want)
      return bad(FeatureFault::kMismatch, source, "{} is {}, expected {}", name, got.hex(), want->hex());
    return {};
  };
  if (auto ok = check("vision_digest", meta.vision_digest, expected.vision_digest); !ok) return ok;
  if (auto ok = check("preprocess_digest", meta.preprocess_digest, expected.preprocess_digest); !ok) return ok;
  if (auto ok = check("image_digest", meta.image_digest, expected.image_digest); !ok) return ok;
  // The id after what it is made of: the parts say why it differs.
  if (expected.id && meta.id != *expected.id)
    return bad(FeatureFault::kMismatch, source, "feature_id is {}, expected {}", meta.id.hex(), expected.id->hex());
  if (expected.dtype && meta.dtype != *expected.dtype && meta.dtype != DType::kF32)
    return bad(FeatureFault::kMismatch, source, "dtype is {}, expected {}", dtype_name(meta.dtype),
               expected.dtype == DType::kF32 ? "F32" : fmt::format("{} or F32", dtype_name(*expected.dtype)));
  return {};
}

Matrix decode_rows(const TensorView& tensor) {
  Matrix rows(tensor.shape[0], tensor.shape[1]);
  if (tensor.dtype == DType::kF32) {
    std::memcpy(rows.data(), tensor.bytes.data(), tensor.bytes.size());
    return rows;
  }
  const bool f16 = tensor.dtype == DType::kF16;
  for (std::int64_t i = 0; i < rows.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, tensor.bytes.data() + 2 * i, 2);
    rows.data()[i] = f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
  }
  return rows;
}

FeatureFileResult<Feature> parse_checked(std::span<const std::byte> bytes, std::string_view source,
                                         const FeatureExpectations& expected) {
  if (bytes.size() < 8)
    return bad(FeatureFault::kTruncated, source, "{} bytes, a feature file has at least 8", bytes.size());
  const std::uint64_t header = header_size(bytes);
  if (header > kMaxFeatureHeader)
    return bad(FeatureFault::kForeign, source, "not a feature file: a header of {} bytes, the limit is {}", header,
               kMaxFeatureHeader);
  if (header > bytes.size() - 8)
    return bad(FeatureFault::kTruncated, source, "a header of {} bytes in a file of {}", header, bytes.size());

  const auto view = SafetensorsView::parse(bytes, std::string(source));
  if (!view) return tl::unexpected<FeatureFileError>(FeatureFileError{view.error(), fault_of(bytes)});
  const Metadata& fields = view->metadata();
  const auto format = fields.find("format");
  if (format == fields.end() || format->second != kFeatureFormat)
    return bad(FeatureFault::kForeign, source, "not a feature file: metadata field 'format' is {}, expected '{}'",
               format == fields.end() ? "absent" : fmt::format("'{}'", format->second), kFeatureFormat);
  if (auto ok = check_checksum(fields, "xxh3_metadata", metadata_checksum(fields), source); !ok)
    return tl::unexpected(std::move(ok).error());

  const auto tensor = view->tensor(kFeatureTensor);
  if (!tensor || view->tensors().size() != 1 || tensor->shape.size() != 2 ||
      (tensor->dtype != DType::kF32 && tensor->dtype != DType::kF16 && tensor->dtype != DType::kBF16))
    return bad(
        FeatureFault::kCorrupt, source, "expected one tensor '{}' [rows, width] of F32, F16 or BF16, got {} tensors{}",
        kFeatureTensor, view->tensors().size(),
        tensor ? fmt::format(", '{}' {} of {}", kFeatureTensor, shape_text(tensor->shape), dtype_name(tensor->dtype))
               : std::string());
  if (auto ok = check_checksum(fields, "xxh3", payload_checksum(tensor->bytes), source); !ok)
    return tl::unexpected(std::move(ok).error());
  auto meta = parse_meta(fields, tensor->dtype, source);
  if (!meta) return tl::unexpected(std::move(meta).error());
  if (auto ok = check_shape(meta->grid_thw, tensor->shape[0], tensor->shape[1], 0, 0); !ok)
    return bad(FeatureFault::kCorrupt, source, "{}", ok.error().message);
  if (auto ok = check_expected(*meta, expected, source); !ok) return tl::unexpected(std::move(ok).error());
  if (auto ok = check_shape(meta->grid_thw, tensor->shape[0], tensor->shape[1], expected.merge, expected.width); !ok)
    return bad(FeatureFault::kMismatch, source, "{}", ok.error().message);

  Feature feature{std::move(*meta), decode_rows(*tensor)};
  if (auto ok = check_rows(feature.meta, feature.rows.view(), 0, 0); !ok)
    return bad(FeatureFault::kCorrupt, source, "{}", ok.error().message);
  if (expected.dtype)
    if (auto ok = round_feature(feature, *expected.dtype); !ok)
      return bad(FeatureFault::kMismatch, source, "{}", ok.error().message);
  return feature;
}

// The tensor's bytes in `dtype`: the rows themselves for F32, else `halves`, which is filled.
Result<std::span<const std::byte>> encode_rows(const Matrix& rows, DType dtype, std::vector<std::uint16_t>& halves) {
  if (dtype == DType::kF32) return std::as_bytes(std::span(rows.data(), static_cast<std::size_t>(rows.size())));
  const bool f16 = dtype == DType::kF16;
  const std::uint16_t exponent = f16 ? 0x7c00 : 0x7f80;
  halves.resize(static_cast<std::size_t>(rows.size()));
  for (std::size_t i = 0; i < halves.size(); ++i) {
    const float value = rows.data()[i];
    halves[i] = f16 ? f32_to_f16(value) : f32_to_bf16(value);
    if ((halves[i] & exponent) == exponent)
      return fail(Code::kInvalidArgument, "value {} does not fit {}", value, dtype_name(dtype));
  }
  return std::as_bytes(std::span(halves));
}

Result<std::vector<std::byte>> serialize_checked(const Feature& feature, DType dtype) {
  const FeatureMeta& meta = feature.meta;
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16)
    return fail(Code::kInvalidArgument, "a feature is F32, F16 or BF16, not {}", dtype_name(dtype));
  // A file's type says how exact its values are.
  if (meta.dtype != dtype && meta.dtype != DType::kF32)
    return fail(Code::kInvalidArgument, "the feature is rounded to {} and cannot be stored as {}",
                dtype_name(meta.dtype), dtype_name(dtype));
  if (meta.model.size() > kMaxModelName)
    return fail(Code::kInvalidArgument, "model name of {} bytes, the limit is {}", meta.model.size(), kMaxModelName);
  if (meta.arithmetic.size() > kMaxModelName)
    return fail(Code::kInvalidArgument, "arithmetic of {} bytes, the limit is {}", meta.arithmetic.size(),
                kMaxModelName);
  RETURN_IF_ERROR(check_rows(meta, feature.rows.view(), 0, 0));
  std::vector<std::uint16_t> halves;
  ASSIGN_OR_RETURN(const auto payload, encode_rows(feature.rows, dtype, halves));
  Metadata fields{{"format", std::string(kFeatureFormat)},
                  {"feature_id", meta.id.hex()},
                  {"vision_digest", meta.vision_digest.hex()},
                  {"preprocess_digest", meta.preprocess_digest.hex()},
                  {"image_digest", meta.image_digest.hex()},
                  {"grid_thw", fmt::format("{},{},{}", meta.grid_thw[0], meta.grid_thw[1], meta.grid_thw[2])},
                  {"model", meta.model},
                  {"dtype", std::string(dtype_name(dtype))},
                  {"xxh3", payload_checksum(payload)}};
  if (!meta.arithmetic.empty()) fields["arithmetic"] = meta.arithmetic;
  fields["xxh3_metadata"] = metadata_checksum(fields);
  const NamedTensor tensor{std::string(kFeatureTensor), {dtype, {feature.rows.rows(), feature.rows.cols()}, payload}};
  ASSIGN_OR_RETURN(const std::string header, safetensors_header({&tensor, 1}, fields));
  std::vector<std::byte> out;
  out.reserve(header.size() + payload.size());
  const auto head = std::as_bytes(std::span(header));
  out.insert(out.end(), head.begin(), head.end());
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

// As much of a regular file as a header may have; nothing of anything else.
std::string first_bytes(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return {};
  std::ifstream file(path, std::ios::binary);
  std::string start(8 + kMaxFeatureHeader, '\0');
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return start;
}

}  // namespace

std::string_view fault_name(FeatureFault fault) {
  static constexpr std::array<std::string_view, kFeatureFaults> kNames = {"absent",  "truncated", "corrupt",
                                                                          "foreign", "oversized", "mismatch"};
  return kNames[static_cast<std::size_t>(fault)];
}

std::string payload_checksum(std::span<const std::byte> payload) { return hex16(checksum_of(payload)); }

std::string metadata_checksum(const Metadata& metadata) {
  std::string text;
  for (const auto& [key, value] : metadata) {
    if (key == "xxh3_metadata") continue;
    text.append(key).push_back('\0');
    text.append(value).push_back('\0');
  }
  return hex16(checksum_of(std::as_bytes(std::span(text))));
}

Result<std::vector<std::byte>> serialize_feature(const Feature& feature, DType dtype) try {
  return serialize_checked(feature, dtype);
} catch (const std::bad_alloc&) {
  return fail(Code::kResourceExhausted, "feature {}: not enough memory to serialize it", feature.meta.id.hex());
}

FeatureFileResult<Feature> parse_feature(std::span<const std::byte> bytes, std::string_view source,
                                         const FeatureExpectations& expected, std::uint64_t limit) try {
  if (bytes.size() > limit)
    return bad(FeatureFault::kOversized, source, "{} bytes, the limit is {}", bytes.size(), limit);
  return parse_checked(bytes, source, expected);
} catch (const std::bad_alloc&) {
  return bad(FeatureFault::kOversized, source, "not enough memory to read it");
}

Status save_feature(const std::filesystem::path& path, const Feature& feature, DType dtype) {
  ASSIGN_OR_RETURN(const auto bytes, serialize_feature(feature, dtype));
  return publish_file(path, {bytes});
}

FeatureFileResult<Feature> load_feature(const std::filesystem::path& path, const FeatureExpectations& expected,
                                        std::uint64_t limit) try {
  const auto bytes = read_file(path, limit);
  if (!bytes) {
    FeatureFault fault = FeatureFault::kForeign;  // a folder, a device, a file we may not read
    if (bytes.error().code == Code::kNotFound) fault = FeatureFault::kAbsent;
    if (bytes.error().code == Code::kResourceExhausted) fault = FeatureFault::kOversized;
    if (bytes.error().code == Code::kUnavailable) fault = FeatureFault::kCorrupt;  // the device gives no bytes
    return tl::unexpected<FeatureFileError>(FeatureFileError{bytes.error(), fault});
  }
  return parse_feature(*bytes, path.string(), expected, limit);
} catch (const std::bad_alloc&) {
  return bad(FeatureFault::kOversized, path.string(), "not enough memory to read it");
}

FeatureFileResult<FeatureMeta> load_feature_meta(const std::filesystem::path& path) {
  const std::string source = path.string(), start = first_bytes(path);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(start));
  if (bytes.size() < 8 || header_size(bytes) > bytes.size() - 8)
    return bad(FeatureFault::kForeign, source, "not a feature file");
  const auto json = Json::parse(text_of(bytes.subspan(8, header_size(bytes))), source);
  if (!json) return bad(FeatureFault::kCorrupt, source, "{}", json.error().message);
  const auto metadata = json->root().find("__metadata__");
  if (!metadata || !metadata->is_object()) return bad(FeatureFault::kForeign, source, "not a feature file");
  Metadata fields;
  const auto members = metadata->members().value();
  for (const auto& [name, value] : members)
    if (const auto text = value.string()) fields.emplace(name, *text);
  if (fields["format"] != kFeatureFormat) return bad(FeatureFault::kForeign, source, "not a feature file");
  if (auto ok = check_checksum(fields, "xxh3_metadata", metadata_checksum(fields), source); !ok)
    return tl::unexpected(std::move(ok).error());
  const auto dtype = dtype_from_name(fields["dtype"]);
  if (dtype && *dtype != DType::kF32 && *dtype != DType::kF16 && *dtype != DType::kBF16)
    return bad(FeatureFault::kCorrupt, source, "metadata field 'dtype' is '{}'", fields["dtype"]);
  if (!dtype) return bad(FeatureFault::kCorrupt, source, "{}", dtype.error().message);
  return parse_meta(fields, *dtype, source);
}

bool looks_like_feature_file(const std::filesystem::path& path) {
  const std::string start = first_bytes(path);
  return start.size() > 8 && header_size(std::as_bytes(std::span(start))) <= kMaxFeatureHeader &&
         std::string_view(start).find(kMark) != std::string_view::npos;
}

}  // namespace chiasm
