"""`heliograph logs JOB`: what a job on a Ray cluster says."""

import sys
from typing import Annotated

import typer

from heliograph.jobs.command import Answer, AsJson, command, run_alone
from heliograph.jobs.submit import Address, follow, note, use_ray_token

Job = Annotated[str, typer.Argument(metavar="JOB", help="As `heliograph status` lists it.")]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on to its end, and leave with its exit code.")
]


@command
def logs(
    job: Job, follow_it: Follow = False, address: Address = None, as_json: AsJson = False
) -> Answer:
    """Show the log of a job on a Ray cluster. An interrupt leaves the job running."""
    use_ray_token()
    from heliograph.pipeline.cluster import job_server

    server = job_server.connect(address, note)
    details = job_server.details_of(server, job)
    log = job_server.Log(sys.stderr if as_json else sys.stdout)
    if follow_it:
        return follow(server, job, log, may_stop=False)
    log.show(server.get_job_logs(job))
    return Answer("", {"job": job, "status": details.status.value, "result": log.result()})


if __name__ == "__main__":
    run_alone(logs)
