// The shortcuts, and the dialog that lists them. All have a modifier, so that none gets in the way of typing or of a
// screen reader; Alt is read by the key's place, because with Alt many layouts type signs.
import { $, el } from './dom.js';

const mac = /Mac|iPhone|iPad/.test(navigator.platform);

// `actions`: {ask, cancel, choose, question, copy, theme, sample(i)}
export function setUpKeys(actions) {
  const alt = {
    KeyP: actions.choose,
    KeyN: actions.question,
    KeyC: actions.copy,
    KeyT: actions.theme,
    KeyH: openHelp,
    Digit1: () => actions.sample(0),
    Digit2: () => actions.sample(1),
    Digit3: () => actions.sample(2),
    Digit4: () => actions.sample(3),
    Digit5: () => actions.sample(4),
    Digit6: () => actions.sample(5),
  };
  document.addEventListener('keydown', (event) => {
    if (event.isComposing || document.querySelector('dialog[open]')) return;
    const control = event.ctrlKey || event.metaKey;
    let action = null;
    if (event.key === 'Enter' && control && !event.altKey) action = actions.ask;
    else if (event.key === 'Escape') action = actions.cancel;
    else if (event.altKey && !control && !event.shiftKey) action = alt[event.code];
    if (!action) return;
    event.preventDefault();
    action();
  });

  const name = mac ? '⌥' : 'Alt';
  const rows = [
    [[mac ? '⌘' : 'Ctrl', 'Enter'], 'Ask'],
    [['Esc'], 'Cancel while it answers'],
    [[name, 'P'], 'Choose pictures'],
    [[mac ? '⌘' : 'Ctrl', 'V'], 'Paste a picture'],
    [[name, '1'], 'Add a sample picture (1 to 6)'],
    [[name, 'N'], 'Write another question'],
    [['Enter'], 'In a question: go to the next one'],
    [['Shift', 'Enter'], 'In a question: new line'],
    [['↑', '↓'], 'Move between questions'],
    [[name, 'C'], 'Copy as curl, Python or Node'],
    [[name, 'T'], 'Light or dark'],
    [[name, 'H'], 'This page'],
  ];
  $('#keys').replaceChildren(
    ...rows.flatMap(([keys, what]) => [
      el(
        'dt',
        {},
        keys.flatMap((key, i) => (i > 0 ? [' ', el('kbd', {}, key)] : [el('kbd', {}, key)])),
      ),
      el('dd', {}, what),
    ]),
  );
  $('#help').addEventListener('click', openHelp);
}

function openHelp() {
  $('#help-dialog').showModal();
}
