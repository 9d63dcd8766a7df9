#include <gmock/gmock.h>

#include "api/chat_request.h"
#include "api/test_requests.h"
#include "base/base64.h"
#include "base/test_support.h"

namespace chiasm {
namespace {

using testing::HasSubstr;
using Kind = ImageInput::Kind;

const std::string kId(64, 'a');

std::string user(std::string_view content) {
  return chat_with("messages", R"([{"role":"user","content":)" + std::string(content) + "}]");
}

ChatRequest good(std::string_view body) {
  auto out = parse_chat_request(body, {});
  EXPECT_TRUE(out) << body << ": " << (out ? "" : out.error().message);
  return out ? std::move(*out) : ChatRequest();
}
ImageInput image_of(std::string_view part) {
  ChatRequest request = good(user("[" + std::string(part) + "]"));
  if (request.messages.empty() || request.messages[0].parts.size() != 1) return {};
  EXPECT_EQ(request.messages[0].parts[0].kind, ContentPart::Kind::kImage);
  return request.messages[0].parts[0].images.at(0);
}
ApiError bad(std::string_view body, const RequestLimits& limits = {}) {
  auto out = parse_chat_request(body, limits);
  EXPECT_FALSE(out) << body;
  return out ? ApiError() : out.error();
}
ApiError bad_part(std::string_view part) { return bad(user("[" + std::string(part) + "]")); }

TEST(ChatContent, RolesAndTexts) {
  const ChatRequest request = good(R"({"model":"m","messages":[{"role":"developer","content":"be brief","name":"dev"},
    {"role":"system","content":""},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
    {"role":"assistant","content":null,"refusal":"no"},{"role":"assistant"},
    {"role":"assistant","content":[{"type":"refusal","refusal":"cannot"}],"tool_calls":[]},
    {"role":"user","content":"<|im_end|> \u0000 有"}]})");
  ASSERT_EQ(request.messages.size(), 7U);
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[0].parts.at(0).text, "be brief");
  EXPECT_EQ(request.messages[1].role, "system");
  ASSERT_EQ(request.messages[2].parts.size(), 2U);
  EXPECT_EQ(request.messages[2].parts[1].text, "b");
  EXPECT_EQ(request.messages[2].parts[1].param, "messages[2].content[1]");
  EXPECT_EQ(request.messages[3].role, "assistant");
  EXPECT_TRUE(request.messages[3].parts.empty());
  EXPECT_TRUE(request.messages[4].parts.empty());
  EXPECT_EQ(request.messages[5].parts.at(0).text, "cannot");
  EXPECT_EQ(request.messages[6].parts.at(0).text, std::string("<|im_end|> \0 有", 16));
}

TEST(ChatContent, MessagesThatAreWrong) {
  struct Case {
    std::string messages, message, param;
    ErrorKind kind = ErrorKind::kInvalidRequest;
  };
  const Case cases[] = {
      {"[]", "messages: expected a list of messages, got an empty list", "messages"},
      {"\"hi\"", "messages: expected a list of messages, got \"hi\"", "messages"},
      {"[7]", "messages[0]: expected a message, such as {\"role\": \"user\", \"content\": \"...\"}, got 7",
       "messages[0]"},
      {"[{}]", "messages[0].role: missing, expected one of system, developer, user, assistant", "messages[0].role"},
      {R"([{"role":"user"}])", "messages[0].content: missing, expected a string or a list of parts",
       "messages[0].content"},
      {R"([{"role":"user","content":null}])", "messages[0].content: missing, expected a string or a list of parts",
       "messages[0].content"},
      {R"([{"role":"user","content":5}])", "messages[0].content: expected a string or a list of parts, got 5",
       "messages[0].content"},
      {R"([{"role":"user","content":[]}])",
       "messages[0].content: expected a string or a list of parts, got an empty list", "messages[0].content"},
      {R"([{"role":"robot","content":"x"}])",
       "messages[0].role: expected one of system, developer, user, assistant, got \"robot\"", "messages[0].role"},
      {R"([{"role":7,"content":"x"}])", "messages[0].role: expected a string, got 7", "messages[0].role"},
      {R"([{"role":"user","content":"x"},{"role":"tool","content":"x","tool_call_id":"c"}])",
       "messages[1].role: answers of tools are not supported here", "messages[1].role", ErrorKind::kUnsupported},
      {R"([{"role":"function","name":"f","content":"x"}])", "messages[0].role: answers of tools are not supported here",
       "messages[0].role", ErrorKind::kUnsupported},
      {R"([{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]}])",
       "messages[0].tool_calls: tools and audio are not supported here", "messages[0].tool_calls",
       ErrorKind::kUnsupported},
      {R"([{"role":"assistant","audio":{"id":"a"}}])", "messages[0].audio: tools and audio are not supported here",
       "messages[0].audio", ErrorKind::kUnsupported}};
  for (const Case& one : cases) {
    const ApiError error = bad(chat_with("messages", one.messages));
    EXPECT_EQ(error.message, one.message);
    EXPECT_EQ(error.param, one.param);
    EXPECT_EQ(error.kind, one.kind) << one.message;
  }
}

TEST(ChatContent, PartsThatAreWrong) {
  struct Case {
    std::string part, message;
    ErrorKind kind = ErrorKind::kInvalidRequest;
  };
  const std::string at = "messages[0].content[0]";
  const Case cases[] = {
      {"5", at + ": expected a part, such as {\"type\": \"text\", \"text\": \"...\"}, got 5"},
      {"{}",
       at + ".type: missing, expected one of text, image_url, image_id, image_features, image_embeds, video, refusal"},
      {R"({"type":"txt"})", at + ".type: expected one of text, image_url, image_id, image_features, image_embeds, "
                                 "video, refusal, got \"txt\""},
      {R"({"type":3})", at + ".type: expected a string, got 3"},
      {R"({"type":"text"})", at + ": expected a member \"text\" beside its type"},
      {R"({"type":"text","text":5})", at + ".text: expected a string, got 5"},
      {R"({"type":"text","text":null})", at + ": expected a member \"text\" beside its type"},
      {R"({"type":"image_url","image_url":null,"uuid":"u"})", at + ": expected a member \"image_url\" beside its type"},
      {R"({"type":"input_audio","input_audio":{}})",
       at + ".type: parts of type input_audio are not supported here, expected one of text, image_url, image_id, "
            "image_features, image_embeds, video, refusal",
       ErrorKind::kUnsupported}};
  for (const Case& one : cases) {
    const ApiError error = bad_part(one.part);
    EXPECT_EQ(error.message, one.message);
    EXPECT_EQ(error.kind, one.kind);
    EXPECT_EQ(one.message.rfind(error.param + ":", 0), 0U) << error.param;
  }
}

TEST(ChatContent, DataUris) {
  const std::string bytes = "\x89PNG\r\n\x1a\n";
  const std::string text = encode_base64(std::as_bytes(std::span(bytes)));
  for (const std::string head :
       {"data:image/png;base64,", "DATA:image/png;BASE64,", "data:image/jpeg;base64,",
        "data:image/svg+xml;charset=utf-8;base64,", "data:application/octet-stream;base64,", "data:IMAGE/WebP;Base64,",
        "data:;base64,", "data:binary/octet-stream;base64, ", "data:image/png;base64,\\r\\n"}) {
    const ImageInput image =
        image_of(fmt::format(R"({{"type":"image_url","image_url":{{"url":"{}{}"}}}})", head, text));
    EXPECT_EQ(image.kind, Kind::kData) << head;
    EXPECT_EQ(image.bytes, bytes) << head;
    EXPECT_EQ(image.detail, ImageInput::Detail::kAuto);
    EXPECT_EQ(image.param, "messages[0].content[0].image_url.url");
  }
  const ImageInput plain = image_of(R"({"type":"image_url","image_url":"data:image/png;base64,)" + text + "\"}");
  EXPECT_EQ(plain.bytes, bytes);
  EXPECT_EQ(plain.param, "messages[0].content[0].image_url");
  EXPECT_EQ(image_of(R"({"type":"image_url","image_url":{"url":"data:image/png;base64,-_-_"}})").bytes.size(), 3U);
}

TEST(ChatContent, DataUrisThatAreWrong) {
  const std::pair<std::string, std::string> cases[] = {
      {"data:", "expected a data URI \"data:image/png;base64,...\", got \"data:\""},
      {"data:image/png;base64", "expected a data URI"},
      {"data:image/png,%89PNG",
       "expected \";base64,\" in the data URI, got \"image/png;\": percent-encoding is not read"},
      {"data:image/png;base64;x,AAAA", "expected \";base64,\" in the data URI"},
      {"data:text/plain;base64,AAAA",
       "expected a data URI of a picture, such as image/png, got the type \"text/plain\""},
      {"data:video/mp4;base64,AAAA", "got the type \"video/mp4\""},
      {"data:image/png;base64,", "expected base64 of at least one byte, got none"},
      {"data:image/png;base64,AA%2B", "at character 2, got '%' (percent-encoding is not read)"},
      {"data:image/png;base64,AA\\u0001A", "at character 2, got byte 0x01"},
      {"data:image/png;base64,AAAAA", "it ends in the middle of a byte"},
      {"data:image/png;base64,AB==", "expected zero bits behind the last byte"},
      {"data:image/" + std::string(300, 'x') + ";base64,AAAA", "expected a data URI"},
      {"file:///etc/passwd", "expected a data URI, or an http or https URL, got \"file:///etc/passwd\""},
      {"ftp://h/x", "expected a data URI, or an http or https URL"},
      {"http://", "expected a data URI, or an http or https URL"},
      {"", "expected a data URI, or an http or https URL, got \"\""},
      {"http://h/a b", "expected a URL of printable ASCII characters"},
      {"http://h/\\u0000", "expected a URL of printable ASCII characters"},
      {"http://hä/", "expected a URL of printable ASCII characters"},
      {"http://" + std::string(8200, 'h'), "expected a URL of at most 8192 bytes, got 8207"}};
  for (const auto& [url, said] : cases) {
    const ApiError error = bad_part(R"({"type":"image_url","image_url":{"url":")" + url + R"("}})");
    EXPECT_THAT(error.message, HasSubstr(said)) << url.substr(0, 50);
    EXPECT_EQ(error.param, "messages[0].content[0].image_url.url") << url.substr(0, 50);
    EXPECT_EQ(error.kind, ErrorKind::kInvalidRequest);
    EXPECT_LT(error.message.size(), 300U) << "the data is not echoed";
  }
  EXPECT_EQ(bad_part(R"({"type":"image_url","image_url":{}})").message,
            "messages[0].content[0].image_url: expected an object with a url");
  EXPECT_EQ(bad_part(R"({"type":"image_url","image_url":7})").message,
            "messages[0].content[0].image_url: expected an object with a url, got 7");
  EXPECT_EQ(bad_part(R"({"type":"image_url","image_url":{"url":7}})").message,
            "messages[0].content[0].image_url.url: expected a data URI, or an http or https URL, got 7");
}

TEST(ChatContent, UrlsAndDetail) {
  const ImageInput image =
      image_of(R"({"type":"image_url","image_url":{"url":"HTTPS://host.example/a?b=c","detail":"high"}})");
  EXPECT_EQ(image.kind, Kind::kUrl);
  EXPECT_EQ(image.url, "HTTPS://host.example/a?b=c");
  EXPECT_EQ(image.detail, ImageInput::Detail::kHigh);
  EXPECT_EQ(image_of(R"({"type":"image_url","image_url":{"url":"http://h","detail":"low"}})").detail,
            ImageInput::Detail::kLow);
  EXPECT_EQ(image_of(R"({"image_url":{"url":"http://h","detail":null}})").detail, ImageInput::Detail::kAuto);
  const ApiError error = bad_part(R"({"type":"image_url","image_url":{"url":"http://h","detail":"medium"}})");
  EXPECT_EQ(error.message, "messages[0].content[0].image_url.detail: expected one of auto, low, high, got \"medium\"");
}

TEST(ChatContent, Ids) {
  for (const std::string& part :
       {R"({"type":"image_id","image_id":")" + kId + "\"}", R"({"image_id":{"id":")" + kId + "\"}}",
        R"({"type":"image_id","image_id":")" + std::string(64, 'A') + "\"}"}) {
    const ImageInput image = image_of(part);
    EXPECT_EQ(image.kind, Kind::kId);
    EXPECT_EQ(image.id, kId);
  }
  for (const std::string& value : std::vector<std::string>{"\"abc\"", "5", "\"" + std::string(63, 'a') + "g\""})
    EXPECT_THAT(bad_part(R"({"type":"image_id","image_id":)" + value + "}").message,
                HasSubstr("messages[0].content[0].image_id: expected an id of 64 hexadecimal digits, got "));
  EXPECT_EQ(bad_part(R"({"type":"image_id","image_id":{}})").message,
            "messages[0].content[0].image_id: expected an object with an id");
  EXPECT_EQ(bad_part(R"({"type":"image_id","image_id":{"id":{"id":"x"}}})").message,
            "messages[0].content[0].image_id: expected an object with an id");
}

TEST(ChatContent, FeaturesAndEmbeddings) {
  const ImageInput features = image_of(R"({"type":"image_features","image_features":"AAEC"})");
  EXPECT_EQ(features.kind, Kind::kFeatures);
  EXPECT_EQ(features.bytes, std::string("\0\1\2", 3));
  const ImageInput embeds =
      image_of(R"({"type":"image_embeds","image_embeds":{"image_embeds":"AAEC","image_grid_thw":"AwQF"}})");
  EXPECT_EQ(embeds.kind, Kind::kEmbeds);
  EXPECT_EQ(embeds.bytes, std::string("\0\1\2", 3));
  EXPECT_EQ(embeds.grid, "\3\4\5");

  const std::string at = "messages[0].content[0].";
  EXPECT_EQ(bad_part(R"({"type":"image_features","image_features":7})").message,
            at + "image_features: expected a feature file as base64, got 7");
  EXPECT_EQ(bad_part(R"({"type":"image_features","image_features":""})").message,
            at + "image_features: expected base64 of at least one byte, got none");
  EXPECT_EQ(bad_part(R"({"type":"image_embeds","image_embeds":"AAEC"})").message,
            at + "image_embeds: expected an object with image_embeds and image_grid_thw, got \"AAEC\"");
  EXPECT_EQ(bad_part(R"({"type":"image_embeds","image_embeds":{"image_embeds":"AAEC"}})").message,
            at + "image_embeds.image_grid_thw: missing, expected base64 of a .npy");
  EXPECT_EQ(bad_part(R"({"type":"image_embeds","image_embeds":{"image_embeds":1,"image_grid_thw":"AwQF"}})").message,
            at + "image_embeds.image_embeds: expected base64 of a .npy, got 1");
  EXPECT_THAT(
      bad_part(R"({"type":"image_embeds","image_embeds":{"image_embeds":"?","image_grid_thw":"AwQF"}})").message,
      HasSubstr(at + "image_embeds.image_embeds: base64: expected A-Z"));
}

TEST(ChatContent, Videos) {
  const ChatRequest request = good(user(R"([{"type":"video","video":["data:image/png;base64,AAEC",
    {"type":"image_url","image_url":{"url":"data:image/png;base64,AwQF"}},{"url":"http://h/f.png"}]},{"type":"text","text":"?"}])"));
  const ContentPart& video = request.messages.at(0).parts.at(0);
  EXPECT_EQ(video.kind, ContentPart::Kind::kVideo);
  EXPECT_EQ(video.param, "messages[0].content[0]");
  ASSERT_EQ(video.images.size(), 3U);
  EXPECT_EQ(video.images[1].bytes, "\3\4\5");
  EXPECT_EQ(video.images[1].param, "messages[0].content[0].video[1].image_url.url");
  EXPECT_EQ(video.images[2].kind, Kind::kUrl);

  const ChatRequest encoded =
      good(user(R"([{"type":"video","video":{"image_id":")" + kId +
                R"("}},{"type":"video","video":{"type":"image_features","image_features":"AAEC"}}])"));
  EXPECT_EQ(encoded.messages.at(0).parts.at(0).images.at(0).kind, Kind::kId);
  EXPECT_EQ(encoded.messages.at(0).parts.at(1).images.at(0).kind, Kind::kFeatures);

  const std::string what =
      "expected a list of frames (data URIs or image_url parts), or an object with image_id or image_features, got ";
  const std::string at = "messages[0].content[0].video: ";
  EXPECT_EQ(bad_part(R"({"type":"video","video":[]})").message, at + what + "an empty list");
  EXPECT_EQ(bad_part(R"({"type":"video","video":"data:video/mp4;base64,AAAA"})").message,
            at + what + "\"data:video/mp4;base64,AAAA\"");
  EXPECT_EQ(bad_part(R"({"type":"video","video":{"url":"http://h/v.mp4"}})").message, at + what + "an object");
  EXPECT_EQ(
      bad_part(R"({"type":"video","video":[{"image_id":")" + kId + "\"}]}").message,
      "messages[0].content[0].video[0]: expected a frame as a data URI or URL: what is already encoded is a video "
      "of its own");
  EXPECT_EQ(bad_part(R"({"type":"video_url","video_url":{"url":"http://h"}})").kind, ErrorKind::kUnsupported);
}

// The template renders parts of any role, so no role is refused them.
TEST(ChatContent, PicturesInEveryRole) {
  for (const char* role : {"system", "developer", "user", "assistant"})
    EXPECT_EQ(
        good(chat_with("messages", fmt::format(R"([{{"role":"{}","content":[{{"image_id":"{}"}}]}}])", role, kId)))
            .messages.at(0)
            .parts.at(0)
            .kind,
        ContentPart::Kind::kImage);
}

TEST(ChatContent, PicturesAndFramesAreCountedTogether) {
  const std::string frame = R"("data:image/png;base64,AAEC")", image = R"({"image_url":)" + frame + "}";
  const auto body = [&](std::string_view last) {
    return chat_with("messages", R"([{"role":"user","content":[)" + image + R"(]},{"role":"user","content":[)" +
                                     std::string(last) + "]}]");
  };
  const std::string two = R"({"video":[)" + frame + "," + frame + "]}";
  EXPECT_TRUE(parse_chat_request(body(two), {.max_images = 3}));
  const ApiError error = bad(body(two), {.max_images = 2});
  EXPECT_EQ(error.message,
            "messages[1].content[0].video[1]: expected at most 2 pictures and frames in a request, this "
            "is one more");
  EXPECT_EQ(error.kind, ErrorKind::kInvalidRequest);
  EXPECT_EQ(bad(body(image + "," + image), {.max_images = 2}).param, "messages[1].content[1]");
  EXPECT_EQ(bad(body(two), {.max_images = 1}).param, "messages[1].content[0].video");
  EXPECT_EQ(bad(body(image), {.max_images = 0}).param, "messages[0].content[0]");
}

}  // namespace
}  // namespace chiasm
