"""A Ray cluster's job server: jobs are given to it, followed, stopped."""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TextIO

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from heliograph.pipeline.cluster.parcel import Parcel
from heliograph.pipeline.request.errors import JobStopped, RequestError, one_line

SECONDS_TO_ANSWER = 20.0
"""After which a connection is dead. Ray's own client waits for ever."""
SECONDS_TO_START = 60.0
"""For a cluster that answers already, but does not take jobs yet."""
SECONDS_AWAY = 600.0
"""For which a job is followed although its server does not answer."""


class JobServer(JobSubmissionClient):  # type: ignore[misc]  # ray has no types here
    """Ray's client, but for connections that died unnoticed: those are given up."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=SECONDS_TO_ANSWER, **options)

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
        answer = requests.get(f"{self._address}/api/version", timeout=SECONDS_TO_ANSWER)
        return answer.status_code == requests.codes.ok


def connect(address: str | None) -> JobServer:
    """The job server at the address, or at the one that the environment names.

    Raises:
        RequestError: nothing answers there, or it wants another token.
    """
    if address:
        # Ray lets these variables win over its argument; what was just typed should win over both.
        os.environ["RAY_API_SERVER_ADDRESS"] = address
    where = address or "RAY_API_SERVER_ADDRESS, RAY_ADDRESS or on this machine"
    try:
        return JobServer(address)
    except (ConnectionError, OSError) as error:
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
    while True:
        earlier = {
            int(found[1]): job
            for job in server.list_jobs()
            if (found := re.fullmatch(re.escape(stem) + r"-(\d+)", job.submission_id or ""))
        }
        running = [job for job in earlier.values() if not job.status.is_terminal()]
        if alone and running:
            return _the_same(running[0], entrypoint, parcel), False
        name = f"{stem}-{max(earlier, default=0) + 1}"
        try:
            server.submit_job(
                submission_id=name,
                entrypoint=entrypoint,
                runtime_env=parcel.runtime_env,
                metadata={"code": parcel.code},
            )
            return name, True
        except RuntimeError as error:
            if "already exists" in str(error):
                continue  # someone was faster: look again
            if "try again later" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1.0)  # the cluster itself has just been started


def _the_same(running: JobDetails, entrypoint: str, parcel: Parcel) -> str:
    name = str(running.submission_id)
    if running.entrypoint == entrypoint and (running.metadata or {}).get("code") == parcel.code:
        return name
    differs = "code" if running.entrypoint == entrypoint else f"command ({running.entrypoint})"
    raise RequestError(
        f"job {name} runs already, by another {differs}, and two would spoil each other's work; "
        f"`heliograph logs {name} --follow` follows it, `heliograph stop {name}` ends it"
    )


def details_of(server: JobServer, job: str) -> JobDetails:
    """What the job API says of a job; raises RequestError where it knows of none."""
    try:
        return server.get_job_info(job)
    except RuntimeError as error:
        if "status code 404" not in str(error):
            raise
        known = [str(each.submission_id) for each in server.list_jobs() if each.submission_id]
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


def follow(
    server: JobServer, job: str, log: Log, say: Callable[[str], None], pause: float = 1.0
) -> JobDetails:
    """Show what is new of a job's log until the job has ended; returns what the job API says then.

    The stream of the log can break off while the job runs (ray#57002), and end before the last
    lines: it is taken up where it stopped, and the state comes from the job API alone.

    Raises:
        JobStopped: the cluster does not know the job any more.
        ConnectionError: the server has not answered for ten minutes.
    """
    answered, told = time.monotonic(), False
    while True:
        asyncio.run(_stream(server, job, log))
        try:
            details = details_of(server, job)
            if details.status.is_terminal():
                log.show(server.get_job_logs(job)[log.shown :])
                return details
            answered, told = time.monotonic(), False
        except RequestError as error:
            raise JobStopped(f"{error}: the cluster was started anew") from error
        except (OSError, RuntimeError) as error:
            if not told:
                say(f"the job server does not answer ({one_line(error)}); trying again")
            told = True
            if time.monotonic() > answered + SECONDS_AWAY:
                raise ConnectionError(
                    f"the job server has not answered for {SECONDS_AWAY / 60:.0f} minutes, and job "
                    f"{job} may run on; `heliograph logs {job} --follow` follows it"
                ) from error
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
