// The pictures of the page and their way to the server: each is uploaded once, as soon as it is added, so that it has
// been looked at before the first question comes; from then on only its id travels. The view is thumbs.js.
import { upload } from './api.js';
import { countLook, newSight } from './badge.js';
import { plural } from './dom.js';
import { ApiFailure } from './failure.js';
import { Lane } from './lane.js';
import { foreignKind } from './picture_kind.js';

// {id, name, file: the name of the file that it came from, '' if none; blob, url, status: looking | ready | failed,
// failure, wait: seconds until a full server is asked again, imageId, sight}
export const pictures = [];

const kMostPictures = 200;
const kLargestFile = 64 << 20;
const kTypes = new Set(['image/png', 'image/jpeg', 'image/webp', 'image/gif', 'image/bmp', 'image/x-ms-bmp']);
const uploads = new Lane(2);

const listeners = [];
export function onPictures(listener) {
  listeners.push(listener);
}
function changed() {
  for (const listener of listeners) listener();
}

let next = 1;

// Adds picture files; returns sentences about those that it refuses. `pasted`: they are in no folder.
export async function addFiles(files, { pasted = false } = {}) {
  const refused = [];
  for (const file of files) {
    const why = await refusal(file);
    if (why) refused.push(`${file.name} ${why}`);
    else if (pictures.length >= kMostPictures) {
      refused.push(`${plural(kMostPictures, 'picture')} at most; remove some first.`);
      break;
    } else add(file, file.name || 'picture', pasted ? '' : file.name);
  }
  changed();
  return refused;
}

async function refusal(file) {
  if (file.size === 0) return 'is empty.';
  // A folder that was dropped looks like a file and cannot be read.
  const kind = await foreignKind(file).catch(() => '');
  if (kind) return `is a picture in the ${kind} format. Save it as JPEG or PNG, then add that.`;
  if (file.type && !kTypes.has(file.type)) return 'is no PNG, JPEG, WebP, GIF or BMP picture.';
  return file.size > kLargestFile ? 'is larger than 64 MiB.' : '';
}

export function add(blob, name, file) {
  const picture = {
    id: `p${next++}`,
    name: freeName(name),
    file,
    blob,
    url: URL.createObjectURL(blob),
    sample: '',
    status: 'looking',
    failure: null,
    wait: 0,
    imageId: '',
    sight: newSight(),
    gone: new AbortController(),
    upload: null,
  };
  pictures.push(picture);
  start(picture);
  return picture;
}

export async function addSample(sample) {
  const response = await fetch(`/web/${sample.file}`);
  if (!response.ok) throw new ApiFailure(response.status, { message: 'the sample picture is not there' });
  const picture = add(await response.blob(), sample.file, sample.file);
  picture.sample = sample.name;
  changed();
  return picture;
}

export function remove(picture) {
  const at = pictures.indexOf(picture);
  if (at < 0) return;
  pictures.splice(at, 1);
  picture.gone.abort();
  URL.revokeObjectURL(picture.url);
  changed();
}

// Waits until the picture is on the server; uploads it again where that failed and may go well now.
export async function ready(picture, signal) {
  if (picture.status === 'failed' && !picture.failure.lasting) start(picture);
  await untilAborted(picture.upload, signal);
  if (picture.failure) throw picture.failure;
}

// The server forgot the picture's id, or it should be tried anew.
export function again(picture) {
  if (picture.status !== 'looking') start(picture);
}

// What the server said about the picture in an answer.
export function looked(picture, entry) {
  countLook(picture.sight, entry);
  changed();
}

function start(picture) {
  picture.status = 'looking';
  picture.failure = null;
  picture.imageId = '';
  picture.upload = send(picture);
  changed();
}

async function send(picture) {
  const { signal } = picture.gone;
  const onWait = (seconds) => {
    picture.wait = seconds;
    changed();
  };
  try {
    const answer = await uploads.pass(() => upload(picture.blob, picture.name, signal), signal, onWait);
    picture.imageId = answer.id;
    countLook(picture.sight, answer);
    picture.status = 'ready';
  } catch (error) {
    picture.status = 'failed';
    picture.failure =
      error instanceof ApiFailure ? error : new ApiFailure(0, { message: 'the picture cannot be read' });
  }
  changed();
}

function untilAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

// "image.png" from the clipboard every time: the second is "image-2.png".
function freeName(name) {
  const dot = name.lastIndexOf('.') > 0 ? name.lastIndexOf('.') : name.length;
  let free = name;
  for (let n = 2; pictures.some((picture) => picture.name === free); ++n)
    free = `${name.slice(0, dot)}-${n}${name.slice(dot)}`;
  return free;
}
