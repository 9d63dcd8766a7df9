// Asks: sends the questions of each column, follows the stream, and fills the answers. Nothing is drawn here; `view`
// is told.
import { ask } from './api.js';
import { circumstances, countAnswer, pending, setAnswer, answerOf } from './answers.js';
import { ApiFailure, failureOfEvent } from './failure.js';
import { Lane } from './lane.js';
import { again, looked, ready } from './pictures.js';
import { state } from './state.js';

const lane = new Lane(4);

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
  try {
    await Promise.all(work.map((part) => askColumn(part, signal, view, sum)));
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
  let sent = []; // as the server counts them
  let refused = null; // why single questions are to be asked again
  const change = (question, fields) => {
    // A question that was removed meanwhile has no row any more: its answer is dropped.
    put(view, question, column, { ...answerOf(question, column), ...fields });
  };
  const settle = (question, fields) => {
    open.delete(question);
    change(question, { notice: '', ...fields });
    view.finished(question, column);
  };
  const fail = (question, failure) => {
    sum.failed += 1;
    settle(question, { status: 'failed', failure });
  };
  const onEvent = (event) => {
    if (event.object === 'ask.vision') {
      (event.vision ?? []).forEach((entry, i) => column.pictures[i] && looked(column.pictures[i], entry));
      view.column(column);
      return;
    }
    const question = sent[event.index];
    if (!question || !open.has(question)) return;
    if (event.object === 'ask.delta') {
      change(question, { status: 'streaming', text: (answerOf(question, column)?.text ?? '') + (event.text ?? '') });
    } else if (event.object === 'ask.answer' && event.error) {
      const failure = failureOfEvent(event.error);
      if (failure.repeatable) refused = failure;
      else fail(question, failure);
    } else if (event.object === 'ask.answer') {
      settle(question, finished(event, column, sum));
      view.column(column);
    }
  };
  const attempt = async () => {
    sent = [...open];
    refused = null;
    for (const question of sent) change(question, { status: 'waiting', text: '' });
    // In the words that it had when Ask was pressed, however often it is sent.
    const words = (question) => answerOf(question, column)?.question ?? question.text.trim();
    await ask(bodyOf(column, sent.map(words)), signal, onEvent);
    if (open.size > 0)
      throw refused ?? new ApiFailure(0, { message: 'the server left this question without an answer' });
  };
  const onWait = (seconds) => {
    const notice = seconds > 0 ? `Waiting for the server; trying again in ${seconds} s.` : '';
    for (const question of open) change(question, { status: 'waiting', text: '', notice });
  };

  let uploadedAgain = false;
  while (open.size > 0) {
    try {
      signal.throwIfAborted();
      await Promise.all(column.pictures.map((picture) => named(picture, signal)));
      await lane.pass(attempt, signal, onWait);
    } catch (error) {
      if (signal.aborted) {
        for (const question of [...open]) settle(question, { status: 'cancelled' });
        return;
      }
      const failure =
        error instanceof ApiFailure ? error : new ApiFailure(0, { message: 'the page failed; reload it' });
      if (failure !== error) console.error(error);
      const culprit = questionOf(failure, sent);
      if (culprit && open.has(culprit)) {
        fail(culprit, failure);
      } else if (failure.status === 404 && !uploadedAgain) {
        uploadedAgain = true;
        column.pictures.forEach(again);
      } else {
        if (failure.status === 401) view.needKey();
        for (const question of [...open]) fail(question, failure);
      }
    }
  }
}

// The one question that the server refuses, and with it the request: the others can be asked without it.
function questionOf(failure, sent) {
  const [, index] = /^questions\[(\d+)\]/.exec(failure.param) ?? [];
  return failure.lasting ? sent[index] : undefined;
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
    questions,
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
