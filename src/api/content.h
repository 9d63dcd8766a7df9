// What messages, pictures and questions hold: parts, data URIs, frames.
//
// Readers of the table in request_fields.cpp; each fills its part of the draft. Thread contract: plain functions.
#pragma once

#include "api/request_draft.h"

namespace chiasm {

ApiStatus read_messages(const FieldValue& field, RequestDraft& draft);
ApiStatus read_system(const FieldValue& field, RequestDraft& draft);
ApiStatus read_pictures(const FieldValue& field, RequestDraft& draft);
ApiStatus read_questions(const FieldValue& field, RequestDraft& draft);
ApiStatus read_upload(const FieldValue& field, RequestDraft& draft);

}  // namespace chiasm
