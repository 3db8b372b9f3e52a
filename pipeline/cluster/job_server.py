"""A Ray cluster's job server: jobs are given to it, followed, stopped."""

import asyncio
import json
import os
import re
import secrets
import shlex
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TextIO

import aiohttp
import requests
from ray.exceptions import AuthenticationError, RpcError
from ray.job_submission import JobDetails, JobSubmissionClient

from heliograph.pipeline.cluster.parcel import Parcel
from heliograph.pipeline.request.errors import JobStopped, RequestError, one_line

SECONDS_TO_ANSWER = 20.0
"""After which a connection is dead. Ray's own client waits for ever."""
SECONDS_TO_START = 60.0
"""For a cluster that answers already, but does not take jobs yet."""
SECONDS_AWAY = 600.0
"""For which a server that does not answer is asked again."""
PAUSE = 1.0
"""Seconds until it is asked again."""
GATEWAY_ERRORS = (502, 503, 504)
"""What a proxy answers when nobody is behind it."""
LOST = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class JobServer(JobSubmissionClient):  # type: ignore[misc]  # ray has no types here
    """Ray's client, but for connections that break off or died unnoticed: it asks again.

    Anything may be asked twice: a package is named by its content, and a job has a name, under
    which there is no second one.

    Args:
        address: as a user gave it.
        say: told, once each time, that the server does not answer.

    Raises:
        ConnectionError: nobody answers at the address; only later is waited.
    """

    def __init__(self, address: str | None, say: Callable[[str], None]) -> None:
        self.say, self._given, self._connected = say, address, False
        super().__init__(address)
        self._connected = True

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        def ask() -> Any:
            return ask_once(method, endpoint, timeout=SECONDS_TO_ANSWER, **options)

        ask_once = super()._do_request
        return self._until_answered(ask, method, endpoint, options.get("json_data"))

    def _until_answered(
        self, ask: Callable[[], Any], method: str, endpoint: str, sent: Any = None
    ) -> Any:
        job = _job_of(endpoint, sent)
        deadline, told = time.monotonic() + SECONDS_AWAY, False
        while True:
            try:
                answer = ask()
                if not _is_no_answer(method, endpoint, answer.status_code) or not self._connected:
                    return answer
                reason = f"status {answer.status_code}: {' '.join(answer.text.split())[:140]}"
            except LOST as error:
                if not self._connected:
                    raise
                reason = one_line(error)
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"the job server has not answered for {SECONDS_AWAY / 60:.0f} minutes "
                    f"({reason})" + (f"; job {job} may run: {self.ways_on(job)}" if job else "")
                )
            if not told:
                about = f" about job {job}" if job else ""
                self.say(f"the job server does not answer{about} ({reason}); trying again")
            told = True
            time.sleep(PAUSE)

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """The log from its beginning, piece by piece, until it or the connection ends."""
        session = aiohttp.ClientSession(cookies=self._cookies, headers=self._headers)
        url = f"{self._address}/api/jobs/{job_id}/logs/tail"
        async with (
            session,
            session.ws_connect(
                url, ssl=self._ssl_context or True, heartbeat=SECONDS_TO_ANSWER, max_msg_size=0
            ) as socket,
        ):
            async for message in socket:
                if message.type != aiohttp.WSMsgType.TEXT:
                    return
                yield message.data

    def takes_jobs_from_anyone(self) -> bool:
        """Whether the cluster asks for no token."""
        where, endpoint = self._address, "/api/version"

        def ask() -> Any:
            return requests.get(f"{where}{endpoint}", timeout=SECONDS_TO_ANSWER)

        answer = self._until_answered(ask, "GET", endpoint)
        return bool(answer.status_code == requests.codes.ok)

    def ways_on(self, job: str) -> str:
        """How to follow a job and how to end it, as it can be typed here."""
        follow, end = self.command("logs", job, "--follow"), self.command("stop", job)
        return f"{follow} follows it, {end} ends it"

    def command(self, verb: str, job: str, *options: str) -> str:
        """A command about a job, with the address if one was given for this one, too."""
        where = ["--address", self._given] if self._given else []
        return f"`{shlex.join(['heliograph', verb, job, *options, *where])}`"


def _job_of(endpoint: str, sent: Any) -> str | None:
    """The name of the job that a request is about."""
    if named := re.match(r"/api/jobs/([^/]+)", endpoint):
        return named[1]
    return (sent or {}).get("submission_id")


def _is_no_answer(method: str, endpoint: str, status: int) -> bool:
    """A proxy's word that nobody is behind it; or Ray's that it cannot say what it always knows,
    because its own store is away. A log it may have lost for good."""
    if method == "GET" and endpoint.startswith("/api/jobs/") and not endpoint.endswith("/logs"):
        return status >= 500
    return status in GATEWAY_ERRORS


def connect(address: str | None, say: Callable[[str], None]) -> JobServer:
    """The job server at the address, or at the one that the environment names.

    Args:
        say: told when the server does not answer later.

    Raises:
        RequestError: nothing answers there, or it wants another token.
    """
    if address:
        # Ray lets these variables win over its argument; what was just typed should win over both.
        os.environ["RAY_API_SERVER_ADDRESS"] = address
    where = address or "RAY_API_SERVER_ADDRESS, RAY_ADDRESS or on this machine"
    try:
        return JobServer(address, say)
    except (OSError, RpcError) as error:  # the latter where a cluster was that is gone
        raise RequestError(
            f"no Ray job server answers at {where}; give --address http://HEAD:8265"
        ) from error
    except AuthenticationError as error:
        raise RequestError(
            f"the cluster at {where} wants its own token ({one_line(error)}); put what "
            "`ray get-auth-token` prints on its head into RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from error
    except RuntimeError as error:
        raise RequestError(f"no Ray job server answers at {where}: {one_line(error)}") from error


def submit(
    server: JobServer, stem: str, entrypoint: str, parcel: Parcel, *, alone: bool
) -> tuple[str, bool]:
    """Give the server a job named STEM-1, or STEM-2 where there was one already, and so on.

    Args:
        alone: no two jobs of this stem may run at once.

    Returns:
        The job's name, and whether it is new; False: it is the same one, which runs already.

    Raises:
        RequestError: another command, or other code, runs under this stem.
    """
    deadline = time.monotonic() + SECONDS_TO_START
    ours = secrets.token_hex(8)
    while True:
        earlier = {
            int(found[1]): job
            for job in server.list_jobs()
            if (found := re.fullmatch(re.escape(stem) + r"-(\d+)", job.submission_id or ""))
        }
        running = [job for job in earlier.values() if not job.status.is_terminal()]
        if alone and running:
            return _the_same(server, running[0], entrypoint, parcel), False
        name = f"{stem}-{max(earlier, default=0) + 1}"
        try:
            if _give(server, name, entrypoint, parcel, ours):
                return name, True
        except RuntimeError as error:
            if "try again later" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)  # the cluster itself has just been started
        except KeyboardInterrupt:
            server.say(
                f"job {name} was being sent and may have been taken: "
                f"{server.command('status', name)} shows whether; {server.ways_on(name)}"
            )
            raise


def _give(server: JobServer, name: str, entrypoint: str, parcel: Parcel, ours: str) -> bool:
    """Whether the server has this job of ours under the name now; or else someone was faster."""
    try:
        server.submit_job(
            submission_id=name,
            entrypoint=entrypoint,
            runtime_env=parcel.runtime_env,
            metadata={"code": parcel.code, "submission": ours},
        )
    except RuntimeError as error:
        if "already exists" not in str(error):
            raise
        # It may be ours: where the first answer was lost it was asked for twice.
        return (details_of(server, name).metadata or {}).get("submission") == ours
    return True


def _the_same(server: JobServer, running: JobDetails, entrypoint: str, parcel: Parcel) -> str:
    name = str(running.submission_id)
    if running.entrypoint == entrypoint and (running.metadata or {}).get("code") == parcel.code:
        return name
    differs = "code" if running.entrypoint == entrypoint else f"command ({running.entrypoint})"
    raise RequestError(
        f"job {name} runs already, by another {differs}, and two would spoil each other's work; "
        f"{server.ways_on(name)}"
    )


def details_of(server: JobServer, job: str) -> JobDetails:
    """What the job API says of a job; raises RequestError where it knows of none."""
    try:
        return server.get_job_info(job)
    except RuntimeError as error:
        if "status code 404" not in str(error):
            raise
        jobs = sorted(server.list_jobs(), key=lambda each: -(each.start_time or 0))
        known = [str(each.submission_id) for each in jobs if each.submission_id]
        there = ", ".join(known[:10]) or "none"
        raise RequestError(f"job {job!r} is not on this cluster; there: {there}") from error


class Log:
    """What was shown of a job's log so far; its last line holds a --json result."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tail = ""
        self.shown = 0
        """Characters."""

    def show(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
        self._tail = (self._tail + text)[-1_000_000:]
        self.shown += len(text)

    def result(self) -> Any:
        """The JSON object in the last line, or None."""
        lines = self._tail.strip().splitlines()
        try:
            value = json.loads(lines[-1]) if lines else None
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


def follow(server: JobServer, job: str, log: Log, pause: float = PAUSE) -> JobDetails:
    """Show what is new of a job's log until the job has ended; returns what the job API says then.

    The stream of the log can break off while the job runs (ray#57002), and end before the last
    lines: it is taken up where it stopped, and the state comes from the job API alone.

    Raises:
        JobStopped: the cluster does not know the job any more.
        ConnectionError: the server has not answered for ten minutes.
    """
    while True:
        asyncio.run(_stream(server, job, log))
        try:
            details = details_of(server, job)
        except RequestError as error:
            raise JobStopped(f"{error}: the cluster was started anew") from error
        if details.status.is_terminal():
            try:
                log.show(server.get_job_logs(job)[log.shown :])
            except RuntimeError as error:  # it went with its node; how the job ended is known
                server.say(f"the rest of the log of job {job} is lost ({one_line(error)})")
            return details
        time.sleep(pause)


async def _stream(server: JobServer, job: str, log: Log) -> None:
    """Show what is new for as long as it streams, which is from the log's beginning each time."""
    end = 0
    try:
        async for text in server.tail_job_logs(job):
            end += len(text)
            if end > log.shown:
                log.show(text[len(text) - (end - log.shown) :])
    except (TimeoutError, RuntimeError, OSError, aiohttp.ClientError):
        pass  # the caller asks the job API whether the job has ended


def stop(server: JobServer, job: str, pause: float = 0.5) -> JobDetails:
    """Ask a job to stop, which it does with a checkpoint, and wait until it has."""
    server.stop_job(job)
    while not (details := details_of(server, job)).status.is_terminal():
        time.sleep(pause)
    return details
