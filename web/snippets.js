// The same conversation as curl, Python and Node: code that runs as it stands, given the picture files. Pure, so that
// tests can run what it writes. `ask`: {origin, model, system, maxTokens, files: [{name, url}], questions, each,
// key}; `url` is where a sample can be fetched, `key` is given only if it may be shown.

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
  const samples = files.filter((file) => file.url);
  return samples.length === 0
    ? ''
    : `${samples.map((file) => `${comment}curl -sSO ${origin}${file.url}`).join('\n')}\n`;
}

function curl(ask) {
  const open = 'CHIASM_API_KEY';
  const image = (file) => `"data:${typeOf(file.name)};base64,$(base64 < ${shell(path(file.name))} | tr -d '\\n')"`;
  const one = (files) =>
    [
      `curl -sS ${ask.origin}/v1/ask -H 'Content-Type: application/json' -H "Authorization: Bearer $${open}" --data-binary @- <<END`,
      '{',
      `  "model": ${heredoc(ask.model)},`,
      ask.system ? `  "system": ${heredoc(ask.system)},` : null,
      `  "images": [${files.map(image).join(', ')}],`,
      `  "questions": [\n${ask.questions.map((question) => `    ${heredoc(question)}`).join(',\n')}\n  ],`,
      `  "max_tokens": ${ask.maxTokens}`,
      '}',
      'END',
    ]
      .filter((line) => line !== null)
      .join('\n');
  const key = `export ${open}=${ask.key ? shell(ask.key) : '${CHIASM_API_KEY:-none}'}\n`;
  const runs = ask.each ? ask.files.map((file) => one([file])) : [one(ask.files)];
  return `${key}${fetches(ask, '')}${runs.join('\n')}\n`;
}

// A name that begins with a dash is no option, one with a slash no folder's.
function path(name) {
  const plain = name.replaceAll('/', '_');
  return plain.startsWith('-') ? `./${plain}` : plain;
}

const list = (values, indent) =>
  values.length === 0 ? '[]' : `[\n${values.map((value) => `${indent}${JSON.stringify(value)},\n`).join('')}]`;

function python(ask) {
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
    `QUESTIONS = ${list(ask.questions, '    ')}`,
    '',
    '',
    'def picture(path):',
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
    `const questions = ${list(ask.questions, '  ')};`,
    '',
    'async function picture([path, type]) {',
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
