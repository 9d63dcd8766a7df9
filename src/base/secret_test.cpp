#include "base/secret.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"

namespace chiasm {
namespace {

using testing::HasSubstr;

TEST(Secrets, KeysOfAFile) {
  const TemporaryFolder folder;
  folder.write("keys", "# who: the album\nkey-of-the-album-0001\r\n\n  key-of-the-mobile-app-2\n");
  const Secrets keys = must(Secrets::load(folder.path() / "keys"));
  EXPECT_TRUE(keys.contains("key-of-the-album-0001"));
  EXPECT_TRUE(keys.contains("key-of-the-mobile-app-2"));
  EXPECT_FALSE(keys.contains("key-of-the-album-000"));
  EXPECT_FALSE(keys.contains(""));
  EXPECT_FALSE(keys.contains("# who: the album"));
  EXPECT_EQ(keys.first(), "key-of-the-album-0001");
}

TEST(Secrets, BadFilesAreNamedWithoutTheirKeys) {
  const TemporaryFolder folder;
  folder.write("short", "too-short\n");
  folder.write("none", "# nothing\n");
  folder.write("odd", "key with spaces inside\n");
  const auto message = [&](const char* name) { return Secrets::load(folder.path() / name).error().message; };
  EXPECT_THAT(message("short"), HasSubstr("line 1: expected a key of at least 16 characters, got 9"));
  EXPECT_THAT(message("short"), testing::Not(HasSubstr("too-short")));
  EXPECT_THAT(message("none"), HasSubstr("got none"));
  EXPECT_THAT(message("odd"), HasSubstr("printable ASCII"));
  EXPECT_FALSE(Secrets::load(folder.path() / "absent"));
}

TEST(Secrets, RandomNamesDiffer) {
  std::set<std::string> names;
  for (int i = 0; i < 1000; ++i) names.insert(random_hex(24));
  EXPECT_EQ(names.size(), 1000U);
  EXPECT_EQ(names.begin()->size(), 24U);
  EXPECT_EQ(random_hex(7).size(), 7U);
}

}  // namespace
}  // namespace chiasm
