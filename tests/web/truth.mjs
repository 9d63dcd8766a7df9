// What is true of the pictures in models/toytown/eval, for the stand-in server: answers by the picture's bytes and by the
// question, in whichever of its wordings.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const evalFolder = join(dirname(fileURLToPath(import.meta.url)), '../../models/toytown/eval');

export const digest = (bytes) => createHash('sha256').update(bytes).digest('hex');

// Digest of a picture's file → {grid, answers}; questions are matched whatever way of asking was drawn for the truth.
export function readTruth() {
  const truth = new Map();
  for (const scene of JSON.parse(readFileSync(join(evalFolder, 'truth.json'), 'utf8'))) {
    const answers = new Map(scene.questions.map(({ question, answer }) => [plain(question), answer]));
    const [, h, w] = scene.reference.grid_thw;
    truth.set(digest(readFileSync(join(evalFolder, scene.image))), { grid: [1, h, w], answers });
  }
  return truth;
}

export function plain(question) {
  return question
    .replace(/^(Day or night|Was this taken by day or by night)\?$/, 'Is it day or night?')
    .replace('What is the weather like?', 'What is the weather?')
    .replace(/^(How many (.*?)( are there)?\?|Count the (.*)\.)$/, (_, a, b, c, d) => `count ${b ?? d}`)
    .replace(/^Do you see (.*)$/, 'Is there $1')
    .replace(/^(Does this picture show|Policy check:) (.*?)[.?] Answer/, 'policy $2 Answer')
    .replace('What color', 'What colour')
    .replace('What number is on the sign?', 'Read the sign.')
    .replace('Give tags.', 'Tag this picture.')
    .replace('What is in the picture?', 'Describe the picture.')
    .replace('白天还是夜晚?', '现在是白天还是夜晚?')
    .replace('现在是现在是', '现在是');
}

// What is true of two pictures, from what is true of each.
export function compare(question, scenes) {
  const yes = scenes.map((scene) => {
    const [, about] = question.match(/^Which picture (?:has|is|shows) (?:an? )?(.*)\?$/) ?? [];
    return `${scene.get('Tag this picture.')},`.includes(about);
  });
  if (/^Which picture/.test(question))
    return yes[0] && yes[1] ? 'Both.' : yes[0] ? 'The first.' : yes[1] ? 'The second.' : 'Neither.';
  const [, noun, place] = question.match(/^How many (.*) are in the (first|second) picture\?$/) ?? [];
  return noun ? scenes[place === 'first' ? 0 : 1].get(`count ${noun}`) : undefined;
}
