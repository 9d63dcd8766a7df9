#include "models/name_list.h"

#include <gtest/gtest.h>

namespace chiasm {
namespace {

std::string text_of(const std::vector<std::string>& names) {
  NameList list;
  for (const std::string& name : names) list.add(name);
  EXPECT_EQ(list.size(), names.size());
  return list.text();
}

TEST(NameList, FoldsWhatDiffersInTheLayerOnly) {
  EXPECT_EQ(text_of({}), "");
  EXPECT_EQ(text_of({"model.norm.weight"}), "model.norm.weight");
  EXPECT_EQ(text_of({"visual.blocks.7.norm1.bias"}), "visual.blocks.7.norm1.bias");
  std::vector<std::string> names;
  for (int i = 0; i < 32; ++i) names.push_back("visual.blocks." + std::to_string(i) + ".attn.qkv.weight");
  EXPECT_EQ(text_of(names), "visual.blocks.{0-31}.attn.qkv.weight");
  // As a sorted map gives them, with holes, and two kinds interleaved.
  EXPECT_EQ(text_of({"a.0.x", "a.0.y", "a.10.x", "a.2.x", "a.3.x", "a.3.y", "b"}), "a.{0,2-3,10}.x, a.{0,3}.y, b");
  EXPECT_EQ(text_of({"a.5.x", "a.5.x"}), "a.5.x");
  EXPECT_EQ(text_of({"a.0.b.1.c", "a.1.b.1.c", "a.0.b.2.c"}), "a.{0-1}.b.1.c, a.0.b.2.c");
}

TEST(NameList, NamesThatAreNotPlainNumbersStayAsTheyAre) {
  EXPECT_EQ(text_of({"a.007.x", "a.08.x"}), "a.007.x, a.08.x");
  EXPECT_EQ(text_of({"", ".", "..1", "..2"}), ", ., ..{1-2}");
  EXPECT_EQ(text_of({"a.-1", "a.1b", "a.99999999999999999999"}), "a.-1, a.1b, a.99999999999999999999");
  EXPECT_EQ(text_of({"a.18446744073709551615", "a.0"}), "a.{0,18446744073709551615}");
}

TEST(NameList, DetailsKeepApart) {
  NameList list;
  list.add("a.0.w", "is [1]");
  list.add("a.1.w", "is [1]");
  list.add("a.2.w", "is [2]");
  list.add("b", "is [3]");
  EXPECT_EQ(list.text(), "a.{0-1}.w is [1], a.2.w is [2], b is [3]");
}

}  // namespace
}  // namespace chiasm
