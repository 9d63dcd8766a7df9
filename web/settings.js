// The settings: system prompt, answer length, probabilities, the look, and the API key with its banner.
import { $, announce } from './dom.js';
import { kDefaultMaxTokens, save, saveTheme, state, validMaxTokens } from './state.js';

let wrong = ''; // with the key that was entered last, which is why it was not sent

// `changed()`: answers may be out of date. `keyEntered()`: what failed for want of a key may be tried again.
export function setUpSettings({ changed, keyEntered }) {
  const system = $('#system');
  system.value = state.system;
  system.addEventListener('input', () => {
    state.system = system.value;
    save();
    changed();
  });

  const length = $('#max-tokens');
  length.value = state.maxTokens;
  length.addEventListener('input', () => {
    const value = validMaxTokens(length.value);
    $('#max-tokens-error').hidden = value !== null;
    length.setAttribute('aria-invalid', String(value === null));
    if (value === null) return;
    state.maxTokens = value;
    save();
    changed();
  });
  length.addEventListener('blur', () => {
    if (validMaxTokens(length.value) !== null) return;
    length.value = state.maxTokens || kDefaultMaxTokens;
    length.dispatchEvent(new Event('input'));
  });

  const sure = $('#sure');
  sure.checked = state.sure;
  sure.addEventListener('change', () => {
    state.sure = sure.checked;
    save();
    changed();
  });

  $('#key-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const key = $('#key').value.trim();
    // What a header cannot carry is no key; the browser would only fail.
    wrong = /^[\x21-\x7e]+$/.test(key) ? '' : 'An API key has no spaces, accents or letters beyond A to Z.';
    if (wrong) return needKey(true);
    state.key = key;
    save();
    showKey();
    keyEntered();
  });
  $('#forget-key').addEventListener('click', () => {
    state.key = '';
    $('#key').value = '';
    save();
    showKey();
    $('#settings summary').focus({ preventScroll: true });
    announce('The API key was forgotten.');
  });
  showKey();
  $('#theme').addEventListener('click', toggleTheme);
  nameTheme();
}

// The server wants a key. `ask`: a person waits for it, so the field gets the focus.
export function needKey(ask = false) {
  const banner = $('#key-banner');
  if (banner.hidden) {
    $('#key').value = state.key;
    banner.hidden = false;
    showDocuments(false);
  }
  const refused = state.key ? 'The server does not take this API key.' : 'This server wants an API key.';
  $('#key-text').textContent = wrong || refused;
  if (!ask) return;
  announce($('#key-text').textContent);
  if (document.activeElement === $('#key')) return;
  $('#key').focus();
  $('#key').select();
}

// A request with the key went well.
export function keyWorks() {
  const hadFocus = $('#key-banner').contains(document.activeElement);
  $('#key-banner').hidden = true;
  showDocuments(true);
  // On to what comes next.
  if (hadFocus) $($('#thumbs').hidden ? '#choose' : '#ask').focus({ preventScroll: true });
}

// Without the key they would be an error message.
function showDocuments(on) {
  for (const link of document.querySelectorAll('.foot a')) link.hidden = !on;
}

function showKey() {
  $('#key-state').textContent = state.key
    ? 'An API key is set; it goes when this tab is closed.'
    : 'No API key is set.';
  $('#forget-key').hidden = !state.key;
}

function dark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
}

// Light, dark; back to what the system says when that is the same.
export function toggleTheme() {
  const wanted = dark() ? 'light' : 'dark';
  const system = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
  if (wanted === system) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = wanted;
  saveTheme(wanted === system ? null : wanted);
  nameTheme();
  announce(`${wanted === 'dark' ? 'Dark' : 'Light'} look.`);
}

function nameTheme() {
  const name = dark() ? 'Light look' : 'Dark look';
  $('#theme').setAttribute('aria-label', name);
  $('#theme').title = `${name} (Alt+T)`;
}
