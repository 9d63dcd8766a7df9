#include "tensor/npy.h"

#include <bit>
#include <cmath>
#include <cstring>

#include <gmock/gmock.h>

#include "base/file.h"
#include "base/test_support.h"

namespace chiasm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::uint64_t kLimit = 1 << 20;

// Version 1.0 with this header and these bytes behind it.
std::string file_of(std::string_view header, std::string_view data) {
  std::string out = "\x93NUMPY";
  out += '\1';
  out += '\0';
  out += static_cast<char>(header.size() & 0xFF);
  out += static_cast<char>(header.size() >> 8);
  out += header;
  out += data;
  return out;
}

std::string with(std::string_view descr, std::string_view shape, std::string_view data) {
  return file_of(fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n", descr, shape), data);
}

std::string error_of(std::string_view bytes, std::uint64_t limit = kLimit) {
  const auto array = parse_npy(bytes, limit);
  return array ? "read" : array.error().message;
}

// Files that numpy 2.4.6 wrote; fuzz/corpus/npy holds them.
NpyArray by_numpy(const std::string& name) {
  return must(parse_npy(must(read_text_file(source_dir() / "fuzz/corpus/npy" / name, 1 << 16)), kLimit));
}

TEST(Npy, ReadsWhatNumpyWrites) {
  for (const char* name : {"f4", "v2", "v3"}) {
    const NpyArray array = by_numpy(name);
    EXPECT_THAT(array.shape, ElementsAre(2, 3)) << name;
    EXPECT_THAT(array.values, ElementsAre(1.5, -2, 3, 4, 5, -6.25)) << name;
  }
  EXPECT_THAT(by_numpy("f8_big").values, ElementsAre(1e300, -0.1));
  EXPECT_THAT(by_numpy("f2").values, ElementsAre(0.5, -65504, 0x1p-24));  // 6e-8 rounded to a half
  EXPECT_THAT(by_numpy("i2_big").values, ElementsAre(-2, 300));
  const NpyArray grid = by_numpy("i8");
  EXPECT_THAT(grid.shape, ElementsAre(1, 3));
  EXPECT_THAT(grid.values, ElementsAre(1, 22, 40));
  const NpyArray scalar = by_numpy("u1");
  EXPECT_THAT(scalar.shape, ElementsAre());
  EXPECT_THAT(scalar.values, ElementsAre(200));
  const NpyArray empty = by_numpy("empty");
  EXPECT_THAT(empty.shape, ElementsAre(0, 3));
  EXPECT_THAT(empty.values, ElementsAre());
}

TEST(Npy, FortranOrderIsTurned) {
  const NpyArray array = by_numpy("fortran");
  EXPECT_THAT(array.shape, ElementsAre(2, 3, 4));
  ASSERT_EQ(array.values.size(), 24U);
  for (std::size_t i = 0; i < 24; ++i) EXPECT_EQ(array.values[i], static_cast<double>(i));
}

TEST(Npy, EveryDtypeInBothOrders) {
  struct Case {
    std::string_view type;
    std::vector<unsigned char> little;
    double value;
  };
  const Case cases[] = {{"f2", {0x00, 0xC0}, -2},
                        {"f4", {0, 0, 0xC0, 0xBF}, -1.5},
                        {"f8", {0, 0, 0, 0, 0, 0, 0xF8, 0x3F}, 1.5},
                        {"i1", {0x80}, -128},
                        {"i2", {0xFE, 0xFF}, -2},
                        {"i4", {0, 0, 0, 0x80}, -2147483648.0},
                        {"i8", {0, 0, 0, 0, 0, 0, 0, 0x80}, -0x1p63},
                        {"u1", {0xFF}, 255},
                        {"u2", {0xFE, 0xFF}, 65534},
                        {"u4", {0xFF, 0xFF, 0xFF, 0xFF}, 4294967295.0},
                        {"u8", {0, 0, 0, 0, 0, 0, 0, 0x80}, 0x1p63}};
  for (const Case& one : cases) {
    const std::string little(one.little.begin(), one.little.end()), big(one.little.rbegin(), one.little.rend());
    for (const std::string_view order : {"<", "|", "=", ""})
      EXPECT_THAT(must(parse_npy(with(fmt::format("{}{}", order, one.type), "(1,)", little), 1)).values,
                  ElementsAre(one.value))
          << order << one.type;
    EXPECT_THAT(must(parse_npy(with(fmt::format(">{}", one.type), "(1,)", big), 1)).values, ElementsAre(one.value))
        << '>' << one.type;
  }
}

TEST(Npy, IntegersAreExactOrRefused) {
  const auto number = [](std::uint64_t bits) {
    std::string out(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(bits >> (8 * i));
    return out;
  };
  EXPECT_THAT(must(parse_npy(with("<i8", "(1,)", number(1ULL << 53)), 1)).values, ElementsAre(0x1p53));
  const std::string inexact = "npy: value 0 is an integer beyond 2^53 that is not read exactly";
  EXPECT_EQ(error_of(with("<i8", "(1,)", number((1ULL << 53) + 1))), inexact);
  EXPECT_EQ(error_of(with("<i8", "(1,)", number(~0ULL >> 1))), inexact);
  EXPECT_EQ(error_of(with("<u8", "(1,)", number(~0ULL))), inexact);
  EXPECT_THAT(must(parse_npy(with("<i8", "(1,)", number(~0ULL)), 1)).values, ElementsAre(-1));
}

TEST(Npy, InfinitiesAndNanComeThrough) {
  const auto values = must(parse_npy(with("<f4", "(2,)", std::string_view("\0\0\x80\xFF\0\0\xC0\x7F", 8)), 2)).values;
  EXPECT_EQ(values[0], -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(values[1]));
}

TEST(Npy, PicklesAreNeverRead) {
  EXPECT_EQ(error_of(must(read_text_file(source_dir() / "fuzz/corpus/npy/object", 1 << 16))),
            "npy: object arrays (pickle) are not read");
  EXPECT_THAT(error_of(with("|O8", "(1,)", "12345678")), HasSubstr("object arrays (pickle) are not read"));
  EXPECT_EQ(error_of(must(read_text_file(source_dir() / "fuzz/corpus/npy/records", 1 << 16))),
            "npy header: arrays of records are not read");
  EXPECT_THAT(error_of(std::string_view("PK\x03\x04\0\0", 6)), HasSubstr("a zip archive, as torch.save"));
  EXPECT_THAT(error_of("\x80\x02}q."), HasSubstr("got a pickle; pickles are never read"));
  EXPECT_THAT(error_of(""), HasSubstr("got nothing"));
  EXPECT_THAT(error_of("hello"), HasSubstr("got something else"));
}

TEST(Npy, HeadersAreReadStrictly) {
  const auto header = [](std::string_view text) { return error_of(file_of(text, std::string(4, '\0'))); };
  EXPECT_EQ(header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"), "read");
  EXPECT_EQ(header("{\"shape\":(1,),\"fortran_order\":True,\"descr\":\"<f4\"}   \n"), "read");
  EXPECT_THAT(header(""), HasSubstr("expected '{' at byte 0"));
  EXPECT_THAT(header("{}"), HasSubstr("'descr' is missing"));
  EXPECT_THAT(header("{'descr': '<f4', 'shape': (1,)}"), HasSubstr("'fortran_order' is missing"));
  EXPECT_THAT(header("{'descr': '<f4', 'fortran_order': False}"), HasSubstr("'shape' is missing"));
  EXPECT_THAT(header("{'descr': '<f4', 'descr': '<f4'}"), HasSubstr("once, got 'descr'"));
  EXPECT_THAT(header("{'other': 1}"), HasSubstr("once, got 'other'"));
  EXPECT_THAT(header("{'descr': '<f4' 'shape': (1,)}"), HasSubstr("expected ',' at byte 16, got '''"));
  EXPECT_THAT(header("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}"), HasSubstr("expected True or False"));
  EXPECT_THAT(header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x"), HasSubstr("expected its end"));
  EXPECT_THAT(header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)"), HasSubstr("expected ','"));
  EXPECT_THAT(header("{'descr': '<f4"), HasSubstr("has no end"));
  EXPECT_THAT(header("{'de\\scr': '<f4'}"), HasSubstr("has an escape"));
  EXPECT_THAT(header("{descr: '<f4'}"), HasSubstr("expected a string at byte 1"));
  EXPECT_THAT(header("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}"), HasSubstr("got '<c8'"));
  EXPECT_THAT(header("{'descr': '<f16', 'fortran_order': False, 'shape': (1,)}"), HasSubstr("got '<f16'"));
  EXPECT_THAT(header("{'descr': '', 'fortran_order': False, 'shape': (1,)}"), HasSubstr("got ''"));
}

TEST(Npy, ShapesAreReadStrictly) {
  const auto shape = [](std::string_view text) { return error_of(with("<f4", text, std::string(4, '\0'))); };
  EXPECT_EQ(shape("()"), "read");
  EXPECT_EQ(shape("(1,)"), "read");
  EXPECT_EQ(shape("( 1 , 1 , )"), "read");
  EXPECT_THAT(shape("(1)"), HasSubstr("expected the tuple (1,), got (1)"));
  EXPECT_THAT(shape("(-1,)"), HasSubstr("expected a dimension"));
  EXPECT_THAT(shape("(1 1)"), HasSubstr("expected ','"));
  EXPECT_THAT(shape("(,)"), HasSubstr("expected a dimension"));
  EXPECT_THAT(shape("(01,)"), HasSubstr("begins with 0"));
  EXPECT_THAT(shape("(1L,)"), HasSubstr("expected ','"));
  EXPECT_THAT(shape("[1]"), HasSubstr("expected '('"));
  EXPECT_THAT(shape("(9223372036854775808,)"), HasSubstr("larger than 64 bits hold"));
  std::string many = "(";
  for (int i = 0; i < 33; ++i) many += "1, ";
  EXPECT_THAT(shape(many + ")"), HasSubstr("more than 32 dimensions"));
}

TEST(Npy, SizesAreCheckedBeforeAnythingIsAllocated) {
  EXPECT_EQ(error_of(with("<f4", "(3, 2)", std::string(24, '\0')), 6), "read");
  EXPECT_EQ(error_of(with("<f4", "(3, 2)", std::string(24, '\0')), 5), "npy: its shape has more than 5 values");
  EXPECT_THAT(error_of(with("<f4", "(9223372036854775807, 9223372036854775807)", "")), HasSubstr("more than"));
  EXPECT_THAT(error_of(with("<f4", "(4294967296, 4294967296)", "")), HasSubstr("more than"));
  EXPECT_EQ(error_of(with("<f4", "(9223372036854775807, 9223372036854775807, 0)", "")), "read");
  EXPECT_EQ(error_of(with("<f4", "(0,)", "1234")), "npy: expected 0 values of 4 bytes behind the header, got 4 bytes");
  EXPECT_THAT(error_of(with("<f4", "(2,)", "12345678+")), HasSubstr("expected 2 values of 4 bytes"));
  EXPECT_THAT(error_of(with("<f4", "(2,)", "1234567")), HasSubstr("got 7 bytes"));
  EXPECT_EQ(error_of(with("<f4", "()", "1234"), 0), "npy: 1 values, the limit is 0");
}

TEST(Npy, EveryBeginningOfAFileIsRefused) {
  const std::string whole = must(read_text_file(source_dir() / "fuzz/corpus/npy/v2", 1 << 16));
  for (std::size_t size = 0; size < whole.size(); ++size) EXPECT_NE(error_of(whole.substr(0, size)), "read") << size;
  std::string version = whole;
  version[6] = 4;
  EXPECT_THAT(error_of(version), HasSubstr("expected format 1.0, 2.0 or 3.0, got 4.0"));
  std::string huge = whole;
  huge[11] = 0x7F;
  EXPECT_THAT(error_of(huge), HasSubstr("the limit is 65536"));
  std::string longer = whole;
  longer[9] = 1;
  EXPECT_THAT(error_of(longer), HasSubstr("npy: a header of 372 bytes in a file of 152"));
}

}  // namespace
}  // namespace chiasm
