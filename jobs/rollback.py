"""`heliograph rollback NAME`: moves `champion` back to the version before."""

from dataclasses import asdict

from jobs.command import DONE, GATE_SAID_NO, Answer, command, run_alone
from jobs.promote import Name
from pipeline.model_uri import check_model


@command
def rollback(name: Name) -> Answer:
    """Make the version that was champion before the champion again.

    Exit code 3 when there was none.
    """
    check_model(f"models:/{name}@champion")  # at once: what follows loads torch and MLflow
    from pipeline import registry

    decision = registry.rollback(name)
    return Answer(
        decision.reason, asdict(decision), exit_code=DONE if decision.promoted else GATE_SAID_NO
    )


if __name__ == "__main__":
    run_alone(rollback)
