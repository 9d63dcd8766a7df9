#include "kernels/shared_library_cuda.h"

#include <dlfcn.h>

namespace chiasm {

Result<SharedLibrary> SharedLibrary::open(const std::string& name, const std::string& subject) {
  void* const handle = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    return fail(Code::kUnavailable, "{} cannot be loaded: {}", subject.empty() ? name : subject,
                why == nullptr ? "no reason given" : why);
  }
  return SharedLibrary(handle);
}

void* SharedLibrary::address(const char* symbol) {
  void* const found = ::dlsym(handle_, symbol);
  if (found == nullptr && missing_.empty()) missing_ = symbol;
  return found;
}

}  // namespace chiasm
