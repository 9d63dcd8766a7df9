#include "base/result.h"

#include <set>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return fail(Code::kInvalidArgument, "expected an even number, got {}", n);
  return n / 2;
}

Result<int> quarter(int n) {
  ASSIGN_OR_RETURN(const int first, half(n));
  ASSIGN_OR_RETURN(const int second, half(first));
  return second;
}

Status check_quarter(int n) {
  RETURN_IF_ERROR(quarter(n));
  return {};
}

TEST(Result, MacrosPassValuesAndErrors) {
  EXPECT_EQ(quarter(12).value(), 3);
  ASSERT_FALSE(quarter(6).has_value());
  EXPECT_EQ(quarter(6).error().code, Code::kInvalidArgument);
  EXPECT_EQ(quarter(6).error().message, "expected an even number, got 3");
  EXPECT_TRUE(check_quarter(8).has_value());
  EXPECT_EQ(check_quarter(7).error().message, "expected an even number, got 7");
}

TEST(Result, FailInKeepsTheCode) {
  const tl::unexpected<Error> error = fail_in("a.json", Error{Code::kDataLoss, "truncated"});
  EXPECT_EQ(error.value().code, Code::kDataLoss);
  EXPECT_EQ(error.value().message, "a.json: truncated");
}

TEST(Result, EveryCodeHasItsName) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) names.insert(code_name(static_cast<Code>(i)));
  EXPECT_EQ(names.size(), static_cast<std::size_t>(Code::kInternal) + 1);
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_EQ(code_name(Code::kFailedPrecondition), "failed_precondition");
}

}  // namespace
}  // namespace chiasm
