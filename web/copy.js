// The dialog that shows the conversation as curl, Python or Node, and the answers as a table, ready to be copied.
import { asTable, separate } from './answers.js';
import { $, announce, el } from './dom.js';
import { pictures } from './pictures.js';
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
  const written = conversation();
  $('#copy-code').textContent = chosen.write(written);
  $('#copy-note').textContent =
    chosen.name === 'table' ? 'Columns are parted by tabs: paste it into a spreadsheet.' : noteFor(written.files);
  $('#copy-now').textContent = 'Copy';
}

function noteFor(files) {
  const own = files.some((file) => !file.url && !file.id) ? 'Run it in the folder that has the pictures. ' : '';
  const kept = files.some((file) => file.id) ? 'Pictures without a file go by the id that this server gave them. ' : '';
  return `${own}${kept}The API key is read from CHIASM_API_KEY${state.key ? ' unless you include it' : ', if the server wants one'}.`;
}

function conversation() {
  return {
    origin: location.origin,
    model: state.model,
    system: state.system.trim(),
    maxTokens: state.maxTokens,
    files: pictures.map(fileOf),
    questions: asked().length > 0 ? asked().map((question) => question.text.trim()) : ['Your question?'],
    each: separate(),
    key: $('#copy-key').checked ? state.key : '',
  };
}

// Where the code finds a picture: as a sample of the server's, in its file, or, where no file of that name can be
// expected to be this picture, by the id of the upload.
function fileOf(picture) {
  if (picture.sample) return { name: picture.file, url: `/web/${picture.file}`, id: '' };
  const first = pictures.find((one) => one.file === picture.file);
  const there = picture.file !== '' && (first === picture || first.imageId === picture.imageId);
  if (there || !picture.imageId) return { name: picture.file || picture.name, url: '', id: '' };
  return { name: picture.name, url: '', id: picture.imageId };
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
