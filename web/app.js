// Puts the page together: who is told what when pictures, questions, settings or answers change. Everything that does
// something is in the other modules.
import { models, version } from './api.js';
import { answerOf, columns, pending, separate, shownAnswer } from './answers.js';
import { asking, cancel, run } from './ask.js';
import { drawLegend } from './bars.js';
import { openCopy, setUpCopy } from './copy.js';
import { setUpDocuments } from './documents.js';
import { $, announce, el, milliseconds, plural } from './dom.js';
import { whatHappened } from './failure.js';
import { setUpKeys } from './keys.js';
import { again, onPictures, pictures, remove } from './pictures.js';
import { presets, samples } from './samples.js';
import { keyWorks, needKey, setUpSettings, toggleTheme } from './settings.js';
import { asked, save, setQuestions, state } from './state.js';
import { poll, setUpStatus } from './status.js';
import { drawAnswer, drawColumn, drawFinished, drawTable, focusQuestion, growAll, setUpTable } from './table.js';
import { complain, setUpPictures } from './thumbs.js';

const kSets = Object.fromEntries(presets.map((preset) => [preset.name, preset]));

function drawAsk() {
  const { work, again: repeat } = pending();
  const questions = Math.max(0, ...work.map((part) => part.questions.length));
  let label = 'Ask';
  if (questions > 0) {
    const all = questions === asked().length;
    label = repeat ? 'Ask again' : `Ask ${all ? plural(questions, 'question') : plural(questions, 'new question')}`;
    if (separate()) label += ` about ${plural(work.length, 'picture')}`;
  }
  $('#ask-label').textContent = label;
  $('#ask').hidden = asking();
  $('#cancel').hidden = !asking();
  $('#mode').hidden = pictures.length < 2;
  for (const input of document.querySelectorAll('#mode input')) input.checked = input.value === state.mode;
}

function structureChanged() {
  drawTable();
  drawAsk();
  // What was said of answers goes with them.
  const answered = columns().some((column) => asked().some((question) => shownAnswer(question, column)));
  if (!answered && !asking()) say('');
}

async function askNow() {
  if (asking()) return;
  say('');
  if (pictures.length === 0) {
    complain(['Add a picture first, or take one of the samples.']);
    announce('Add a picture first.');
    $('#choose').focus();
    return;
  }
  complain([]);
  if (asked().length === 0) {
    say('Write a question first, or take one of the sets above.');
    focusQuestion(state.questions[0]);
    return;
  }
  const hadFocus = document.activeElement === $('#ask');
  const running = run({
    cell: drawAnswer,
    column: drawColumn,
    finished(question, column) {
      drawFinished(question, column);
      announceAnswer(question, column);
    },
    needKey: () => needKey(true),
  });
  drawAsk();
  say('Answering…');
  // Focus follows the button that was pressed, and takes nobody there who reads elsewhere.
  if (hadFocus) $('#cancel').focus({ preventScroll: true });
  const sum = await running;
  const cancelHadFocus = document.activeElement === $('#cancel');
  drawAsk();
  if (cancelHadFocus) $('#ask').focus({ preventScroll: true });
  say(summary(sum), { bad: sum.failed > 0 });
  poll();
}

// Whole answers, as they finish: a screen reader that reads every piece of a stream would never end.
function announceAnswer(question, column) {
  const number = state.questions.indexOf(question) + 1;
  const answer = answerOf(question, column);
  if (number === 0 || !answer) return;
  const who = separate() ? `${column.pictures[0].name}, question` : 'Question';
  const what = answer.failure
    ? whatHappened(answer.failure)
    : answer.status === 'cancelled'
      ? 'cancelled'
      : answer.text;
  announce(`${who} ${number}: ${what}`);
}

function summary(sum) {
  const parts = [];
  if (sum.answers > 0) {
    parts.push(`${plural(sum.answers, 'answer')} in ${milliseconds(sum.ms)}`);
    if (sum.prompt > 0)
      parts.push(`${sum.cached.toLocaleString('en')} of ${plural(sum.prompt, 'prompt token')} reused`);
    parts.push(`${sum.written.toLocaleString('en')} written`);
  }
  if (sum.failed > 0) parts.push(`${plural(sum.failed, 'question')} failed`);
  if (sum.cancelled) parts.push('cancelled');
  return parts.join(' · ');
}

function say(text, { bad = false, action = null } = {}) {
  const place = $('#summary');
  place.replaceChildren(text);
  if (action) place.append(' ', el('button', { type: 'button', class: 'link', onclick: action.run }, action.label));
  place.classList.toggle('bad', bad);
}

// Replaces the questions; what a person wrote can be had back.
function replaceQuestions(texts, mode) {
  const before = { questions: asked().map((question) => question.text), mode: state.mode };
  const written = !state.untouched && before.questions.length > 0 && !isSet(before.questions);
  setQuestions(texts, false);
  if (mode) state.mode = mode;
  save();
  structureChanged();
  if (!written) return say('');
  const undo = () => {
    setQuestions(before.questions, false);
    state.mode = before.mode;
    save();
    structureChanged();
    say('');
    focusQuestion(state.questions[0]);
  };
  say(`${plural(before.questions.length, 'question')} replaced.`, { action: { label: 'Undo', run: undo } });
}

function isSet(questions) {
  return presets.some((preset) => preset.questions.join('\n') === questions.join('\n'));
}

function takeSet(preset) {
  replaceQuestions(preset.questions, preset.mode);
  announce(`${plural(preset.questions.length, 'question')}: ${preset.label}.`);
}

// Samples bring questions that suit them, for as long as nobody chose or wrote others: the first its own, the second a
// comparison, more of them an album.
function sampleAdded(sample) {
  if (!state.untouched) return;
  if (pictures.length === 1) setQuestions(sample.questions, true);
  else if (pictures.every((picture) => picture.sample)) {
    const set = pictures.length === 2 ? kSets.compare : kSets.album;
    setQuestions(set.questions, true);
    state.mode = set.mode;
    save();
  }
  structureChanged();
}

async function greet() {
  try {
    const list = await models();
    state.model = list.data?.[0]?.id ?? '';
    $('#model').textContent = state.model.split('/').at(-1);
    $('#model').title = `Model: ${state.model}`;
    $('#model').hidden = state.model === '';
    keyWorks();
  } catch (failure) {
    if (failure.status === 401) needKey();
  }
  try {
    const { version: number } = await version();
    $('#version').textContent = `chiasm ${number}`;
  } catch {
    // The footer says just "chiasm".
  }
}

function setUpSets() {
  for (const preset of presets) {
    const button = el(
      'button',
      { type: 'button', class: 'set', 'data-set': preset.name, title: preset.questions.join('\n') },
      preset.label,
    );
    button.addEventListener('click', () => takeSet(kSets[preset.name]));
    $('#sets').append(button);
  }
}

drawLegend($('#legend'));
setUpSets();
setUpPictures({ onSample: sampleAdded });
setUpTable({ changed: drawAsk });
setUpCopy();
setUpDocuments();
setUpSettings({
  changed: structureChanged,
  async keyEntered() {
    await greet();
    for (const picture of pictures) if (picture.failure && !picture.failure.lasting) again(picture);
    poll();
  },
});
setUpStatus({ needKey });
setUpKeys({
  ask: askNow,
  cancel,
  choose: () => $('#choose').click(),
  question: () => focusQuestion(state.questions.at(-1)),
  copy: openCopy,
  theme: toggleTheme,
  sample: (i) => samples[i] && document.querySelectorAll('#samples .sample')[i].click(),
});
let shownPictures = '';
onPictures(() => {
  const now = pictures.map((picture) => picture.id).join();
  if (now === shownPictures) {
    for (const column of columns()) drawColumn(column);
    return;
  }
  shownPictures = now;
  structureChanged();
});
$('#ask').addEventListener('click', askNow);
$('#cancel').addEventListener('click', cancel);
$('#clear-pictures').addEventListener('click', () => [...pictures].forEach(remove));
$('#clear-questions').addEventListener('click', () => {
  replaceQuestions([], null);
  state.untouched = true;
  save();
  focusQuestion(state.questions[0]);
});
for (const input of document.querySelectorAll('#mode input')) {
  input.addEventListener('change', () => {
    state.mode = input.value;
    save();
    structureChanged();
  });
}
for (const button of document.querySelectorAll('[data-close]'))
  button.addEventListener('click', () => button.closest('dialog').close());
for (const dialog of document.querySelectorAll('dialog')) {
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
}
addEventListener('resize', growAll);
document.fonts?.ready.then(growAll);
drawAsk();
greet();
