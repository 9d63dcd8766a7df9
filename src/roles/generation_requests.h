// From the fields of an API request to what the engine takes: sampling, limits, stop conditions, JSON constraints.
//
// Thread contract: any thread; the language side must outlive it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "api/chat_request.h"
#include "grammar/token_constraint.h"
#include "roles/language_side.h"

namespace chiasm {

class GenerationRequests {
 public:
  explicit GenerationRequests(const LanguageSide& side) : side_(side) {}

  // What holds for all answers of one API request; the prompt and the seed of each are still missing. Errors name the
  // field.
  ApiResult<GenerationRequest> prepare(const SamplingFields& fields, std::string_view tenant, Deadline deadline);

  // The n-th answer to a prompt. Errors: a prompt beyond the model's context, a vocabulary that logit_bias leaves.
  ApiResult<GenerationRequest> complete(const GenerationRequest& prepared, const SamplingFields& fields,
                                        LanguagePrompt prompt, std::int64_t nth) const;

  // The messages of a request as the chat template wants them; parts with pictures are added to `pictures` in order.
  // `pictures_first`: the pictures of each message stand before its text, so that questions share them as a prefix.
  static std::vector<ChatMessage> messages_of(const std::vector<RequestMessage>& messages,
                                              std::vector<const ContentPart*>& pictures, bool pictures_first = false);

 private:
  ApiResult<std::shared_ptr<const TokenConstraint>> constraint(const ResponseFormat& format);

  const LanguageSide& side_;
  std::mutex mutex_;
  std::shared_ptr<const ConstraintVocabulary> vocabulary_;
  // Compiled schemas, the latest used first: the same few come with every request.
  std::list<std::pair<std::string, std::shared_ptr<const TokenConstraint>>> compiled_;
};

}  // namespace chiasm
