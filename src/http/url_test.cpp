#include <gtest/gtest.h>

#include "base/test_support.h"
#include "http/client.h"

namespace chiasm {
namespace {

TEST(Url, IsTakenApart) {
  const Url url = must(Url::parse("HTTP://Example.ORG:9001/a%20b/c?d=e&f#part"));
  EXPECT_EQ(url.scheme, "http");
  EXPECT_EQ(url.host, "example.org");
  EXPECT_EQ(url.port, 9001);
  EXPECT_EQ(url.target, "/a%20b/c?d=e&f");
  EXPECT_EQ(url.origin(), "http://example.org:9001");
  EXPECT_EQ(must(Url::parse("http://a")).port, 80);
  EXPECT_EQ(must(Url::parse("https://a")).port, 443);
  EXPECT_EQ(must(Url::parse("https://a_b-c.d")).target, "/");
  EXPECT_EQ(must(Url::parse("https://a?x=1")).target, "/?x=1");
  EXPECT_EQ(must(Url::parse("https://a#x")).target, "/");
  EXPECT_EQ(must(Url::parse("http://a/@:b?c=http://d")).target, "/@:b?c=http://d");
  EXPECT_EQ(must(Url::parse("http://10.0.0.1")).host, "10.0.0.1");
  const Url v6 = must(Url::parse("http://[0:0::0:1]:8080/"));
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(v6.port, 8080);
  EXPECT_EQ(v6.origin(), "http://[::1]:8080");
}

TEST(Url, IsReadStrictly) {
  for (const std::string text : {"",
                                 "a",
                                 "/a",
                                 "http:/a",
                                 "http//a",
                                 "ftp://a",
                                 "file:///a",
                                 "data:image/png;base64,",
                                 "javascript://a",
                                 " http://a",
                                 "http://a ",
                                 "http://",
                                 "http:///a",
                                 "http://:80",
                                 "http://?x",
                                 "http://u@a",
                                 "http://u:p@a",
                                 "http://@a",
                                 "http://a:",
                                 "http://a:0",
                                 "http://a:65536",
                                 "http://a:999999",
                                 "http://a:8a",
                                 "http://a:-1",
                                 "http://a:80:80",
                                 "http://a..b",
                                 "http://.a",
                                 "http://a.",
                                 "http://a b/",
                                 "http://a\\b",
                                 "http://a%2eb",
                                 "http://a,b",
                                 "http://[::1",
                                 "http://::1]",
                                 "http://[::1]a",
                                 "http://[::1]a:80",
                                 "http://[]",
                                 "http://[a]",
                                 "http://[127.0.0.1]",
                                 "http://[fe80::1%25eth0]",
                                 "http://[::1]]",
                                 "http://1.2.3",
                                 "http://1",
                                 "http://2130706433",
                                 "http://0x7f000001",
                                 "http://0x7f.1",
                                 "http://a.0x1",
                                 "http://127.1",
                                 "http://01.2.3.4",
                                 "http://1.2.3.4.5",
                                 "http://256.1.1.1",
                                 "http://a/b c",
                                 "http://a/b\tc",
                                 "http://a/b\nc",
                                 "http://a/\x7f",
                                 "http://a/\xc3\xa4",
                                 "http://\xc3\xa4/",
                                 "http://a/%",
                                 "http://a/%2",
                                 "http://a/%zz",
                                 "http://a/<b>",
                                 "http://a/\"",
                                 "http://a/b\\c"})
    EXPECT_EQ(Url::parse(text).error().code, Code::kInvalidArgument) << text;
  EXPECT_FALSE(Url::parse(std::string_view("http://a/\0", 10)));
  EXPECT_FALSE(Url::parse("http://" + std::string(64, 'a')));
  EXPECT_FALSE(Url::parse("http://a/" + std::string(8192, 'b')));
  EXPECT_TRUE(Url::parse("http://a/" + std::string(8000, 'b')));
}

TEST(Address, IsPublicOrNot) {
  for (const std::string address :
       {"1.1.1.1",        "8.8.8.8",          "9.255.255.255",  "11.0.0.0",        "100.63.255.255",  "100.128.0.0",
        "128.0.0.1",      "169.253.1.1",      "172.15.0.1",     "172.32.0.1",      "192.0.1.1",       "192.167.1.1",
        "192.169.0.1",    "198.17.0.1",       "198.20.0.1",     "223.255.255.255", "2606:4700::1111", "2a00:1450::1",
        "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"})
    EXPECT_TRUE(is_public_address(address)) << address;
  for (const std::string address : {"0.0.0.0",
                                    "0.1.2.3",
                                    "10.0.0.1",
                                    "10.255.255.255",
                                    "100.64.0.1",
                                    "100.127.255.255",
                                    "127.0.0.1",
                                    "127.255.255.255",
                                    "169.254.169.254",
                                    "172.16.0.1",
                                    "172.31.255.255",
                                    "192.0.0.1",
                                    "192.0.2.1",
                                    "192.88.99.1",
                                    "192.168.0.1",
                                    "198.18.0.1",
                                    "198.19.255.255",
                                    "198.51.100.1",
                                    "203.0.113.1",
                                    "224.0.0.1",
                                    "239.1.1.1",
                                    "240.0.0.1",
                                    "255.255.255.255",
                                    "::",
                                    "::1",
                                    "::127.0.0.1",
                                    "::ffff:127.0.0.1",
                                    "::ffff:10.0.0.1",
                                    "::ffff:0:8.8.8.8",
                                    "64:ff9b::10.0.0.1",
                                    "64:ff9b:1::1",
                                    "64:ff9b::1:808:808",
                                    "100::1",
                                    "2001::1",
                                    "2001:db8::1",
                                    "2001:10::1",
                                    "2002:a00:1::1",
                                    "2002:7f00:1::1",
                                    "3fff::1",
                                    "4000::1",
                                    "5f00::1",
                                    "fc00::1",
                                    "fd00::1",
                                    "fe80::1",
                                    "fec0::1",
                                    "ff02::1",
                                    "",
                                    "localhost",
                                    "8.8.8",
                                    "8.8.8.8 ",
                                    "08.8.8.8",
                                    "8.8.8.8:80",
                                    "[2606:4700::1111]",
                                    "2606:4700::1111%eth0",
                                    "134744072"})
    EXPECT_FALSE(is_public_address(address)) << address;
  EXPECT_FALSE(is_public_address(std::string_view("8.8.8.8\0", 8)));
}

TEST(Address, IsLoopbackOrNot) {
  for (const std::string address : {"127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"})
    EXPECT_TRUE(is_loopback_address(address)) << address;
  for (const std::string address :
       {"", "localhost", "0.0.0.0", "::", "128.0.0.1", "::2", "10.0.0.1", "::ffff:10.0.0.1"})
    EXPECT_FALSE(is_loopback_address(address)) << address;
}

}  // namespace
}  // namespace chiasm
