// The same conversation as curl, Python and Node: code that runs as it stands, given the picture files. Pure, so that
// tests can run what it writes. `ask`: {origin, model, system, maxTokens, files: [{name, url, id}], questions, each,
// key}; `url` is where a sample can be fetched, `id` names a picture on the server that is in no file, `key` is given
// only if it may be shown.

export const languages = [
  { name: 'curl', label: 'curl', write: curl },
  { name: 'python', label: 'Python', write: python },
  { name: 'node', label: 'Node', write: node },
];

const kTypes = { jpg: 'image/jpeg', jpeg: 'image/jpeg', webp: 'image/webp', gif: 'image/gif', bmp: 'image/bmp' };

function typeOf(name) {
  return kTypes[name.split('.').at(-1).toLowerCase()] ?? 'image/png';
}

// In single quotes for a shell.
function shell(text) {
  return /^[A-Za-z0-9_.\/:-]+$/.test(text) && !text.startsWith('-') ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

// JSON that survives a here-document in which $(...) is still replaced.
function heredoc(value) {
  return JSON.stringify(value).replaceAll('\\\\', '\\u005c').replaceAll('$', '\\u0024').replaceAll('`', '\\u0060');
}

function fetches({ files, origin }, comment) {
  const urls = new Set(files.map((file) => file.url).filter(Boolean));
  return [...urls].map((url) => `${comment}curl -sSO ${origin}${url}\n`).join('');
}

const kKey = 'CHIASM_API_KEY';

// All answers in one request; without pictures, which /v1/ask is for, one for each question.
function curl(ask) {
  const key = `export ${kKey}=${ask.key ? shell(ask.key) : `\${${kKey}:-none}`}\n`;
  const groups = ask.each ? ask.files.map((file) => [file]) : [ask.files];
  const runs =
    ask.files.length > 0
      ? groups.map((files) => curlAsk(ask, files))
      : ask.questions.map((question) => curlChat(ask, question));
  return `${key}${fetches(ask, '')}${runs.join('\n')}\n`;
}

function curlAsk(ask, files) {
  const image = (file) =>
    file.id
      ? JSON.stringify({ type: 'image_id', image_id: file.id })
      : `"data:${typeOf(file.name)};base64,$(base64 < ${shell(path(file.name))} | tr -d '\\n')"`;
  return post(ask, '/v1/ask', [
    ask.system ? `"system": ${heredoc(ask.system)}` : null,
    `"images": [${files.map(image).join(', ')}]`,
    `"questions": [\n${ask.questions.map((question) => `    ${heredoc(question)}`).join(',\n')}\n  ]`,
  ]);
}

function curlChat(ask, question) {
  const messages = [{ role: 'user', content: question }];
  if (ask.system) messages.unshift({ role: 'system', content: ask.system });
  return post(ask, '/v1/chat/completions', [
    `"messages": [\n${messages.map((message) => `    ${heredoc(message)}`).join(',\n')}\n  ]`,
  ]);
}

function post(ask, route, fields) {
  const body = [`"model": ${heredoc(ask.model)}`, ...fields.filter(Boolean), `"max_tokens": ${ask.maxTokens}`];
  return [
    `curl -sS -w '\\n' ${ask.origin}${route} -H 'Content-Type: application/json' -H "Authorization: Bearer $${kKey}" --data-binary @- <<END`,
    '{',
    body.map((field) => `  ${field}`).join(',\n'),
    '}',
    'END',
  ].join('\n');
}

// A name that begins with a dash is no option, one with a slash no folder's.
function path(name) {
  const plain = name.replaceAll('/', '_');
  return plain.startsWith('-') ? `./${plain}` : plain;
}

const list = (values, indent) =>
  values.length === 0 ? '[]' : `[\n${values.map((value) => `${indent}${JSON.stringify(value)},\n`).join('')}]`;

// Name → id, for the pictures that are in no file.
const idsOf = (ask) =>
  Object.fromEntries(ask.files.filter((file) => file.id).map((file) => [path(file.name), file.id]));

function python(ask) {
  const ids = idsOf(ask);
  const some = Object.keys(ids).length > 0;
  const names = ask.files.map((file) => path(file.name));
  const system = ask.system ? [`SYSTEM = ${JSON.stringify(ask.system)}`] : [];
  const messages = ask.system
    ? [
        '            {"role": "system", "content": SYSTEM},',
        '            {"role": "user", "content": [*parts, {"type": "text", "text": question}]},',
      ]
    : ['            {"role": "user", "content": [*parts, {"type": "text", "text": question}]},'];
  return `${[
    '# pip install openai',
    ...fetches(ask, '# ').split('\n').filter(Boolean),
    'import base64',
    'import mimetypes',
    'import os',
    '',
    'from openai import OpenAI',
    '',
    ask.key
      ? `client = OpenAI(base_url="${ask.origin}/v1", api_key=${JSON.stringify(ask.key)})`
      : `client = OpenAI(base_url="${ask.origin}/v1", api_key=os.environ.get("CHIASM_API_KEY", "none"))`,
    ...system,
    `PICTURES = ${list(names, '    ')}`,
    ...(some ? [`IDS = ${JSON.stringify(ids)}  # pictures that the server has, in no file`] : []),
    `QUESTIONS = ${list(ask.questions, '    ')}`,
    '',
    '',
    'def picture(path):',
    ...(some ? ['    if path in IDS:', '        return {"type": "image_id", "image_id": IDS[path]}'] : []),
    '    kind = mimetypes.guess_type(path)[0] or "image/png"',
    '    with open(path, "rb") as file:',
    '        data = base64.b64encode(file.read()).decode()',
    '    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}',
    '',
    '',
    ask.each ? 'for names in [[name] for name in PICTURES]:' : 'for names in [PICTURES]:',
    '    parts = [picture(name) for name in names]',
    '    for question in QUESTIONS:',
    '        answer = client.chat.completions.create(',
    `            model=${JSON.stringify(ask.model)},`,
    `            max_tokens=${ask.maxTokens},`,
    '            messages=[',
    ...messages.map((line) => `    ${line}`),
    '            ],',
    '        )',
    '        reused = answer.usage.prompt_tokens_details.cached_tokens',
    '        print(*names, question, answer.choices[0].message.content, f"({reused} tokens reused)", sep="  ")',
  ].join('\n')}\n`;
}

function node(ask) {
  const ids = idsOf(ask);
  const some = Object.keys(ids).length > 0;
  const names = ask.files.map((file) => path(file.name));
  return `${[
    '// npm install openai; save as ask.mjs; node ask.mjs',
    ...fetches(ask, '// ').split('\n').filter(Boolean),
    "import { readFile } from 'node:fs/promises';",
    "import OpenAI from 'openai';",
    '',
    ask.key
      ? `const client = new OpenAI({ baseURL: '${ask.origin}/v1', apiKey: ${JSON.stringify(ask.key)} });`
      : `const client = new OpenAI({ baseURL: '${ask.origin}/v1', apiKey: process.env.CHIASM_API_KEY ?? 'none' });`,
    ...(ask.system ? [`const system = ${JSON.stringify(ask.system)};`] : []),
    `const pictures = ${JSON.stringify(ask.files.map((file) => [path(file.name), typeOf(file.name)]))};`,
    ...(some ? [`const ids = ${JSON.stringify(ids)}; // pictures that the server has, in no file`] : []),
    `const questions = ${list(ask.questions, '  ')};`,
    '',
    'async function picture([path, type]) {',
    ...(some ? ["  if (ids[path]) return { type: 'image_id', image_id: ids[path] };"] : []),
    "  const data = (await readFile(path)).toString('base64');",
    "  return { type: 'image_url', image_url: { url: `data:${type};base64,${data}` } };",
    '}',
    '',
    names.length > 0 && ask.each
      ? 'for (const group of pictures.map((one) => [one])) {'
      : 'for (const group of [pictures]) {',
    '  const parts = await Promise.all(group.map(picture));',
    '  for (const question of questions) {',
    '    const answer = await client.chat.completions.create({',
    `      model: ${JSON.stringify(ask.model)},`,
    `      max_tokens: ${ask.maxTokens},`,
    '      messages: [',
    ...(ask.system ? ["        { role: 'system', content: system },"] : []),
    "        { role: 'user', content: [...parts, { type: 'text', text: question }] },",
    '      ],',
    '    });',
    '    const reused = answer.usage.prompt_tokens_details.cached_tokens;',
    "    console.log(group.map(([path]) => path).join(' '), question, answer.choices[0].message.content, `(${reused} tokens reused)`);",
    '  }',
    '}',
  ].join('\n')}\n`;
}
