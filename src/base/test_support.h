// For the tests of every folder: where data lies, folders that vanish, results that must be there.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/json.h"
#include "base/result.h"

namespace chiasm {

inline std::filesystem::path source_dir() { return CHIASM_SOURCE_DIR; }
inline std::filesystem::path toytown_dir() { return source_dir() / "models" / "toytown"; }
inline std::filesystem::path goldens_dir() { return source_dir() / "tests" / "goldens"; }

// Data of others that is not committed; tests skip where it is absent.
inline std::filesystem::path shared_dir() {
  const char* given = std::getenv("CHIASM_SHARED");
  return given != nullptr ? std::filesystem::path(given) : source_dir() / ".." / "shared";
}

// For what a test stands on: an error is printed and ends the program. By value, so that what a range-for walks over
// lives as long as the loop.
template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "a test stands on something broken: %s\n", result.error().message.c_str());
    std::abort();
  }
  return std::move(*result);
}

inline void must(const Status& status) {
  if (!status) must(Result<int>(tl::unexpected(status.error())));
}

inline Json load_json(const std::filesystem::path& path) { return must(Json::load(path.string(), 64 << 20)); }

// [1, 2, 3] of a golden's JSON.
template <class T>
std::vector<T> integers(const JsonValue& list) {
  std::vector<T> out;
  for (const JsonValue& value : must(list.elements())) out.push_back(static_cast<T>(must(value.integer())));
  return out;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = testing::TempDir() + "chiasm_test_XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) {
      std::perror(name.c_str());
      std::abort();
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // Folders on the way are made.
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream out(path_ / name, std::ios::binary | std::ios::trunc);
    out << text;
    out.close();
    if (!out.good()) ADD_FAILURE() << "cannot write " << path_ / name;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace chiasm
