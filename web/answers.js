// The answers that the page holds: one for each question and column, and how often each column's pictures were
// reused. A column is what is asked about together: all pictures, or one of them. The view is table.js.
import { isReuse } from './badge.js';
import { pictures } from './pictures.js';
import { asked, state } from './state.js';

const answers = new Map(); // "question|column" → {status, text, …}
const tallies = new Map(); // column → {reuses, answers}
let askedTogether = ''; // the column of all pictures that was asked about last

export function separate() {
  return state.mode === 'each' && pictures.length > 1;
}

export function columns() {
  if (separate()) return pictures.map((picture) => ({ key: picture.id, pictures: [picture] }));
  const key = pictures.map((picture) => picture.id).join(',') || 'none';
  return [{ key, pictures: [...pictures], together: true }];
}

export function answerOf(question, column) {
  return answers.get(`${question.id}|${column.key}`);
}

// What there is to read: as long as nothing was asked about these pictures together, the answers about those before.
export function shownAnswer(question, column) {
  const own = answerOf(question, column);
  if (own || !column.together || column.pictures.length === 0) return own;
  const before = answers.get(`${question.id}|${askedTogether}`);
  return before && { ...before, earlier: true };
}

// status: waiting | streaming | done | failed | cancelled
export function setAnswer(question, column, answer) {
  answers.set(`${question.id}|${column.key}`, answer);
  if (column.together) askedTogether = column.key;
}

export function tallyOf(column) {
  return tallies.get(column.key) ?? { reuses: 0, answers: 0 };
}

export function countAnswer(column, cachedTokens) {
  const tally = tallyOf(column);
  const reused = isReuse(
    cachedTokens,
    column.pictures.map((picture) => picture.sight),
  );
  tallies.set(column.key, { reuses: tally.reuses + (reused ? 1 : 0), answers: tally.answers + 1 });
  return reused;
}

// What an answer depends on beside question and pictures.
export function circumstances() {
  return JSON.stringify([state.system.trim(), state.maxTokens, state.sure]);
}

// Whether an answer is still one to this question, as it stands now.
export function isFresh(question, answer) {
  return (
    answer?.status === 'done' &&
    !answer.earlier &&
    answer.question === question.text.trim() &&
    answer.circumstances === circumstances()
  );
}

// What a press of Ask would ask: whatever has no answer yet, or everything anew: [{column, questions}].
export function pending() {
  const all = columns().map((column) => ({ column, questions: asked() }));
  const open = all
    .map(({ column, questions }) => ({
      column,
      questions: questions.filter((question) => !isFresh(question, answerOf(question, column))),
    }))
    .filter(({ questions }) => questions.length > 0);
  return open.length > 0
    ? { work: open, again: false }
    : { work: all.filter(({ questions }) => questions.length > 0), again: true };
}

// Answers to removed questions and about removed pictures.
export function forget() {
  const questions = new Set(state.questions.map((question) => question.id));
  const known = new Set(pictures.map((picture) => picture.id));
  if (pictures.length === 0) askedTogether = '';
  const alive = (column) => column === askedTogether || column.split(',').every((id) => known.has(id));
  for (const key of answers.keys()) {
    const [question, column] = key.split('|');
    if (!questions.has(question) || !alive(column)) answers.delete(key);
  }
  for (const key of tallies.keys()) if (!alive(key)) tallies.delete(key);
}

// For the clipboard and a spreadsheet: a head, then a line for each question.
export function asTable() {
  const cell = (text) => text.replace(/[\t\r\n]+/g, ' ').trim();
  const shown = columns();
  const head = [
    'Question',
    ...shown.map((column) => column.pictures.map((picture) => picture.name).join(' + ') || 'Answer'),
  ];
  const lines = asked().map((question) => [
    question.text,
    ...shown.map((column) => answerOf(question, column)?.text ?? ''),
  ]);
  return [head, ...lines].map((line) => line.map(cell).join('\t')).join('\n');
}
