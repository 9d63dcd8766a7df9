// The way of the page's work to the server: a few pieces at a time, in order. What a full server refuses is asked again
// after the wait that it names, longer every time, for up to two minutes. It keeps its place in the lane meanwhile, and
// the lane narrows to one, so that a small server is not overrun by its own page. Pure: no page, no network.

const kPatience = 120; // seconds from the first refusal on
const kLongestWait = 15; // seconds, unless the server names more

export class Lane {
  #most;
  #width;
  #inside = 0;
  #outside = [];
  #pause;
  #now;

  // `pause(seconds, signal)` and `now()` in seconds: a test has its own.
  constructor(most, { pause = sleep, now = () => performance.now() / 1000 } = {}) {
    this.#most = most;
    this.#width = most;
    this.#pause = pause;
    this.#now = now;
  }

  // What `work()` comes to, be it asked once or several times. `onWait(seconds)`: the server is full, and will be asked
  // again then; 0: it is being asked again. Rejects with the signal's reason when that fires.
  async pass(work, signal, onWait = () => {}) {
    await this.#enter(signal);
    try {
      let end = Infinity;
      for (let refusals = 0; ; ++refusals) {
        try {
          const result = await work();
          this.#width = Math.min(this.#most, this.#width + 1);
          return result;
        } catch (failure) {
          if (!failure.repeatable || signal.aborted) throw failure;
          this.#width = 1;
          if (refusals === 0) end = this.#now() + kPatience;
          const seconds = Math.max(failure.retryAfter, Math.min(kLongestWait, 2 ** refusals));
          if (this.#now() + seconds > end) throw failure;
          onWait(seconds);
          await this.#pause(seconds, signal);
          onWait(0);
          signal.throwIfAborted();
        }
      }
    } finally {
      this.#inside -= 1;
      this.#admit();
    }
  }

  async #enter(signal) {
    signal.throwIfAborted();
    await new Promise((resolve, reject) => {
      const leave = () => {
        this.#outside = this.#outside.filter((one) => one !== enter);
        reject(signal.reason);
      };
      const enter = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#outside.push(enter);
      this.#admit();
    });
  }

  #admit() {
    while (this.#inside < this.#width && this.#outside.length > 0) {
      this.#inside += 1;
      this.#outside.shift()();
    }
  }
}

// Ends early, without an error, when the signal fires.
function sleep(seconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    signal.addEventListener('abort', end, { once: true });
  });
}
