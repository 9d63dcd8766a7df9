#include "http/accept.h"

#include <gtest/gtest.h>

namespace chiasm {
namespace {

TEST(AcceptTest, WeightsOfATypeAmongOthers) {
  EXPECT_EQ(accept_weight("", "application/json"), -1);
  EXPECT_EQ(accept_weight("*/*", "application/json"), -1);
  EXPECT_EQ(accept_weight("application/json", "application/json"), 1);
  EXPECT_EQ(accept_weight("text/html, Application/JSON ; q=0.25,*/*", "application/json"), 0.25);
  EXPECT_EQ(accept_weight("application/json;v=1;Q=0", "application/json"), 0);
  EXPECT_EQ(accept_weight("application/jsonp", "application/json"), -1);
}

TEST(AcceptTest, AWeightThatCannotBeReadIsOne) {
  for (const char* accept : {"a/b;q=", "a/b;q=x", "a/b;q=0.5x", "a/b;q=-1", "a/b;q=7", "a/b;q=nan", ",,a/b;;,"})
    EXPECT_EQ(accept_weight(accept, "a/b"), 1) << accept;
}

}  // namespace
}  // namespace chiasm
