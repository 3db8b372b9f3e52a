"""`heliograph history NAME`: every decision about who is champion."""

from dataclasses import asdict
from datetime import datetime

from heliograph.jobs.command import Answer, command, run_alone
from heliograph.jobs.promote import Name
from heliograph.pipeline.request.model_uri import check_name


@command
def history(name: Name) -> Answer:
    """Show every decision about the champion of a registered model, oldest first."""
    check_name(name)  # at once: what follows loads torch and MLflow
    from heliograph.pipeline.promotion import promote as promotion

    records = promotion.history(name)
    lines = []
    for record in records:
        when = datetime.fromtimestamp(record.time).astimezone().isoformat(" ", "seconds")
        answer = "yes" if record.promoted else "no"
        lines.append(f"{record.number:4d}  {when}  {record.kind:8}  {answer:3}  {record.author}")
        lines.append(f"      {record.reason}")
        if record.why is not None:
            lines.append(f"      why: {record.why}")
    return Answer(
        "\n".join(lines) or f"nothing was decided about {name!r} yet",
        {"decisions": [asdict(record) for record in records]},
    )


if __name__ == "__main__":
    run_alone(history)
