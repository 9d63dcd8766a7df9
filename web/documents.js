// The server's own documents that the footer names. They open in another tab, so that pictures and answers stay; where
// a key is needed, which a plain link cannot carry, they are fetched with it first.
import { text } from './api.js';
import { state } from './state.js';

const kKept = 60000; // milliseconds that the other tab has to load it

export function setUpDocuments() {
  for (const link of document.querySelectorAll('.foot a')) {
    link.addEventListener('click', (event) => {
      if (!state.key) return;
      event.preventDefault();
      open(link.getAttribute('href'));
    });
  }
}

async function open(path) {
  const tab = window.open('about:blank'); // at once: later a browser takes it for an advertisement
  if (!tab) return;
  try {
    const url = URL.createObjectURL(await text(path));
    tab.location = url;
    setTimeout(() => URL.revokeObjectURL(url), kKept);
  } catch {
    tab.location = path; // shows what the server says
  }
}
