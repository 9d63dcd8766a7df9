// What the page keeps over a reload: the questions and settings in localStorage; the API key in sessionStorage only, so
// that it goes with the tab. Pictures and answers it does not keep: other people's pictures do not belong into a browser's
// storage. Storage that is switched off or full costs the memory, never the page.

function read(storage, key, fallback) {
  try {
    const text = window[storage].getItem(`chiasm.${key}`);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

function write(storage, key, value) {
  try {
    if (value === null || value === '') window[storage].removeItem(`chiasm.${key}`);
    else window[storage].setItem(`chiasm.${key}`, JSON.stringify(value));
  } catch {
    // Kept in memory only.
  }
}

const kLongestQuestion = 20000;

let next = 1;
export function makeQuestion(text = '') {
  return { id: `q${next++}`, text };
}

function savedQuestions() {
  const saved = read('localStorage', 'questions', []);
  if (!Array.isArray(saved)) return [];
  return saved.filter((text) => typeof text === 'string' && text.length <= kLongestQuestion).slice(0, 256);
}

function text(value) {
  return typeof value === 'string' ? value : '';
}

export const kDefaultMaxTokens = 256;

export const state = {
  // The last one is always empty: it is where the next question is typed.
  questions: [...savedQuestions().map(makeQuestion), makeQuestion()],
  // Whether the questions are still those that a sample or a set put there, so that another may replace them.
  untouched: read('localStorage', 'untouched', true) === true,
  mode: read('localStorage', 'mode', 'together') === 'each' ? 'each' : 'together',
  system: text(read('localStorage', 'system', '')),
  maxTokens: validMaxTokens(read('localStorage', 'max_tokens', kDefaultMaxTokens)) ?? kDefaultMaxTokens,
  sure: read('localStorage', 'sure', false) === true,
  key: text(read('sessionStorage', 'key', '')),
  model: '',
};

export function validMaxTokens(value) {
  const number = Number(value);
  return Number.isInteger(number) && number >= 1 && number <= 1000000 ? number : null;
}

export function asked() {
  return state.questions.filter((question) => question.text.trim() !== '');
}

export function save() {
  write(
    'localStorage',
    'questions',
    asked().map((question) => question.text),
  );
  write('localStorage', 'untouched', state.untouched);
  write('localStorage', 'mode', state.mode);
  write('localStorage', 'system', state.system);
  write('localStorage', 'max_tokens', state.maxTokens);
  write('localStorage', 'sure', state.sure);
  write('sessionStorage', 'key', state.key);
}

export function saveTheme(theme) {
  write('localStorage', 'theme', theme);
}

export function setQuestions(texts, untouched) {
  state.questions = [...texts.map(makeQuestion), makeQuestion()];
  state.untouched = untouched;
  save();
}
