// What the parts of chiasm_gpu_bench share: times are medians, a row is one JSON object a line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "base/thread_pool.h"
#include "kernels/ops.h"
#include "must.h"

namespace chiasm::bench {

struct Times {
  double median = 0, low = 0, high = 0;
};
Times times_of(int warmups, int samples, const std::function<void()>& body);
// `more`: further members, each with a comma before it.
void report(const std::string& name, const Times& times, const std::string& more = "");

// Five questions about one picture of 1024 image tokens, 16 new tokens each: from their features, and from pixels.
// `tokenizer`: a folder with one, which turns ids into text; what it says does not matter.
struct Folders {
  std::filesystem::path vision, language, tokenizer;
};
void five_questions(const Folders& folders, const std::string& name, const Ops& ops, int samples);

// `clients` that send the same picture file over and over: pictures a second, and what share of the time the encoder
// ran, which is all of it where decoding keeps up.
void picture_stream(const std::filesystem::path& vision, const std::filesystem::path& picture, int clients,
                    const Ops& ops, ThreadPool& threads);

}  // namespace chiasm::bench
