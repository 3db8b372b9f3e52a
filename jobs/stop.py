"""`heliograph stop JOB`: ends a job on a Ray cluster."""

from heliograph.jobs.command import Answer, command, run_alone
from heliograph.jobs.logs import Job
from heliograph.jobs.submit import Address, leave, note, use_ray_token


@command
def stop(job: Job, address: Address = None) -> Answer:
    """End a job on a Ray cluster, and wait until it has. Training takes a checkpoint first, and the
    same `submit` goes on from there."""
    use_ray_token()
    from heliograph.pipeline.cluster import job_server

    server = job_server.connect(address, note)
    before = job_server.details_of(server, job)
    ended = before.status.is_terminal()
    try:
        details = before if ended else job_server.stop(server, job)
    except KeyboardInterrupt:
        return leave(server, job, f"job {job} was being stopped, and may run on")
    text = f"job {job} {'had ended before' if ended else 'has ended'}: {details.status.value}"
    return Answer(text, {"job": job, "status": details.status.value})


if __name__ == "__main__":
    run_alone(stop)
