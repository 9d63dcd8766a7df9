// CHECK(condition): stops the program on a bug of ours. No input from outside may reach one: bad input is a Result.
#pragma once

namespace chiasm {
[[noreturn]] void check_failed(const char* condition, const char* file, int line);
}  // namespace chiasm

#define CHECK(condition) ((condition) ? static_cast<void>(0) : ::chiasm::check_failed(#condition, __FILE__, __LINE__))
