// Reads a text/event-stream: turns chunks of bytes, cut anywhere, into the JSON of each event. Knows nothing of the
// page, so that it can be tested alone.

// An answer that never ends a line is no event stream.
const kLongestEvent = 32 << 20;

export class EventReader {
  #decoder = new TextDecoder();
  #rest = '';
  #data = [];
  #size = 0;
  done = false; // [DONE] was read

  // The events that these bytes complete. Throws SyntaxError for data that is no JSON.
  push(chunk) {
    const events = [];
    this.#rest += this.#decoder.decode(chunk, { stream: true });
    let begin = 0;
    for (;;) {
      const end = this.#lineEnd(begin);
      if (end < 0) break;
      this.#line(this.#rest.slice(begin, end), events);
      begin = end + (this.#rest.startsWith('\r\n', end) ? 2 : 1);
    }
    this.#rest = this.#rest.slice(begin);
    if (this.#rest.length + this.#size > kLongestEvent) throw new SyntaxError('an event of more than 32 MiB');
    return events;
  }

  // Where the line that starts at `begin` ends, -1 if that is not known yet: a final CR may be half of a CR LF.
  #lineEnd(begin) {
    for (let at = begin; at < this.#rest.length; ++at) {
      const c = this.#rest[at];
      if (c === '\n') return at;
      if (c === '\r') return at + 1 < this.#rest.length ? at : -1;
    }
    return -1;
  }

  #line(line, events) {
    if (line === '') {
      if (this.#data.length === 0) return;
      const text = this.#data.join('\n');
      this.#data = [];
      this.#size = 0;
      if (text === '[DONE]') this.done = true;
      else events.push(JSON.parse(text));
    } else if (line.startsWith('data:')) {
      const data = line.slice(line[5] === ' ' ? 6 : 5);
      this.#data.push(data);
      this.#size += data.length;
    }
    // Comments (keep-alive) and other fields say nothing to us.
  }
}
