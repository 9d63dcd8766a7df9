// Writing what this processor does not read again, past its caches. Thread contract: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chiasm {

// What the calling thread wrote so may be read by others once these return. `to` at any address.
void copy_past_caches(const std::byte* from, std::uint64_t bytes, std::byte* to);
// `count` values to BF16, rounded to nearest even; `to` at an even address.
void round_past_caches(const float* from, std::int64_t count, std::byte* to);

}  // namespace chiasm
