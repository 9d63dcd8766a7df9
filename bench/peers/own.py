"""Ours: `chiasm ask` for one picture and one question, `chiasm serve` for the next question."""
import sample


class Chiasm:
    def __init__(self, setup, precision=None, kernel=None):
        """`kernel`: the integer kernel to use instead of the fastest that the machine has (CHIASM_INTEGER_KERNEL)."""
        self.setup, self.precision = setup, precision
        self.name = f"chiasm {precision or 'exact'}" + (f" by {kernel}" if kernel else "")
        self.options = ["--precision", precision] if precision else []
        self.env = {**setup.env, "CHIASM_INTEGER_KERNEL": kernel} if kernel else setup.env

    def prepare(self):
        program = self.setup.programs / "chiasm"
        if not program.exists():
            raise sample.Skipped(f"{program} is not there: ./dev build chiasm")
        if self.precision:
            text, _ = sample.run_measured([program, "ask", "--help"])
            if "--precision" not in text:
                raise sample.Skipped("this build has no --precision")

    def tool(self):
        """One picture, one question, in a process of its own."""
        s = self.setup
        text, peak = sample.run_measured(
            [s.programs / "chiasm", "ask", "-m", s.checkpoint, "-i", s.picture, "--features", "none", "--device", "cpu", "--threads", s.threads,
             "--max-tokens", s.tokens, "--json", *self.options, "--", s.question], env=self.env)
        return {**sample.of_chiasm_ask(text), "peak_mib": peak}

    def server(self, port):
        s = self.setup
        return [s.programs / "chiasm", "serve", "-m", s.checkpoint, "--listen", f"127.0.0.1:{port}", "--features", "none", "--device", "cpu",
                "--threads", s.threads, "--log-level", "error", *self.options]
