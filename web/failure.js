// What went wrong with a request: the server's own words, or ours where it cannot speak for itself, and what a person
// can do about it. Pure: no page, no network.

export class ApiFailure extends Error {
  // `status` 0: no answer came.
  constructor(status, { message, code, param } = {}, retryAfter = 0) {
    super(message || (status ? `the server answered with status ${status}` : 'the server does not answer'));
    this.status = status;
    this.code = code || '';
    this.param = param || '';
    this.retryAfter = retryAfter;
  }
  // The server is full: the same may go well later.
  get repeatable() {
    return this.status === 429 || this.status === 503;
  }
  // The same would fail again.
  get lasting() {
    return [400, 413, 415, 422].includes(this.status);
  }
}

// An error inside a stream has no status of its own.
const kStatusOf = {
  context_length_exceeded: 400,
  invalid_api_key: 401,
  permission_denied: 403,
  not_found: 404,
  request_timeout: 408,
  model_mismatch: 409,
  request_too_large: 413,
  rate_limit_exceeded: 429,
  overloaded: 503,
  vision_unavailable: 503,
  deadline_exceeded: 504,
};
export function failureOfEvent(error) {
  return new ApiFailure(kStatusOf[error.code] ?? (error.type === 'invalid_request_error' ? 400 : 500), error);
}

// The whole of it in sentences.
export function explain(failure) {
  return `${whatHappened(failure)} ${advice(failure)}`.trim();
}

// Fields and headers of a request mean nothing to someone at the page: where the server speaks of them, the page has
// words of its own.
export function whatHappened(failure) {
  if (failure.code === 'context_length_exceeded')
    return 'This question and its pictures are longer than the model can take.';
  if (failure.status === 401) return 'This server wants a valid API key.';
  return sentence(failure.message);
}

function sentence(message) {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?…]$/.test(text) ? text : `${text}.`;
}

// What a person can do, in one sentence; nothing where the server said it already.
function advice(failure) {
  const text = adviceOn(failure);
  return text.startsWith('Try again') && /try again/i.test(failure.message) ? '' : text;
}

function adviceOn(failure) {
  switch (failure.status) {
    case 0:
      return 'See whether chiasm is still running, then try again.';
    case 401:
      return 'Enter the API key above.';
    case 403:
      return 'This key may not do that; ask whoever runs the server.';
    case 408:
    case 504:
      return 'Try again, with fewer questions or pictures at once.';
    case 409:
      return 'The vision and the language side have different weights; whoever runs the server must mend that.';
    case 413:
      return 'Use a smaller picture, or fewer at once.';
    case 429:
    case 503:
      return failure.retryAfter > 0 ? `Try again in ${failure.retryAfter} s.` : 'Try again in a moment.';
    case 400:
      if (failure.code === 'context_length_exceeded') return 'Use fewer or smaller pictures, or a shorter question.';
      if (/max(_completion)?_tokens/.test(failure.param)) return 'Change the answer length in the settings.';
      if (/truncated/.test(failure.message)) return 'The file is damaged; save or download it again.';
      if (/aspect ratio/.test(failure.message)) return 'Cut the picture to a less narrow shape.';
      return '';
    default:
      return failure.status >= 500 ? 'Try again; the server’s log says more.' : '';
  }
}
