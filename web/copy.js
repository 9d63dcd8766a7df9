// The dialog that shows the conversation as curl, Python or Node, and the answers as a table, ready to be copied.
import { asTable, separate } from './answers.js';
import { $, announce, el } from './dom.js';
import { pictures } from './pictures.js';
import { samples } from './samples.js';
import { languages } from './snippets.js';
import { asked, state } from './state.js';

const tabs = [...languages, { name: 'table', label: 'Answers', write: asTable }];
let chosen = tabs[0];

export function setUpCopy() {
  const dialog = $('#copy-dialog');
  const list = $('#copy-tabs');
  tabs.forEach((tab, i) => {
    const button = el(
      'button',
      { type: 'button', role: 'tab', id: `tab-${tab.name}`, 'aria-controls': 'copy-code' },
      tab.label,
    );
    button.addEventListener('click', () => choose(tab));
    button.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose(tabs[(i + step + tabs.length) % tabs.length]);
      $(`#tab-${chosen.name}`).focus();
    });
    list.append(button);
  });
  $('#copy').addEventListener('click', openCopy);
  $('#copy-key').addEventListener('change', show);
  $('#copy-now').addEventListener('click', copyNow);
  dialog.addEventListener('close', () => {
    $('#copy-code').textContent = '';
    $('#copy-key').checked = false;
  });
}

export function openCopy() {
  $('#copy-dialog').showModal();
  show();
  $(`#tab-${chosen.name}`).focus();
}

function choose(tab) {
  chosen = tab;
  show();
}

function show() {
  for (const tab of tabs) {
    const button = $(`#tab-${tab.name}`);
    button.setAttribute('aria-selected', String(tab === chosen));
    button.tabIndex = tab === chosen ? 0 : -1;
  }
  $('#copy-code').setAttribute('aria-labelledby', `tab-${chosen.name}`);
  $('#copy-key-line').hidden = state.key === '' || chosen.name === 'table';
  $('#copy-code').textContent = chosen.write(conversation());
  $('#copy-note').textContent =
    chosen.name === 'table' ? 'Columns are parted by tabs: paste it into a spreadsheet.' : noteFor();
  $('#copy-now').textContent = 'Copy';
}

function noteFor() {
  const own = pictures.filter((picture) => !picture.sample).length;
  const files = own > 0 ? 'Run it in the folder that has the pictures. ' : '';
  return `${files}The API key is read from CHIASM_API_KEY${state.key ? ' unless you include it' : ', if the server wants one'}.`;
}

function conversation() {
  return {
    origin: location.origin,
    model: state.model,
    system: state.system.trim(),
    maxTokens: state.maxTokens,
    files: pictures.map((picture) => {
      const sample = samples.find((one) => one.name === picture.sample && one.file === picture.name);
      return { name: picture.name, url: sample ? `/web/${sample.file}` : '' };
    }),
    questions: asked().map((question) => question.text.trim()),
    each: separate(),
    key: $('#copy-key').checked ? state.key : '',
  };
}

async function copyNow() {
  const text = $('#copy-code').textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard without https or permission: select it, so that the usual keys do it.
    const range = document.createRange();
    range.selectNodeContents($('#copy-code'));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    if (!document.execCommand('copy')) {
      $('#copy-now').textContent = 'Press Ctrl+C';
      return;
    }
  }
  $('#copy-now').textContent = 'Copied';
  announce('Copied.');
}
