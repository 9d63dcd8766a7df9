// The browser test's steps about the page around the answers: ways in, keyboard, code to copy, settings, looks, panel.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './browser.mjs';
import {
  addSample,
  answers,
  ask,
  check,
  checkAnswers,
  equal,
  faint,
  finish,
  giveFile,
  noProblems,
  thumbs,
} from './harness.mjs';

const here = dirname(fileURLToPath(import.meta.url));

export async function pageSteps({ step, browser, expected, key, origin }) {
  await step('pictures by paste, drop and file dialog; what is no picture is refused', async (page) => {
    await giveFile(page, 'paste', { from: '/web/sample-cat.png', name: 'image.png', type: 'image/png' });
    await thumbs(page, 1);
    check(
      await giveFile(page, 'drop', { from: '/web/sample-fire.png', name: 'image.png', type: 'image/png' }),
      'no sign where to drop',
    );
    await thumbs(page, 2);
    equal(
      await page.evaluate('[...document.querySelectorAll(".thumb .name")].map((name) => name.textContent)'),
      ['image.png', 'image-2.png'],
      'names',
    );
    const { root } = await page.send('DOM.getDocument');
    const { nodeId } = await page.send('DOM.querySelector', { nodeId: root.nodeId, selector: '#file' });
    await page.send('DOM.setFileInputFiles', {
      nodeId,
      files: [join(here, '../../models/toytown/eval/scene-03.jpg'), join(here, '../../web/sample-night.png')],
    });
    await thumbs(page, 4);
    await page.click('.thumb:nth-child(4) .remove');
    await page.click('.thumb:nth-child(3) .remove');
    await page.click('.thumb:nth-child(1) .remove');
    await page.click('[data-set=toytown]');
    await ask(page);
    await checkAnswers(page, [expected.fire]);
    noProblems(page);

    const complaint = (words) => until(words, async () => (await page.text('#picture-error')).includes(words));
    await giveFile(page, 'drop', { text: 'hello', name: 'notes.txt', type: 'text/plain' });
    await complaint('notes.txt is no PNG');
    // Many browsers know no type for what phones write.
    await giveFile(page, 'drop', { text: '\0\0\0\x18ftypheic\0\0\0\0mif1heic', name: 'photo.heic', type: '' });
    await complaint('photo.heic is a picture in the HEIC format. Save it as JPEG or PNG');
    await giveFile(page, 'drop', { text: 'hello', name: 'broken.png', type: 'image/png' });
    await until('the refusal', () => page.evaluate('!!document.querySelector(".thumb[data-status=failed]")'));
    const note = await page.text('.thumb[data-status=failed] .note');
    check(note.length > 30 && !/Try again/.test(note), `note: ${note}`);
    await page.click('#mode label:nth-of-type(2)');
    await ask(page);
    const [, [, bad]] = (await answers(page))[0];
    check(/failed/.test(bad) && /broken\.png/.test(bad), `cell: ${bad}`);
    equal((await answers(page))[0][1][0], expected.fire['Describe the picture.'], 'the other picture');
    noProblems(page, 400, 415, 422);
  });

  await step('a list that is pasted becomes questions', async (page) => {
    await page.evaluate(`(() => {
    const carried = new DataTransfer();
    carried.setData('text/plain', 'What is the weather?\\r\\nIs there a cat?\\n\\nTag this picture.\\n');
    document.querySelector('#rows textarea').dispatchEvent(new ClipboardEvent('paste', {clipboardData: carried, bubbles: true, cancelable: true}));
  })()`);
    equal(
      (await answers(page)).map(([question]) => question),
      ['What is the weather?', 'Is there a cat?', 'Tag this picture.'],
      'questions',
    );
    noProblems(page);
  });

  await step('all of it by keyboard', async (page) => {
    const seen = [];
    let rounds = 0; // from where the focus was to the end, then from the top
    for (let i = 0; i < 90 && rounds < 2; ++i) {
      await page.press('Tab');
      const stop = await page.evaluate(`(() => {
      const node = document.activeElement;
      if (node === document.body) return null;
      const marked = [node, node.nextElementSibling].some((one) => one && getComputedStyle(one).outlineStyle !== 'none' && parseFloat(getComputedStyle(one).outlineWidth) > 0);
      return {name: node.id || node.dataset.sample || node.dataset.set || node.tagName.toLowerCase(), marked};
    })()`);
      if (!stop) rounds += 1;
      if (!stop) continue;
      check(stop.marked, `no visible focus on ${stop.name}`);
      seen.push(stop.name);
    }
    for (const wanted of [
      'theme',
      'help',
      'choose',
      'balloon',
      'cars',
      'toytown',
      'textarea',
      'ask',
      'copy',
      'summary',
    ]) {
      check(seen.includes(wanted), `Tab does not reach ${wanted}; it reaches ${seen.join(' ')}`);
    }
    await page.press('Digit4', { alt: true });
    await thumbs(page, 1);
    await page.press('KeyN', { alt: true });
    equal(await page.evaluate('document.activeElement.placeholder'), 'Another question…', 'focus');
    await page.type('Is there a cat?');
    await page.press('Enter');
    await page.type('What is the weather?');
    await page.press('ArrowUp');
    await page.press('Enter', { control: true });
    await finish(page);
    equal(await checkAnswers(page, [expected.cat]), 7, 'questions');
    await page.press('KeyH', { alt: true });
    check(await page.visible('#help-dialog'), 'no help');
    await page.press('Escape');
    check(!(await page.visible('#help-dialog')), 'help does not close');
    await page.press('KeyC', { alt: true });
    check(await page.visible('#copy-dialog'), 'no dialog');
    await page.press('ArrowRight');
    equal(await page.focused(), '#tab-python', 'focus');
    check((await page.text('#copy-code')).includes('from openai import OpenAI'), 'no Python');
    await page.press('Escape');
    const dark = await page.evaluate('getComputedStyle(document.body).backgroundColor');
    await page.press('KeyT', { alt: true });
    check(dark !== (await page.evaluate('getComputedStyle(document.body).backgroundColor')), 'the look did not change');
    noProblems(page);
  });

  await step('the code names files that can be there, and other pictures by their id', async (page) => {
    for (const [event, name] of [
      ['drop', 'cat.png'],
      ['drop', 'cat.png'],
      ['paste', 'image.png'],
    ]) {
      await giveFile(page, event, { from: '/web/sample-cat.png', name, type: 'image/png' });
      await until('the picture', () => page.evaluate('!document.querySelector(".thumb[data-status=looking]")'));
    }
    await giveFile(page, 'drop', { from: '/web/sample-fire.png', name: 'cat.png', type: 'image/png' });
    await thumbs(page, 4);
    await addSample(page, 'code');
    await addSample(page, 'code');
    await page.click('#copy');
    const code = await page.text('#copy-code');
    equal(
      code.match(/base64 < \S+/g),
      ['cat', 'cat', 'sample-code', 'sample-code'].map((name) => `base64 < ${name}.png`),
      'files',
    );
    equal(code.match(/curl -sSO/g)?.length, 1, 'samples that are fetched');
    const ids = code.match(/"image_id":"[0-9a-f]{64}"/g);
    equal([ids?.length, new Set(ids).size], [2, 2], 'ids');
    check((await page.text('#copy-note')).includes('by the id that this server gave them'), 'no word about ids');
    noProblems(page);
  });

  await step('copy as curl, Python, Node and a table', async (page) => {
    await addSample(page, 'fire');
    await ask(page);
    await page.click('#copy');
    for (const [tab, words] of [
      ['curl', [`${origin}/v1/ask`, 'sample-fire.png', '$CHIASM_API_KEY']],
      ['python', [`base_url="${origin}/v1"`, 'CHIASM_API_KEY', 'sample-fire.png']],
      ['node', [`baseURL: '${origin}/v1'`, 'CHIASM_API_KEY', 'sample-fire.png']],
      ['table', ['Question\tsample-fire.png', 'Where is the fire?\tIn the middle.']],
    ]) {
      await page.click(`#tab-${tab}`);
      const code = await page.text('#copy-code');
      for (const word of [...words, 'Where is the fire?']) check(code.includes(word), `${tab} lacks ${word}:\n${code}`);
      if (key) check(!code.includes(key), `${tab} has the key in clear`);
    }
    await browser
      .send('Browser.grantPermissions', { permissions: ['clipboardReadWrite', 'clipboardSanitizedWrite'], origin })
      .catch(() => {});
    await page.click('#copy-now');
    await until('it to be copied', async () => (await page.text('#copy-now')) === 'Copied');
    await page.click('#copy-dialog [data-close]');
    noProblems(page);
  });

  await step('settings reach the request and say what is wrong', async (page) => {
    await addSample(page, 'balloon');
    await page.click('#settings summary');
    await page.click('#max-tokens');
    await page.evaluate('document.querySelector("#max-tokens").select()');
    await page.type('0');
    check(await page.visible('#max-tokens-error'), 'no word about a length of 0');
    await page.evaluate('document.querySelector("#max-tokens").select()');
    await page.type('2');
    await page.click('#sure');
    await ask(page);
    const first = (await answers(page))[0][1][0];
    check(
      first.length > 0 && first.length < 12 && expected.balloon['Describe the picture.'].startsWith(first),
      `cut answer: ${first}`,
    );
    const chips = await page.text('#rows td .chips');
    check(chips.includes('cut at the length limit') && / % sure/.test(chips), `chips: ${chips}`);
    await page.evaluate('document.querySelector("#max-tokens").select()');
    await page.type('999999');
    await ask(page);
    const refused = await page.evaluate('document.querySelector("#rows td.failed .trouble")?.textContent ?? ""');
    check(refused === '' || /max_tokens|length|context|tokens/.test(refused), `refusal: ${refused}`);
    noProblems(page, 400);
  });

  await step('light and dark, by the system and by hand', async (page) => {
    await addSample(page, 'balloon');
    await ask(page);
    equal(await faint(page), [], 'too little contrast in the light look');
    const paper = () => page.evaluate('getComputedStyle(document.body).backgroundColor');
    const light = await paper();
    await page.look('dark');
    const dark = await paper();
    check(light !== dark, 'the system’s dark look changes nothing');
    equal(await faint(page), [], 'too little contrast in the dark look');
    await page.click('#theme');
    equal(await paper(), light, 'toggled to light');
    await page.reload();
    equal(await paper(), light, 'light after a reload');
    await page.click('#theme');
    equal(await paper(), dark, 'toggled back');
    noProblems(page, 401);
  });

  await step('the live panel follows', async (page) => {
    const number = async (id) => Number((await page.text(`#${id}`)).replace(/\D/g, ''));
    await until('figures', async () => (await page.text('#finished')) !== '–');
    const before = await number('finished');
    await addSample(page, 'cars');
    await ask(page);
    await until('more finished', async () => (await number('finished')) > before);
    await until('a line', () => page.evaluate('!!document.querySelector("#spark polyline")'));
    check(
      /^\d+ % of [\d,.M ]+ prompt tokens reused$/.test(await page.text('#prefix-text')),
      `prefix cache: ${await page.text('#prefix-text')}`,
    );
    check(/in use, .* kept, of .* blocks/.test(await page.text('#kv-text')), `KV: ${await page.text('#kv-text')}`);
    noProblems(page);
  });

  await step('nothing to ask about, nothing to ask', async (page) => {
    await page.click('#ask');
    check((await page.text('#picture-error')).includes('Add a picture first'), 'no word about the missing picture');
    equal(await page.focused(), '#choose', 'focus');
    await addSample(page, 'night');
    await page.click('#clear-questions');
    await page.click('#ask');
    check((await page.text('#summary')).includes('Write a question first'), 'no word about the missing question');
    noProblems(page);
  });
}
