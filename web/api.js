// Speaks to the server: every request of the page goes through here. Failures come as ApiFailure with the server's own
// words; what to do about them is advice(). Every wait has an end.
import { EventReader } from './events.js';
import { state } from './state.js';

export class ApiFailure extends Error {
  // `status` 0: no answer came.
  constructor(status, { message, code, param } = {}, retryAfter = 0) {
    super(message || (status ? `the server answered with status ${status}` : 'the server does not answer'));
    this.status = status;
    this.code = code || '';
    this.param = param || '';
    this.retryAfter = retryAfter;
  }
  get repeatable() {
    return this.status === 429 || this.status === 503;
  }
}

const kQuick = 8000;
const kUpload = 180000;
// A stream shows a sign of life every 15 s while it waits.
const kSilence = 60000;

export const models = () => json('GET', '/v1/models', undefined, { timeout: kQuick });
export const version = () => json('GET', '/version', undefined, { timeout: kQuick });
export const status = () => json('GET', '/v1/status', undefined, { timeout: kQuick });
export function upload(blob, name, signal) {
  const form = new FormData();
  form.append('image', blob, name);
  return json('POST', '/v1/images', form, { timeout: kUpload, signal });
}

// Asks and calls on_event for each event. Rejects with ApiFailure, or with an AbortError when `signal` fired.
export async function ask(body, signal, onEvent) {
  const silence = new Silence(kSilence);
  try {
    const response = await send(
      'POST',
      '/v1/ask',
      { ...body, stream: true },
      AbortSignal.any([signal, silence.signal]),
    );
    const reader = response.body.getReader();
    const events = new EventReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      silence.reset();
      for (const event of events.push(value)) {
        if (event.error && event.object !== 'ask.answer') throw failureOfEvent(event.error);
        onEvent(event);
      }
      if (events.done) return;
    }
    throw new ApiFailure(0, { message: 'the connection ended in the middle of the answers' });
  } catch (error) {
    throw asFailure(error, signal);
  } finally {
    silence.end();
  }
}

async function json(method, path, body, { timeout, signal }) {
  const limit = AbortSignal.timeout(timeout);
  try {
    const response = await send(method, path, body, signal ? AbortSignal.any([signal, limit]) : limit);
    return await response.json();
  } catch (error) {
    throw asFailure(error, signal);
  }
}

async function send(method, path, body, signal) {
  const headers = {};
  // A form brings its own type, with the boundary.
  const form = body instanceof FormData;
  if (body !== undefined && !form) headers['Content-Type'] = 'application/json';
  if (state.key) headers.Authorization = `Bearer ${state.key}`;
  const response = await fetch(path, {
    method,
    headers,
    body: body === undefined || form ? body : JSON.stringify(body),
    signal,
    cache: 'no-store',
    credentials: 'omit',
    redirect: 'error',
  });
  if (response.ok) return response;
  let answer = {};
  try {
    answer = await response.json();
  } catch {
    // A proxy's own page: the status says enough.
  }
  throw failureOf(response.status, answer, Number(response.headers.get('Retry-After')) || 0);
}

function failureOf(status, answer, retryAfter = 0) {
  const told = answer && typeof answer.error === 'object' && answer.error ? answer.error : {};
  return new ApiFailure(status, told, retryAfter);
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

function asFailure(error, signal) {
  if (error instanceof ApiFailure) return error;
  if (signal && signal.aborted) return error;
  if (error instanceof SyntaxError) return new ApiFailure(0, { message: 'the server sent what is no answer' });
  if (error.name === 'TimeoutError') return new ApiFailure(0, { message: 'the server did not answer in time' });
  return new ApiFailure(0, { message: 'the server cannot be reached' });
}

// Fires when nothing was heard for so long.
class Silence {
  #controller = new AbortController();
  #timer;
  #ms;
  constructor(ms) {
    this.#ms = ms;
    this.reset();
  }
  get signal() {
    return this.#controller.signal;
  }
  reset() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(new DOMException('silence', 'TimeoutError')), this.#ms);
  }
  end() {
    clearTimeout(this.#timer);
  }
}

// What a person can do about it, in one sentence; nothing where the server said it already.
export function advice(failure) {
  const text = adviceOn(failure);
  const said =
    (text.startsWith('Try again') && /try again/i.test(failure.message)) ||
    (text.startsWith('PNG') && failure.message.includes('PNG'));
  return said ? '' : text;
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
      return /^image/.test(failure.param) ? 'PNG, JPEG, WebP, GIF and BMP files work.' : '';
    default:
      return failure.status >= 500 ? 'Try again; the server’s log says more.' : '';
  }
}
