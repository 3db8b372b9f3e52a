"""`heliograph rollback NAME`: moves `champion` back to the version before."""

from dataclasses import asdict

from jobs.command import Answer, command, run_alone
from jobs.promote import Name
from pipeline.model_uri import check_name


@command
def rollback(name: Name) -> Answer:
    """Make the version that was champion before the champion again."""
    check_name(name)  # at once: what follows loads torch and MLflow
    from pipeline import registry

    decision = registry.rollback(name)
    return Answer(decision.reason, asdict(decision))


if __name__ == "__main__":
    run_alone(rollback)
