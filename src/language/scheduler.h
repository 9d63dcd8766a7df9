// Who joins, what the next step computes, and who has to make room: decided from plain numbers.
//
// A sequence has `tokens` tokens, of which `computed` are in the pool; the rest is pending, at least one. One pending
// token is a decode, more are a prompt (or the beginning of a sequence that had to leave and computes itself again).
//
// Fairness. Decoding is never held back: every decoding sequence gets its token, prompts the rest of the budget, which
// is never less than one token. Prompts go first come first served, but half of their budget is open to short ones:
// prompts with at most a quarter of what the oldest has pending pass it there, the shortest first. So a long prompt
// costs a short one behind it little, costs at most half of its own speed to those who pass, and prompts of like
// lengths do not slow each other down.
// Room. The oldest sequence always moves. Where blocks run out, the latest arrival leaves first; prompts take fewer
// tokens, or none, before anybody has to leave for them, but for the oldest.
// Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace chiasm {

struct RunningNumbers {
  std::int64_t tokens = 0, computed = 0;
  std::int64_t longest = 0;   // tokens it may come to
  std::int64_t blocks = 0;    // KV blocks it has
  std::int64_t releases = 0;  // of these, how many no older sequence has: what its leaving gains
};

struct WaitingNumbers {
  std::int64_t tokens = 0, longest = 0;
  std::int64_t blocks = 0;        // whole KV blocks that are there for it
  std::int64_t revived = 0;       // of these, how many count as available until it takes them
  bool prefix_under_way = false;  // a running sequence computes more of its beginning than is there now
};

enum class Admission : std::uint8_t {
  kJoins,
  kWaitsForPrefix,  // others behind it may join
  kWaitsForRoom,    // nobody behind it joins: the large would wait for ever
};

// `available`: blocks that are free or hold only what can be dropped. One joins where all running sequences and itself
// have room for what they have and a block's worth of tokens more; when nothing runs, it joins.
Admission admit(const WaitingNumbers& waiting, std::span<const RunningNumbers> running, std::int64_t available,
                std::int64_t max_sequences);

struct StepItem {
  std::int64_t sequence = 0;
  std::int64_t tokens = 0;
  bool operator==(const StepItem&) const = default;
};

struct StepPlan {
  std::vector<StepItem> items;          // in order of sequence
  std::vector<std::int64_t> preempted;  // these give their blocks back before the step, the latest arrival first
};

// `running` in order of arrival. `token_budget` is exceeded by decoding only, and by one token of a prompt beside it.
StepPlan plan_step(std::span<const RunningNumbers> running, std::int64_t available, std::int64_t token_budget);

}  // namespace chiasm
