// The table of questions and answers: rows of questions that can be typed into, a cell for each column's answer. Rows
// and cells are kept and changed in place, so that focus and typing survive whatever streams in. Cells are cell.js.
import { columns, forget, separate, shownAnswer, tallyOf } from './answers.js';
import { badgeDetail, badgeText } from './badge.js';
import { barPlaces, clearBar, drawBar, total } from './bars.js';
import { drawCell, drawCellBar } from './cell.js';
import { $, announce, el, icon, plural } from './dom.js';
import { asked, makeQuestion, save, state } from './state.js';

const rows = new Map(); // question id → {row, number, area, remove, cells: column key → td}
let heads = new Map(); // column key → {head, badge, bar}
let longest = 0; // milliseconds that are the whole width of a bar
let onChange = () => {};

export function setUpTable({ changed }) {
  onChange = changed;
  drawTable();
}

// Everything that depends on which questions and columns there are.
export function drawTable() {
  forget();
  const shown = columns();
  drawHeads(shown);
  const body = $('#rows');
  for (const [id, parts] of rows) {
    if (state.questions.some((question) => question.id === id)) continue;
    parts.row.remove();
    rows.delete(id);
  }
  state.questions.forEach((question, i) => {
    if (!rows.has(question.id)) rows.set(question.id, makeRow(question));
    const parts = rows.get(question.id);
    if (body.children[i] !== parts.row) body.insertBefore(parts.row, body.children[i] ?? null);
    const last = i === state.questions.length - 1;
    parts.number.textContent = last ? '' : String(i + 1);
    parts.row.classList.toggle('blank', last);
    parts.remove.hidden = last;
    parts.area.placeholder = i === 0 ? 'What do you want to know?' : 'Another question…';
    parts.area.setAttribute('aria-label', last ? 'New question' : `Question ${i + 1}`);
    parts.remove.setAttribute('aria-label', `Remove question ${i + 1}`);
    if (parts.area.value !== question.text) parts.area.value = question.text;
    const cells = new Map(
      shown.map((column) => [column.key, parts.cells.get(column.key) ?? el('td', { role: 'cell' })]),
    );
    parts.cells = cells;
    placeCells(parts.row, [...cells.values()]);
    for (const column of shown) drawCell(cells.get(column.key), question, column, shownAnswer(question, column));
  });
  $('#table').classList.toggle('wide', separate());
  $('#table').dataset.columns = shown.length;
  // After the rows are in the page: only there do they have a height.
  for (const { area } of rows.values()) grow(area);
  drawBars();
}

// The question's own cell stays where it is: an element that is put in again loses the focus.
function placeCells(row, cells) {
  const there = [...row.children].slice(1);
  if (there.length === cells.length && there.every((cell, i) => cell === cells[i])) return;
  for (const cell of there) cell.remove();
  row.append(...cells);
}

function drawHeads(shown) {
  const kept = new Map();
  for (const column of shown) {
    const old = heads.get(column.key);
    const parts = old ?? {
      head: el('th', { scope: 'col', role: 'columnheader', class: 'column' }),
      badge: el('span', { class: 'badge' }),
      bar: barPlaces(),
    };
    kept.set(column.key, parts);
    drawHead(column, parts);
  }
  heads = kept;
  $('#head').replaceChildren($('#head').firstElementChild, ...[...kept.values()].map((parts) => parts.head));
}

function drawHead(column, { head, badge, bar }) {
  const [picture] = column.pictures;
  let label = [el('span', { class: 'who' }, 'Answers')];
  if (separate())
    label = [el('img', { src: picture.url, alt: '' }), el('span', { class: 'who', title: picture.name }, picture.name)];
  else if (column.pictures.length > 1)
    label = [el('span', { class: 'who' }, `About ${plural(column.pictures.length, 'picture')} together`)];
  head.replaceChildren(el('div', { class: 'label' }, ...label, badge), bar.track, bar.numbers);
  drawBadge(column, badge);
}

function drawBadge(column, badge) {
  const sights = column.pictures.map((picture) => picture.sight);
  const tally = tallyOf(column);
  badge.hidden = tally.answers === 0 || sights.length === 0;
  if (badge.hidden) return;
  const text = badgeText(sights, tally.reuses);
  if (badge.textContent !== text) badge.replaceChildren(icon('eye'), text);
  badge.title = badgeDetail(sights, tally.reuses, tally.answers);
}

// A column's pictures were looked at, or reused once more.
export function drawColumn(column) {
  const parts = heads.get(column.key);
  if (!parts) return;
  drawBadge(column, parts.badge);
  drawLook(column, parts.bar);
}

// What looking took, to the scale of the answers' bars. Its place is there before.
function drawLook(column, bar) {
  for (const place of [bar.track, bar.numbers]) place.hidden = column.pictures.length === 0;
  if (column.pictures.every((picture) => picture.status === 'ready'))
    drawBar(bar, { vision_ms: lookedFor(column) }, longest, ['vision']);
  else clearBar(bar);
}

const lookedFor = (column) => column.pictures.reduce((sum, picture) => sum + picture.sight.ms, 0);

// What comes in about pictures that were changed meanwhile has no column; it goes where it is still shown.
export function drawAnswer(question, column) {
  const { cells } = rows.get(question.id) ?? {};
  const shown = cells?.has(column.key) ? column : columns()[0];
  if (cells?.has(shown.key)) drawCell(cells.get(shown.key), question, shown, shownAnswer(question, shown));
}

// An answer is there: the scale of the bars may change.
export function drawFinished(question, column) {
  drawAnswer(question, column);
  drawBars();
}

// All bars have one scale, so the longest decides over all.
function drawBars() {
  const all = columns();
  const done = [];
  let answered = false;
  for (const question of state.questions) {
    for (const column of all) {
      const answer = shownAnswer(question, column);
      answered ||= answer !== undefined;
      if (answer?.status === 'done' && answer.timing)
        done.push({ cell: rows.get(question.id)?.cells.get(column.key), timing: answer.timing });
    }
  }
  longest = done.length > 0 ? Math.max(...done.map(({ timing }) => total(timing)), ...all.map(lookedFor)) : 0;
  for (const { cell, timing } of done) if (cell) drawCellBar(cell, timing, longest);
  for (const column of all) drawLook(column, heads.get(column.key).bar);
  $('#legend').hidden = !answered;
}

function makeRow(question) {
  const number = el('span', { class: 'no', 'aria-hidden': 'true' });
  const area = el('textarea', { rows: 1, spellcheck: 'true', maxlength: 20000, enterkeyhint: 'next' });
  area.value = question.text;
  const drop = el('button', { type: 'button', class: 'remove', title: 'Remove question' }, icon('close'));
  const head = el(
    'th',
    { scope: 'row', role: 'rowheader', class: 'question' },
    el('div', { class: 'ask-line' }, number, area, drop),
  );
  area.addEventListener('input', () => typed(question, area));
  area.addEventListener('keydown', (event) => keyed(event, question, area));
  area.addEventListener('paste', (event) => pasted(event, question, area));
  drop.addEventListener('click', () => removeQuestion(question));
  return { row: el('tr', { role: 'row' }, head), number, area, remove: drop, cells: new Map() };
}

function typed(question, area) {
  question.text = area.value;
  state.untouched = asked().length === 0;
  save();
  if (question === state.questions.at(-1) && area.value.trim() !== '') {
    state.questions.push(makeQuestion());
    drawTable();
  } else {
    grow(area);
    for (const column of columns()) drawAnswer(question, column);
  }
  onChange();
}

function keyed(event, question, area) {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = state.questions.indexOf(question);
  const alone = area.selectionStart === area.selectionEnd;
  const step = (to) => {
    const next = state.questions[to];
    if (!next) return;
    event.preventDefault();
    focusQuestion(next);
  };
  if (event.key === 'Enter' && !event.shiftKey) {
    event.preventDefault();
    step(at + 1);
  } else if (event.key === 'ArrowUp' && alone && area.selectionStart === 0) step(at - 1);
  else if (event.key === 'ArrowDown' && alone && area.selectionStart === area.value.length) step(at + 1);
  else if (event.key === 'Backspace' && area.value === '' && at < state.questions.length - 1) {
    event.preventDefault();
    removeQuestion(question);
  }
}

// Several lines are several questions: a list of checks can be pasted at once.
function pasted(event, question, area) {
  const lines = (event.clipboardData?.getData('text/plain') ?? '')
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter(Boolean);
  if (lines.length < 2) return;
  event.preventDefault();
  const at = state.questions.indexOf(question);
  const added = lines.slice(0, 256 - asked().length).map(makeQuestion);
  state.questions.splice(area.value.trim() === '' ? at : at + 1, 0, ...added);
  state.untouched = false;
  save();
  drawTable();
  onChange();
  focusQuestion(added.at(-1) ?? question);
  announce(`${plural(added.length, 'question')} added.`);
}

function removeQuestion(question) {
  const at = state.questions.indexOf(question);
  if (at < 0 || at === state.questions.length - 1) return;
  state.questions.splice(at, 1);
  state.untouched = asked().length === 0;
  save();
  drawTable();
  onChange();
  focusQuestion(state.questions[Math.max(0, Math.min(at, state.questions.length - 1))]);
  announce('Question removed.');
}

export function focusQuestion(question) {
  const area = rows.get(question.id)?.area;
  if (!area) return;
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}

function grow(area) {
  area.style.height = 'auto';
  area.style.height = `${area.scrollHeight}px`;
}

export function growAll() {
  for (const { area } of rows.values()) grow(area);
}
