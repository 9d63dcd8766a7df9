// Speaks to the server: every request of the page goes through here. Failures come as ApiFailure. Every wait has an end.
import { EventReader } from './events.js';
import { ApiFailure, failureOfEvent } from './failure.js';
import { state } from './state.js';

const kQuick = 8000;
const kUpload = 180000;
// A stream shows a sign of life every 15 s while it waits.
const kSilence = 60000;

export const models = () => json('GET', '/v1/models', undefined, { timeout: kQuick });
export const version = () => json('GET', '/version', undefined, { timeout: kQuick });
export const status = () => json('GET', '/v1/status', undefined, { timeout: kQuick });
// A document of the server's, to be shown as plain text.
export async function text(path) {
  try {
    const response = await send('GET', path, undefined, AbortSignal.timeout(kQuick));
    return new Blob([await response.text()], { type: 'text/plain;charset=utf-8' });
  } catch (error) {
    throw asFailure(error);
  }
}
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
