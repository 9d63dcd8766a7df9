#include "base/file.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

namespace chiasm {
namespace {

namespace fs = std::filesystem;

class File : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::path(testing::TempDir()) / temporary_name("file_test");
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::size_t entries() const { return static_cast<std::size_t>(std::distance(fs::directory_iterator(dir_), {})); }
  fs::path dir_;
};

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST_F(File, PublishThenRead) {
  const std::string a = "one ", b = "two";
  ASSERT_TRUE(publish_file(dir_ / "deep" / "er" / "f", {bytes_of(a), {}, bytes_of(b)}));
  EXPECT_EQ(read_text_file(dir_ / "deep" / "er" / "f", 7).value(), "one two");
  EXPECT_EQ(read_file(dir_ / "deep" / "er" / "f", 7)->size(), 7U);
  EXPECT_EQ(read_text_file(dir_ / "deep" / "er" / "f", 6).error().code, Code::kResourceExhausted);
}

TEST_F(File, PublishReplacesAndLeavesNothingElse) {
  const std::string first = "first", second = "2";
  ASSERT_TRUE(publish_file(dir_ / "f", {bytes_of(first)}));
  const auto old = MappedFile::open(dir_ / "f");
  ASSERT_TRUE(publish_file(dir_ / "f", {bytes_of(second)}));
  EXPECT_EQ(read_text_file(dir_ / "f", 100).value(), "2");
  EXPECT_EQ(std::memcmp(old->bytes().data(), "first", 5), 0);  // who had it open keeps the old one
  EXPECT_EQ(entries(), 1U);
}

TEST_F(File, FailedPublishLeavesNothing) {
  fs::create_directories(dir_ / "taken" / "inside");
  const std::string text = "x";
  EXPECT_FALSE(publish_file(dir_ / "taken", {bytes_of(text)}));
  EXPECT_EQ(entries(), 1U);
  std::ofstream(dir_ / "file") << "x";
  EXPECT_FALSE(publish_file(dir_ / "file" / "below", {bytes_of(text)}));
}

TEST_F(File, PublishedFilesFollowTheUmaskFromEveryThread) {
  const mode_t before = ::umask(0027);
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const std::string text(100, 'x');
      for (int i = 0; i < 10; ++i) ASSERT_TRUE(publish_file(dir_ / fmt::format("f{}-{}", t, i), {bytes_of(text)}));
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(::umask(before), 0027U);
  for (const auto& entry : fs::directory_iterator(dir_))
    EXPECT_EQ(static_cast<unsigned>(entry.status().permissions()), 0640U) << entry.path();
  EXPECT_EQ(entries(), 40U);
}

TEST_F(File, PublishPiecesTellsOfEveryPart) {
  const std::string large((20U << 20) + 3, 'L'), small = "s";
  const std::span<const std::byte> pieces[] = {bytes_of(large), bytes_of(small)};
  std::size_t told = 0, largest = 0;
  ASSERT_TRUE(publish_pieces(dir_ / "f", pieces, [&](std::span<const std::byte> part) {
    told += part.size();
    largest = std::max(largest, part.size());
    return Status();
  }));
  EXPECT_EQ(told, large.size() + 1);
  EXPECT_LE(largest, 8U << 20);
  EXPECT_EQ(read_text_file(dir_ / "f", 1 << 30).value(), large + small);
  const auto stop = [](std::span<const std::byte>) -> Status { return fail(Code::kCancelled, "stop"); };
  EXPECT_EQ(publish_pieces(dir_ / "g", pieces, stop).error().code, Code::kCancelled);
  EXPECT_EQ(entries(), 1U);
}

TEST_F(File, WritingFollowsLinksAndKeepsDevicesAndPipes) {
  const std::string text = "text";
  ASSERT_TRUE(write_file(dir_ / "plain", {bytes_of(text)}));
  EXPECT_EQ(read_text_file(dir_ / "plain", 10).value(), "text");

  fs::create_directories(dir_ / "far");
  fs::create_symlink("far/target", dir_ / "link");  // dangles at first
  for (int time = 0; time < 2; ++time) {
    ASSERT_TRUE(write_file(dir_ / "link", {bytes_of(text)}));
    EXPECT_TRUE(fs::is_symlink(dir_ / "link"));
    EXPECT_EQ(read_text_file(dir_ / "far" / "target", 10).value(), "text");
  }
  fs::create_symlink("loop", dir_ / "loop");
  EXPECT_FALSE(write_file(dir_ / "loop", {bytes_of(text)}));
  EXPECT_FALSE(write_file(dir_ / "far", {bytes_of(text)}));

  ASSERT_EQ(::mkfifo((dir_ / "pipe").c_str(), 0600), 0);
  std::string read;
  std::thread reader([&] { std::getline(std::ifstream(dir_ / "pipe"), read); });
  EXPECT_TRUE(write_file(dir_ / "pipe", {bytes_of(text)}));
  reader.join();
  EXPECT_EQ(read, "text");
  EXPECT_TRUE(fs::is_fifo(dir_ / "pipe"));
}

TEST_F(File, EveryLegalNameCanBePublished) {
  const std::string text = "x", longest(255, 'n');
  EXPECT_TRUE(publish_file(dir_ / longest, {bytes_of(text)}));
  EXPECT_FALSE(publish_file(dir_ / (longest + "n"), {bytes_of(text)}));
  EXPECT_EQ(entries(), 1U);
}

TEST_F(File, OnlyRegularFilesAreRead) {
  EXPECT_EQ(read_file(dir_ / "absent", 10).error().code, Code::kNotFound);
  EXPECT_THAT(read_file(dir_ / "absent", 10).error().message, testing::HasSubstr("absent"));
  EXPECT_EQ(read_file(dir_, 10).error().code, Code::kInvalidArgument);
  ASSERT_EQ(::mkfifo((dir_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(read_file(dir_ / "pipe", 10).error().code, Code::kInvalidArgument);  // and does not hang
  EXPECT_EQ(MappedFile::open(dir_ / "pipe").error().code, Code::kInvalidArgument);
  EXPECT_EQ(MappedFile::open(dir_ / "absent").error().code, Code::kNotFound);
}

TEST_F(File, EmptyFilesMap) {
  std::ofstream(dir_ / "empty").close();
  const auto file = MappedFile::open(dir_ / "empty");
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->bytes().empty());
  file->bring(file->bytes());
  file->release(file->bytes());
}

TEST_F(File, ReleasedPagesComeBack) {
  std::string text(100000, 'a');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
  ASSERT_TRUE(publish_file(dir_ / "f", {bytes_of(text)}));
  auto file = MappedFile::open(dir_ / "f");
  ASSERT_TRUE(file);
  const MappedFile moved = std::move(*file);
  EXPECT_TRUE(file->bytes().empty());
  for (const auto& [begin, size] :
       {std::pair<std::size_t, std::size_t>{0, 100000}, {1, 10}, {4095, 8194}, {99999, 1}}) {
    moved.bring(moved.bytes().subspan(begin, size));
    moved.release(moved.bytes().subspan(begin, size));
    EXPECT_EQ(std::memcmp(moved.bytes().data(), text.data(), text.size()), 0);
  }
}

}  // namespace
}  // namespace chiasm
