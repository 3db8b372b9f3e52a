"""`heliograph status [JOB]`: the jobs of a Ray cluster."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heliograph.jobs.command import Answer, command, run_alone
from heliograph.jobs.submit import Address, exit_code, note, use_ray_token

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

OneJob = Annotated[
    str | None, typer.Argument(metavar="JOB", help="Only this one.", show_default=False)
]


@command
def status(job: OneJob = None, address: Address = None) -> Answer:
    """List the jobs that were submitted to a Ray cluster, the newest first, or show one."""
    use_ray_token()
    from heliograph.pipeline.cluster import job_server

    server = job_server.connect(address, note)
    if job is not None:
        described = describe(job_server.details_of(server, job))
        return Answer("\n".join(f"{key}: {described[key]}" for key in described), described)
    submitted = [each for each in server.list_jobs() if each.submission_id]
    submitted.sort(key=lambda each: -(each.start_time or 0))
    rows = [describe(each) for each in submitted]
    lines = [
        f"{row['started']}  {row['status']:9}  {row['job']}  {row['command']}".rstrip()
        for row in rows
    ]
    return Answer("\n".join(lines) or "no job was submitted to this cluster", {"jobs": rows})


def describe(details: "JobDetails") -> dict[str, Any]:
    """What people and scripts want to know of a job; not its variables."""
    return {
        "job": details.submission_id,
        "status": details.status.value,
        "exit_code": exit_code(details) if details.status.is_terminal() else None,
        "started": _time(details.start_time),
        "ended": _time(details.end_time),
        "command": (details.entrypoint or "").removeprefix("python -m heliograph.jobs."),
        "message": (details.message or "").splitlines()[0] if details.message else "",
    }


def _time(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(" ", "seconds")


if __name__ == "__main__":
    run_alone(status)
