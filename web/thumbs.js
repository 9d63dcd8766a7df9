// The pictures as a person sees them: thumbnails with what became of each, the samples, and the ways in: drop, paste,
// choose, camera.
import { $, announce, el, icon, milliseconds, plural } from './dom.js';
import { explain, whatHappened } from './failure.js';
import { addFiles, addSample, again, onPictures, pictures, remove } from './pictures.js';
import { samples } from './samples.js';

const thumbs = new Map(); // picture → its parts

// `onSample(sample)`: a sample was added.
export function setUpPictures({ onSample }) {
  for (const input of [$('#file'), $('#camera')]) {
    input.addEventListener('change', () => {
      take([...input.files]);
      input.value = '';
    });
  }
  $('#choose').addEventListener('click', () => $('#file').click());
  $('#shoot').addEventListener('click', () => $('#camera').click());
  setUpSamples(onSample);
  setUpDrop();
  document.addEventListener('paste', paste);
  onPictures(draw);
  draw();
}

async function take(files, options) {
  const before = pictures.length;
  const refused = await addFiles(files, options);
  complain(refused);
  const added = pictures.length - before;
  if (added > 0) announce(`${plural(added, 'picture')} added.`);
}

// A sentence beneath the pictures, until the next one comes.
export function complain(sentences) {
  const place = $('#picture-error');
  place.replaceChildren(...sentences.slice(0, 4).map((sentence) => el('p', {}, icon('alert'), sentence)));
  if (sentences.length > 4) place.append(el('p', {}, `And ${sentences.length - 4} more.`));
  place.hidden = sentences.length === 0;
}

function setUpSamples(onSample) {
  samples.forEach((sample, i) => {
    const image = el('img', { src: `/web/${sample.file}`, alt: '', width: 76, height: 57, draggable: 'false' });
    const button = el(
      'button',
      {
        type: 'button',
        class: 'sample',
        'data-sample': sample.name,
        title: `${sample.label} (Alt+${i + 1})`,
        'aria-label': `Add sample: ${sample.label}`,
      },
      image,
    );
    button.addEventListener('click', async () => {
      try {
        await addSample(sample);
        complain([]);
        announce(`Sample added: ${sample.label}.`);
        onSample(sample);
      } catch {
        complain(['The sample picture cannot be loaded. See whether chiasm is still running.']);
      }
    });
    $('#samples').append(el('li', {}, button));
  });
}

// The whole page takes a drop: nobody should have to aim.
function setUpDrop() {
  let depth = 0;
  const carries = (event) => [...event.dataTransfer.types].some((type) => type === 'Files' || type === 'text/uri-list');
  const show = (on) => document.documentElement.classList.toggle('dropping', on);
  document.addEventListener('dragenter', (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth += 1;
    show(true);
  });
  document.addEventListener('dragover', (event) => {
    if (carries(event)) event.preventDefault();
  });
  document.addEventListener('dragleave', (event) => {
    if (!carries(event)) return;
    depth = Math.max(0, depth - 1);
    if (depth === 0) show(false);
  });
  document.addEventListener('drop', (event) => {
    depth = 0;
    show(false);
    if (!carries(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length > 0) take([...event.dataTransfer.files]);
    else complain(['That is a link, not a file. Save the picture first, then drop the file.']);
  });
}

function paste(event) {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length === 0) return;
  event.preventDefault();
  take(
    files.map((file) => (file.name ? file : new File([file], 'pasted.png', { type: file.type }))),
    { pasted: true },
  );
}

function draw() {
  const list = $('#thumbs');
  for (const [picture, parts] of thumbs) {
    if (pictures.includes(picture)) continue;
    parts.item.remove();
    thumbs.delete(picture);
  }
  for (const picture of pictures) {
    if (!thumbs.has(picture)) {
      thumbs.set(picture, make(picture));
      list.append(thumbs.get(picture).item);
    }
    refresh(picture, thumbs.get(picture));
  }
  list.hidden = pictures.length === 0;
  $('#pictures').classList.toggle('empty', pictures.length === 0);
  $('#pictures').classList.toggle('many', pictures.length > 3);
  $('#clear-pictures').hidden = pictures.length < 2;
}

function make(picture) {
  const image = el('img', { src: picture.url, alt: picture.name, draggable: 'false' });
  const drop = el(
    'button',
    { type: 'button', class: 'remove', 'aria-label': `Remove ${picture.name}`, title: 'Remove' },
    icon('close'),
  );
  drop.addEventListener('click', () => {
    const at = pictures.indexOf(picture);
    remove(picture);
    announce(`${picture.name} removed.`);
    const neighbour = pictures[Math.min(at, pictures.length - 1)];
    (neighbour ? $('.remove', thumbs.get(neighbour).item) : $('#choose')).focus();
  });
  const note = el('p', { class: 'note' });
  const item = el(
    'li',
    { class: 'thumb' },
    el('div', { class: 'frame' }, image, drop),
    el('p', { class: 'name', title: picture.name }, picture.name),
    note,
  );
  image.addEventListener('error', () => item.classList.add('unseen'));
  return { item, note };
}

function refresh(picture, { item, note }) {
  item.dataset.status = picture.status;
  if (note.dataset.for === noteKey(picture)) return;
  note.dataset.for = noteKey(picture);
  if (picture.status === 'looking')
    note.replaceChildren(picture.wait > 0 ? `Waiting for the server; trying again in ${picture.wait} s.` : 'Looking…');
  else if (picture.status === 'ready') note.replaceChildren(told(picture));
  else {
    const { failure } = picture;
    const retry = el('button', { type: 'button', class: 'link', onclick: () => again(picture) }, 'Try again');
    note.replaceChildren(explain(failure), ...(failure.lasting ? [] : [' ', retry]));
    announce(`${picture.name}: ${whatHappened(failure)}`);
  }
}

function noteKey({ status, failure, wait, sight }) {
  return [status, failure?.message, wait, sight.looks, sight.ms, sight.tokens].join('|');
}

function told({ sight }) {
  const how = sight.looks > 0 ? `looked at in ${milliseconds(sight.ms / sight.looks)}` : 'known already';
  return `${plural(sight.tokens, 'token')} · ${how}`;
}
