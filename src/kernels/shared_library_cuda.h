// A library that is opened by its soname when it is first needed, so that programs start without it. Kept until the
// program ends. Thread contract: for one thread.
#pragma once

#include <string>

#include "base/result.h"

namespace chiasm {

class SharedLibrary {
 public:
  // kUnavailable: `subject` (without one, the name) "cannot be loaded", and the loader's reason.
  static Result<SharedLibrary> open(const std::string& name, const std::string& subject = "");

  template <class Function>
  void find(Function& function, const char* symbol) {
    function = reinterpret_cast<Function>(address(symbol));
  }
  // The first symbol that was not found, or nothing.
  const std::string& missing() const { return missing_; }

 private:
  explicit SharedLibrary(void* handle) : handle_(handle) {}
  void* address(const char* symbol);
  void* handle_;
  std::string missing_;
};

}  // namespace chiasm
