// Keys that callers show: read from a file, compared in constant time, never printed. And random names.
//
// Thread contract: immutable after load.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chiasm {

// Whether the two are equal, in a time that depends on `given`'s length only.
bool same_secret(std::string_view given, std::string_view kept);

class Secrets {
 public:
  Secrets() = default;
  // One key a line; blank lines and lines that begin with '#' are passed over. Errors: unreadable, no key at all, a key
  // of fewer than 16 characters or with characters that cannot stand in a header.
  static Result<Secrets> load(const std::filesystem::path& file);
  static Secrets of(std::vector<std::string> keys);

  bool empty() const { return keys_.empty(); }
  // Every key is compared, whichever fits.
  bool contains(std::string_view given) const;
  // For the one who shows a key himself.
  const std::string& first() const { return keys_.front(); }

 private:
  std::vector<std::string> keys_;
};

// `digits` hexadecimal digits from the system's random numbers.
std::string random_hex(std::size_t digits);

}  // namespace chiasm
