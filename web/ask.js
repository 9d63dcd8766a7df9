// Asks: sends the questions of each column, follows the stream, and fills the answers. Nothing is drawn here; `view`
// is told.
import { ApiFailure, ask, failureOfEvent } from './api.js';
import { circumstances, countAnswer, pending, setAnswer, answerOf } from './answers.js';
import { again, looked, ready } from './pictures.js';
import { state } from './state.js';

const kColumnsAtOnce = 4;
const kRepeats = 3;
const kLongestPause = 15; // seconds

let controller = null;
export const asking = () => controller !== null;
export const cancel = () => controller?.abort(new DOMException('cancelled', 'AbortError'));

// view: {cell(question, column), finished(question, column), column(column), needKey()}. Resolves to what it came to.
export async function run(view) {
  if (controller) return null;
  controller = new AbortController();
  const { signal } = controller;
  const began = performance.now();
  const sum = { answers: 0, failed: 0, cancelled: false, prompt: 0, cached: 0, written: 0, ms: 0 };
  const { work } = pending();
  for (const { column, questions } of work) {
    for (const question of questions) put(view, question, column, fresh(question));
  }
  const queue = [...work];
  const worker = async () => {
    while (queue.length > 0) await askColumn(queue.shift(), signal, view, sum);
  };
  try {
    await Promise.all(Array.from({ length: Math.min(kColumnsAtOnce, queue.length) }, worker));
  } finally {
    sum.cancelled = signal.aborted;
    controller = null;
  }
  sum.ms = performance.now() - began;
  return sum;
}

function fresh(question) {
  return { status: 'waiting', text: '', question: question.text.trim(), circumstances: circumstances(), notice: '' };
}

function put(view, question, column, answer) {
  setAnswer(question, column, answer);
  view.cell(question, column);
}

async function askColumn({ column, questions }, signal, view, sum) {
  const open = new Set(questions);
  const change = (question, fields) => {
    // A question that was removed meanwhile has no row any more: its answer is dropped.
    put(view, question, column, { ...answerOf(question, column), ...fields });
  };
  const settle = (question, fields) => {
    open.delete(question);
    change(question, fields);
    view.finished(question, column);
  };
  const onEvent = (event) => {
    if (event.object === 'ask.vision') {
      (event.vision ?? []).forEach((entry, i) => column.pictures[i] && looked(column.pictures[i], entry));
      view.column(column);
      return;
    }
    const question = questions[event.index];
    if (!question || !open.has(question)) return;
    if (event.object === 'ask.delta') {
      change(question, { status: 'streaming', text: (answerOf(question, column)?.text ?? '') + (event.text ?? '') });
    } else if (event.object === 'ask.answer') {
      if (event.error) {
        sum.failed += 1;
        settle(question, { status: 'failed', failure: failureOfEvent(event.error) });
      } else {
        settle(question, finished(event, column, sum));
        view.column(column);
      }
    }
  };

  let uploadedAgain = false;
  for (let repeat = 0; ; ++repeat) {
    try {
      signal.throwIfAborted();
      await Promise.all(column.pictures.map((picture) => named(picture, signal)));
      await ask(bodyOf(column, questions), signal, onEvent);
      if (open.size > 0) throw new ApiFailure(0, { message: 'the server left this question without an answer' });
      return;
    } catch (error) {
      if (signal.aborted) {
        for (const question of [...open]) settle(question, { status: 'cancelled' });
        return;
      }
      const failure =
        error instanceof ApiFailure ? error : new ApiFailure(0, { message: 'the page failed; reload it' });
      if (failure !== error) console.error(error);
      const nothingYet =
        open.size === questions.length && [...open].every((question) => !answerOf(question, column)?.text);
      if (nothingYet && failure.status === 404 && !uploadedAgain) {
        uploadedAgain = true;
        column.pictures.forEach(again);
        continue;
      }
      if (nothingYet && failure.repeatable && repeat < kRepeats) {
        const seconds = Math.min(kLongestPause, Math.max(1, failure.retryAfter));
        for (const question of open) change(question, { notice: `The server is full; trying again in ${seconds} s.` });
        await pause(seconds * 1000, signal);
        for (const question of open) change(question, { notice: '' });
        continue;
      }
      if (failure.status === 401) view.needKey();
      sum.failed += open.size;
      for (const question of [...open]) settle(question, { status: 'failed', failure });
      return;
    }
  }
}

// A picture's failure, said with its name.
async function named(picture, signal) {
  try {
    await ready(picture, signal);
  } catch (error) {
    if (!(error instanceof ApiFailure) || error.status === 401 || error.repeatable) throw error;
    throw new ApiFailure(error.status, { ...error, message: `${picture.name}: ${error.message}` }, error.retryAfter);
  }
}

function bodyOf(column, questions) {
  const body = {
    model: state.model || undefined,
    images: column.pictures.map((picture) => ({ type: 'image_id', image_id: picture.imageId })),
    questions: questions.map((question) => question.text.trim()),
    max_tokens: state.maxTokens,
  };
  if (state.system.trim()) body.system = state.system.trim();
  if (state.sure) body.logprobs = true;
  return body;
}

function finished(event, column, sum) {
  const usage = event.usage ?? {};
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  sum.answers += 1;
  sum.prompt += usage.prompt_tokens ?? 0;
  sum.cached += cached;
  sum.written += usage.completion_tokens ?? 0;
  return {
    status: 'done',
    text: event.answer ?? '',
    cut: event.finish_reason === 'length',
    prompt: usage.prompt_tokens ?? 0,
    cached,
    reused: countAnswer(column, cached),
    timing: event.timing ?? null,
    probability: probabilityOf(event.logprobs),
  };
}

// Of the whole answer, word for word.
function probabilityOf(logprobs) {
  const tokens = Array.isArray(logprobs) ? logprobs : logprobs?.content;
  if (!Array.isArray(tokens) || tokens.length === 0) return null;
  const sum = tokens.reduce((s, token) => s + Number(token.logprob), 0);
  return Number.isFinite(sum) ? Math.min(1, Math.exp(sum)) : null;
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });
}
