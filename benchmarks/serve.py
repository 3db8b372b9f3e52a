"""The server under load: the rate it holds, what it refuses, what a promotion costs.

    python benchmarks/serve.py models:/multi30k@champion --sentences validation.en --to 2

Needs wrk and, with --to, a registry that may be written to. It starts a server on a free port of
this machine; every request is one sentence, another one each time:

1. As fast as it goes, with a few connections that always wait for an answer: the rate it holds.
2. Open loop: requests at seven tenths of that rate, whether answers have come or not.
3. Likewise, and in the middle of it the champion moves to another version.
4. Open loop at ten times that rate: what is too much is to be refused with 429, and nothing fails.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __package__ in (None, ""):  # Run as a file: the repository's root is not on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

SCRIPT = """
local sentences, next, thread = {}, 0, 0
function setup(t) thread = thread + 1; t:set("first", thread * 7919) end
function init() next = first
  for line in io.lines(os.getenv("SENTENCES")) do sentences[#sentences + 1] = line end end
function request() next = next + 1
  return wrk.format("POST", "/translate", {["Content-Type"] = "application/json"},
                    sentences[next % #sentences + 1]) end
function done(summary, latency)
  io.write(string.format("RESULT %d %d %d %d %.3f %.3f\\n", summary.requests,
    summary.errors.status, summary.errors.connect + summary.errors.read + summary.errors.timeout,
    summary.duration, latency:percentile(50) / 1000, latency:percentile(99) / 1000)) end
"""


@dataclass
class Load:
    """What came of open-loop requests: seconds of each answer, by status."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)

    def line(self, name: str) -> str:
        found = sorted(self.seconds) or [float("nan")]
        p50, p99 = (1000 * found[int(len(found) * share)] for share in (0.5, 0.99))
        told = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"{name}: {told}; of those answered p50 {p50:.0f} ms, p99 {p99:.0f} ms; versions "
            f"{dict(self.versions)}"
        )


class Server:
    """`heliograph serve` in a process of its own."""

    def __init__(self, model: str, options: Sequence[str], folder: Path) -> None:
        self.log = folder / "server.log"
        words = [
            sys.executable,
            "-m",
            "heliograph.jobs.serve",
            model,
            "--port",
            "0",
            "--watch",
            "0.5",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*words, *options], stdout=log, stderr=log)
        while not (found := re.search(r"on http://127\.0\.0\.1:(\d+)", self.said())):
            if self.process.poll() is not None:
                raise SystemExit(self.said())
            time.sleep(0.2)
        self.port = int(found[1])

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


def closed_loop(port: int, sentences: Path, connections: int, seconds: int) -> float:
    """wrk as fast as it goes; translations a second."""
    script = sentences.with_name("load.lua")
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [
            "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s",
            str(script), f"http://127.0.0.1:{port}",
        ],
        env=os.environ | {"SENTENCES": str(sentences)},
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=True,
    )  # fmt: skip
    found = re.search(r"RESULT (.*)", done.stdout)
    assert found, done.stdout + done.stderr
    requests, wrong, broken, microseconds, p50, p99 = map(float, found[1].split())
    rate = (requests - wrong) / (microseconds / 1e6)
    print(
        f"wrk, {connections} connections, {seconds} s: {rate:.1f} sentences/s, p50 {p50:.0f} ms, "
        f"p99 {p99:.0f} ms, {wrong:.0f} other than 200, {broken:.0f} broken",
        flush=True,
    )
    return rate


async def open_loop(
    port: int, bodies: Sequence[bytes], rate: float, seconds: float, version: int | None = None
) -> Load:
    """Requests at a rate, each on a connection of its own, whatever has become of the others; at
    most a minute longer, until that version has answered."""
    load, start = Load(), time.perf_counter()
    tasks: list[asyncio.Task[None]] = []
    while (number := len(tasks)) < rate * seconds or (
        version and load.versions[version] < rate and number < rate * (seconds + 60)
    ):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = bodies[number % len(bodies)]
        tasks.append(asyncio.create_task(one_request(port, body, load, due)))
    await asyncio.gather(*tasks)
    return load


async def one_request(port: int, body: bytes, load: Load, due: float) -> None:
    """The time counts from when the request was due, also if this process was late."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /translate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        said = await asyncio.wait_for(reader.read(), 60)
        writer.close()
    except (OSError, TimeoutError) as error:
        load.statuses[type(error).__name__] += 1
        return
    status = said[9:12].decode() or "cut off"
    load.statuses[status] += 1
    if status == "200":
        load.seconds.append(time.perf_counter() - due)
        load.versions[json.loads(said.partition(b"\r\n\r\n")[2])["model"]["version"]] += 1


async def with_promotion(
    port: int, bodies: Sequence[bytes], rate: float, seconds: float, model: str, version: int
) -> Load:
    """`open_loop`, and after a quarter of the time the alias moves."""
    load = asyncio.create_task(open_loop(port, bodies, rate, seconds, version))
    await asyncio.sleep(seconds / 4)
    await asyncio.to_thread(move, model, version)
    return await load


def move(model: str, version: int) -> None:
    from heliograph.pipeline.registry.versions import open_registry
    from heliograph.pipeline.request.model_uri import RegisteredModel, parse_model

    wanted = parse_model(model)
    assert isinstance(wanted, RegisteredModel)
    open_registry().set_registered_model_alias(wanted.name, wanted.alias, str(version))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="models:/NAME@champion")
    parser.add_argument("--sentences", required=True, help="a text file, a sentence a line")
    parser.add_argument("--to", type=int, help="the version to promote in the middle")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--connections", type=int, default=16)
    known, options = parser.parse_known_args()  # the others are the server's
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        lines = Path(known.sentences).read_text(encoding="utf-8").splitlines()
        bodies = [json.dumps({"text": line}).encode() for line in lines if line.strip()]
        if not bodies:
            raise SystemExit(f"{known.sentences} holds no sentence")
        sentences = Path(temporary) / "bodies"
        sentences.write_bytes(b"\n".join(bodies))
        server = Server(known.model, options, Path(temporary))
        try:
            closed_loop(server.port, sentences, known.connections, 4)  # to warm up
            rate = closed_loop(server.port, sentences, known.connections, known.seconds)
            held = 0.7 * rate
            load = asyncio.run(open_loop(server.port, bodies, held, known.seconds))
            print(load.line(f"open loop, {held:.1f} a second"), flush=True)
            if known.to:
                load = asyncio.run(
                    with_promotion(server.port, bodies, held, known.seconds, known.model, known.to)
                )
                print(load.line("  with a promotion in it"), flush=True)
            load = asyncio.run(open_loop(server.port, bodies, 10 * held, known.seconds))
            print(load.line(f"open loop, {10 * held:.0f} a second"), flush=True)
        finally:
            code = server.end()
        print(f"the server ended with {code} and said:\n{server.said()}")


if __name__ == "__main__":
    main()
