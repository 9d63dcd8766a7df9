#include "tensor/safetensors.h"

#include <cstring>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

using testing::HasSubstr;

// A file from a header's text and a number of data bytes.
std::string file_of(std::string_view header, std::size_t data_size) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(std::uint64_t{header.size()} >> (8 * i));
  out += header;
  for (std::size_t i = 0; i < data_size; ++i) out += static_cast<char>(i);
  return out;
}

Result<SafetensorsView> parse(const std::string& bytes) {
  return SafetensorsView::parse(std::as_bytes(std::span(bytes)), "t.safetensors");
}

std::string error_of(std::string_view header, std::size_t data_size) {
  const auto view = parse(file_of(header, data_size));
  return view ? "no error" : view.error().message;
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const std::string bytes = file_of(
      R"({"__metadata__":{"format":"pt","k":"\u00e9"},"b":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]},)"
      R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"s":{"dtype":"I32","shape":[],"data_offsets":[12,16]},)"
      R"("none":{"dtype":"BF16","shape":[0,9],"data_offsets":[4,4]}}   )",
      16);
  const auto view = parse(bytes);
  ASSERT_TRUE(view) << view.error().message;
  EXPECT_EQ(view->tensors().size(), 4U);
  EXPECT_EQ(view->metadata().at("k"), "\xC3\xA9");
  const auto b = view->tensor("b");
  ASSERT_TRUE(b);
  EXPECT_EQ(b->dtype, DType::kF32);
  EXPECT_EQ(b->shape, (Shape{1, 2}));
  EXPECT_EQ(b->bytes.size(), 8U);
  EXPECT_EQ(std::to_integer<int>(b->bytes[0]), 4);
  EXPECT_TRUE(view->tensor("none")->bytes.empty());
  EXPECT_EQ(view->tensor("s")->bytes.size(), 4U);
  EXPECT_EQ(view->tensor("c").error().message, "t.safetensors: no tensor 'c'");
}

TEST(Safetensors, EmptyFileOfNoTensors) {
  EXPECT_TRUE(parse(file_of("{}", 0)));
  EXPECT_THAT(error_of("{}", 1), HasSubstr("the tensors end at byte 0 of the data part, which has 1"));
}

TEST(Safetensors, HeaderSize) {
  EXPECT_THAT(parse("").error().message, HasSubstr("at least 8 bytes, got 0"));
  EXPECT_THAT(parse("1234567").error().message, HasSubstr("at least 8 bytes"));
  std::string huge = file_of("{}", 0);
  huge[7] = '\x7F';
  EXPECT_THAT(parse(huge).error().message, HasSubstr("the limit is"));
  std::string all(16, '\xFF');
  EXPECT_THAT(parse(all).error().message, HasSubstr("the limit is"));
  std::string longer = file_of("{}", 0);
  longer[0] = 3;
  EXPECT_EQ(parse(longer).error().code, Code::kDataLoss);
  EXPECT_THAT(parse(longer).error().message, HasSubstr("truncated"));
}

TEST(Safetensors, RefusesBrokenHeaders) {
  EXPECT_THAT(error_of("[]", 0), HasSubstr("expected an object"));
  EXPECT_THAT(error_of("{", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(R"({"a":3})", 0), HasSubstr("expected an object"));
  EXPECT_THAT(error_of(R"({"a":{"shape":[],"data_offsets":[0,4]}})", 4), HasSubstr("field 'dtype' is missing"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4), HasSubstr("'shape' is missing"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[]}})", 4), HasSubstr("'data_offsets' is missing"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4), HasSubstr("a.shape[0]"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4), HasSubstr("a.shape[0]"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4), HasSubstr("[begin, end]"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-1,3]}})", 4), HasSubstr("data_offsets[0]"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"a":1}})", 0), HasSubstr("expected a string"));
  EXPECT_THAT(error_of(R"({"__metadata__":[]})", 0), HasSubstr("expected an object"));
}

// A tensor that nobody asks for must not keep the others from being read.
TEST(Safetensors, EveryDtypeOfTheFormatIsReadWithItsSize) {
  const std::pair<const char*, int> bytes_of_8[] = {
      {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},          {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
      {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},    {"U32", 32},        {"F32", 32},
      {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
  for (const auto& [dtype, bytes] : bytes_of_8) {
    const auto header = [&](int end) {
      return fmt::format(R"({{"w":{{"dtype":"{}","shape":[2,4],"data_offsets":[0,{}]}}}})", dtype, end);
    };
    EXPECT_EQ(error_of(header(bytes), static_cast<std::size_t>(bytes)), "no error") << dtype;
    EXPECT_THAT(error_of(header(bytes + 1), static_cast<std::size_t>(bytes + 1)),
                HasSubstr("has " + std::to_string(bytes)))
        << dtype;
  }
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F6_E2M3","shape":[3],"data_offsets":[0,3]}})", 3),
              HasSubstr("tensor 'w': shape [3] of F6_E2M3 is no whole number of bytes"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F4","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0),
              HasSubstr("is no whole number of bytes below 2^61"));
}

TEST(Safetensors, UnknownDtypeIsNamed) {
  for (const std::string dtype : {"F8_E4M4", "f32", "F128", ""}) {
    const std::string message =
        error_of(fmt::format(R"({{"w.q":{{"dtype":"{}","shape":[8],"data_offsets":[0,8]}}}})", dtype), 8);
    EXPECT_THAT(message, HasSubstr("t.safetensors: tensor 'w.q'"));
    EXPECT_THAT(message, HasSubstr("'" + dtype + "'"));
  }
}

TEST(Safetensors, OffsetsMustFit) {
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", 8), HasSubstr("has 4 bytes"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4),
              HasSubstr("t.safetensors: truncated: 66 bytes are there, 70 are needed"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4),
              HasSubstr("in this order, got [4, 0]"));
  // 2^62 elements of 4 bytes: the product wraps to 0.
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0),
              HasSubstr("more than 2^64"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
              HasSubstr("more than 2^63"));
}

TEST(Safetensors, NoOverlapNoGapNoTrailingNoDuplicate) {
  const auto two = [](int a0, int a1, int b0, int b1) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},)"
                       R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                       a1 - a0, a0, a1, b1 - b0, b0, b1);
  };
  EXPECT_EQ(error_of(two(4, 8, 0, 4), 8), "no error");
  EXPECT_THAT(error_of(two(0, 4, 3, 8), 8),
              HasSubstr("tensor 'b' begins at byte 3 of the data, expected 4 (it overlaps"));
  EXPECT_THAT(error_of(two(0, 4, 0, 4), 4), HasSubstr("overlaps"));
  EXPECT_THAT(error_of(two(0, 4, 5, 8), 8), HasSubstr("there is a gap"));
  EXPECT_THAT(error_of(two(1, 4, 4, 8), 8), HasSubstr("there is a gap"));
  EXPECT_THAT(error_of(two(0, 4, 4, 8), 9), HasSubstr("which has 9"));
  const std::string twice =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})";
  EXPECT_THAT(error_of(twice, 2), HasSubstr("tensor 'a' occurs twice"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0), HasSubstr("metadata 'a' occurs twice"));
  EXPECT_THAT(error_of(R"({"__metadata__":{},"__metadata__":{}})", 0), HasSubstr("__metadata__ occurs twice"));
}

class SafetensorsFiles : public testing::Test {
 protected:
  std::filesystem::path path_ = std::filesystem::path(testing::TempDir()) / temporary_name("t.safetensors");
  void TearDown() override { std::filesystem::remove(path_); }
};

TEST_F(SafetensorsFiles, WriteThenOpen) {
  const std::vector<float> a{1, 2, 3, 4, 5, 6};
  const std::vector<std::uint8_t> b{7, 8, 9};
  const std::vector<NamedTensor> tensors{{"z \"quoted\"", {DType::kF32, {2, 3}, std::as_bytes(std::span(a))}},
                                         {"b", {DType::kU8, {3}, std::as_bytes(std::span(b))}},
                                         {"empty", {DType::kI64, {0}, {}}}};
  std::size_t told = 0;
  ASSERT_TRUE(write_safetensors(path_, tensors, {{"k", "v\n"}}, [&](auto part) -> Status {
    told += part.size();
    return {};
  }));
  EXPECT_EQ(told, 27U);
  const auto file = SafetensorsFile::open(path_);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->view().metadata().at("k"), "v\n");
  EXPECT_EQ(to_f32(*file->view().tensor("z \"quoted\"")).value(), a);
  EXPECT_EQ(std::to_integer<int>(file->view().tensor("b")->bytes[2]), 9);
  EXPECT_EQ(file->view().tensors().at("b").begin, 24U);  // laid out in the order given
  EXPECT_EQ((file->file().bytes().size() - 27) % 8, 0U);
}

TEST_F(SafetensorsFiles, EveryTruncationIsRefused) {
  const std::vector<float> a{1, 2, 3};
  const std::vector<NamedTensor> tensors{{"a", {DType::kF32, {3}, std::as_bytes(std::span(a))}}};
  ASSERT_TRUE(write_safetensors(path_, tensors, {{"k", "v"}}));
  const std::string whole = read_text_file(path_, 1 << 20).value();
  ASSERT_TRUE(parse(whole));
  for (std::size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(parse(whole.substr(0, size))) << size;
  EXPECT_FALSE(parse(whole + '\0'));
}

TEST_F(SafetensorsFiles, WriterRefusesWhatItCannotWrite) {
  const std::vector<float> a{1, 2};
  const TensorView good{DType::kF32, {2}, std::as_bytes(std::span(a))};
  EXPECT_FALSE(write_safetensors(path_, std::vector<NamedTensor>{{"a", good}, {"a", good}}, {}));
  EXPECT_FALSE(write_safetensors(path_, std::vector<NamedTensor>{{"__metadata__", good}}, {}));
  EXPECT_FALSE(write_safetensors(path_, std::vector<NamedTensor>{{"a", {DType::kF32, {3}, good.bytes}}}, {}));
  EXPECT_FALSE(write_safetensors(path_, std::vector<NamedTensor>{{"\xFF", good}}, {}));
  EXPECT_FALSE(write_safetensors(path_, std::vector<NamedTensor>{{"a", good}}, {{"k", "\xFF"}}));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace chiasm
