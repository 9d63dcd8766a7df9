#include "language/scheduler.h"

#include <algorithm>

#include "language/prefix_cache.h"

namespace chiasm {
namespace {

std::int64_t pending(const RunningNumbers& one) { return one.tokens - one.computed; }

// Blocks for what a sequence has and a little more, so that who joins does not leave again at once.
std::int64_t comfortable(std::int64_t tokens, std::int64_t longest) {
  return kv_blocks_for(std::min(longest, tokens + kKvBlock));
}

// Tokens that each would compute if there were blocks for all.
std::vector<std::int64_t> share_budget(std::span<const RunningNumbers> running, std::int64_t budget) {
  std::vector<std::int64_t> wish(running.size(), 0);
  std::vector<std::size_t> prompts;
  for (std::size_t i = 0; i < running.size(); ++i) {
    if (pending(running[i]) > 1) {
      prompts.push_back(i);
    } else {
      wish[i] = 1;
      --budget;
    }
  }
  if (prompts.empty()) return wish;
  std::int64_t left = std::max<std::int64_t>(budget, 1);
  const auto give = [&](std::size_t i, std::int64_t most) {
    const std::int64_t tokens = std::min({pending(running[i]) - wish[i], left, most});
    wish[i] += tokens;
    left -= tokens;
  };
  const std::int64_t longest = pending(running[prompts.front()]);
  give(prompts.front(), (left + 1) / 2);
  std::vector<std::size_t> passing;
  std::copy_if(prompts.begin() + 1, prompts.end(), std::back_inserter(passing),
               [&](std::size_t i) { return pending(running[i]) <= longest / 4; });
  std::stable_sort(passing.begin(), passing.end(),
                   [&](std::size_t a, std::size_t b) { return pending(running[a]) < pending(running[b]); });
  for (const std::size_t i : passing) give(i, left);
  for (const std::size_t i : prompts) give(i, left);
  return wish;
}

}  // namespace

Admission admit(const WaitingNumbers& waiting, std::span<const RunningNumbers> running, std::int64_t available,
                std::int64_t max_sequences) {
  if (static_cast<std::int64_t>(running.size()) >= max_sequences) return Admission::kWaitsForRoom;
  if (running.empty()) return Admission::kJoins;
  if (waiting.prefix_under_way) return Admission::kWaitsForPrefix;
  std::int64_t needed = comfortable(waiting.tokens, waiting.longest) - waiting.blocks + waiting.revived;
  for (const RunningNumbers& one : running)
    needed += std::max<std::int64_t>(0, comfortable(one.tokens, one.longest) - one.blocks);
  return needed <= available ? Admission::kJoins : Admission::kWaitsForRoom;
}

StepPlan plan_step(std::span<const RunningNumbers> running, std::int64_t available, std::int64_t token_budget) {
  StepPlan out;
  std::vector<std::int64_t> wish = share_budget(running, token_budget);
  std::vector<std::int64_t> tokens(running.size(), 0), granted(running.size(), 0);
  std::size_t staying = running.size();  // those from here on leave
  const auto preempt_latest = [&] {
    --staying;
    available += running[staying].releases + granted[staying];
    tokens[staying] = 0;
    out.preempted.push_back(static_cast<std::int64_t>(staying));
  };
  const auto grant = [&](std::size_t i, std::int64_t count) {
    tokens[i] = count;
    granted[i] = std::max<std::int64_t>(0, kv_blocks_for(running[i].computed + count) - running[i].blocks);
    available -= granted[i];
  };
  // Tokens that fit what it has and what is left.
  const auto room = [&](std::size_t i) { return (running[i].blocks + available) * kKvBlock - running[i].computed; };

  for (std::size_t i = 0; i < staying; ++i) {
    if (pending(running[i]) > 1) continue;
    while (room(i) < 1 && staying > i + 1) preempt_latest();
    if (room(i) >= 1) {
      grant(i, 1);
    } else {
      preempt_latest();  // it is the latest itself
    }
  }
  for (std::size_t i = 0; i < staying; ++i) {
    if (pending(running[i]) <= 1 || wish[i] == 0) continue;
    while (i == 0 && room(i) < 1 && staying > 1) preempt_latest();
    const std::int64_t count = std::min(wish[i], room(i));
    if (count > 0) grant(i, count);
  }
  for (std::size_t i = 0; i < staying; ++i)
    if (tokens[i] > 0) out.items.push_back({static_cast<std::int64_t>(i), tokens[i]});
  return out;
}

}  // namespace chiasm
