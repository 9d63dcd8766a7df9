#include "http/multipart.h"

#include <gtest/gtest.h>

#include "base/test_support.h"

namespace chiasm {
namespace {

constexpr std::string_view kType = "multipart/form-data; boundary=xYz";

Result<std::vector<FormPart>> parse(std::string_view body, std::string_view type = kType) {
  return parse_multipart(type, body);
}

std::string part(const std::string& head, const std::string& bytes) {
  return "--xYz\r\n" + head + "\r\n\r\n" + bytes + "\r\n";
}

std::string disposition(const std::string& parameters) { return "Content-Disposition: form-data; " + parameters; }

TEST(Multipart, PartsAreViewsOfTheBody) {
  std::string bytes = "\xff\xd8?\r\n--xY\r\n-- \r\n--xYzz\r\n";
  bytes[2] = '\0';
  const std::string body =
      "preamble --xYz\r\n" + part(disposition("name=\"min_pixels\""), "3136") +
      part("content-TYPE:\timage/jpeg \r\nX: y\r\n" +
               disposition("name=image; filename=\"a \\\"b\\\" \\\\ C:\\x.jpg\"; filename*=UTF-8''evil"),
           bytes) +
      part(disposition("name=\"empty\";"), "") + "--xYz-- \t\r\nepilogue";
  const auto parts = must(parse(body));
  ASSERT_EQ(parts.size(), 3U);
  EXPECT_EQ(parts[0].name, "min_pixels");
  EXPECT_EQ(parts[0].bytes, "3136");
  EXPECT_EQ(parts[0].file_name, "");
  EXPECT_EQ(parts[1].name, "image");
  EXPECT_EQ(parts[1].file_name, "a \"b\" \\ C:\\x.jpg");
  EXPECT_EQ(parts[1].content_type, "image/jpeg");
  EXPECT_EQ(parts[1].bytes, bytes);
  EXPECT_GE(parts[1].bytes.data(), body.data());
  EXPECT_EQ(parts[2].name, "empty");
  EXPECT_EQ(parts[2].bytes, "");
}

TEST(Multipart, ToleratesWhatClientsDo) {
  EXPECT_TRUE(must(parse("--xYz--")).empty());
  EXPECT_EQ(must(parse(part(disposition("name=a"), "b") + "--xYz--")).size(), 1U);
  EXPECT_EQ(must(parse("--xYz \t\r\n" + disposition("name=a") + "\r\n\r\nb\r\n--xYz--\r\n"))[0].bytes, "b");
  EXPECT_EQ(must(parse("--xYz\r\n" + disposition("name=a") + "\r\n\r\n--xYz--"))[0].bytes, "");
  EXPECT_EQ(must(parse("--a b--", "Multipart/Form-Data;charset=utf-8; BOUNDARY=\"a b\" ;")).size(), 0U);
  EXPECT_EQ(must(parse(part(disposition("name=\"\xe5\x9b\xbe\""), "x") + "--xYz--"))[0].name, "\xe5\x9b\xbe");
}

TEST(Multipart, RefusesWhatIsMalformed) {
  const std::string good = disposition("name=a");
  for (const std::string& body : {
           std::string(),
           std::string("--xYz"),
           std::string("--xYz\r\n"),
           std::string("x--xYz--"),
           std::string("--other--"),
           part(good, "b"),                                       // no closing boundary
           part(good, "b") + "--xYzz--",                          //
           part("Content-Type: image/png", "b") + "--xYz--",      // no disposition
           part(disposition("filename=a"), "b") + "--xYz--",      // no name
           part(disposition("name=\"\""), "b") + "--xYz--",       //
           part(disposition("name=\"a"), "b") + "--xYz--",        // not closed
           part(disposition("name=a; name=b"), "b") + "--xYz--",  //
           part(disposition("name=a; filename=b; filename=c"), "b") + "--xYz--",
           part(disposition("name=a b=c"), "b") + "--xYz--",  //
           part(disposition("name"), "b") + "--xYz--",        //
           part(disposition("name="), "b") + "--xYz--",       //
           part("Content-Disposition: attachment; name=a", "b") + "--xYz--",
           part(fmt::format("{0}\r\n{0}", good), "b") + "--xYz--",  //
           part(good + "\r\nContent-Transfer-Encoding: base64", "b") + "--xYz--",
           part(good + "\r\n folded", "b") + "--xYz--",   //
           part(good + "\r\nno colon", "b") + "--xYz--",  //
           part(good + "\r\nX : y", "b") + "--xYz--",     //
           part(good + "\r\nX: a\nb", "b") + "--xYz--",   //
           part(good + "\r\nX: " + std::string(9000, 'a'), "b") + "--xYz--",
           "--xYz\r\n" + good + "\r\n--xYz--",     // headers without end
           "--xYz\n" + good + "\n\nb\n--xYz--\n",  // bare line feeds
       })
    EXPECT_EQ(parse(body).error().code, Code::kInvalidArgument) << body;
  for (const std::string type : {"", "text/plain", "multipart/form-data", "multipart/mixed; boundary=xYz",
                                 "multipart/form-data; boundary=", "multipart/form-data; boundary=\"\"",
                                 "multipart/form-data; boundary=a; boundary=b", "multipart/form-data; boundary=\"a",
                                 "multipart/form-data; boundary=\"a \"", "multipart/form-data; boundary=\"a\nb\"",
                                 "multipart/form-data boundary=a"})
    EXPECT_EQ(parse("--xYz--", type).error().code, Code::kInvalidArgument) << type;
  const std::string longest(70, 'b');
  EXPECT_TRUE(parse("--" + longest + "--", "multipart/form-data; boundary=" + longest));
  EXPECT_FALSE(parse("--" + longest + "b--", "multipart/form-data; boundary=" + longest + "b"));
}

TEST(Multipart, PartsAreCounted) {
  std::string body;
  for (int i = 0; i < 3; ++i) body += part(disposition("name=a"), "b");
  body += "--xYz--";
  EXPECT_EQ(must(parse_multipart(kType, body, 3)).size(), 3U);
  EXPECT_EQ(parse_multipart(kType, body, 2).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace chiasm
