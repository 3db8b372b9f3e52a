"""Metrics into runs, each of them once."""

from mlflow.entities import Metric

from heliograph.pipeline.tracking.server import Client, is_away, open_client
from heliograph.pipeline.tracking.spool import Measurement, Segment


def deliver_to(uri: str) -> "Delivery":
    """A delivery to the tracking server or store of that URI, which is not asked yet."""
    return Delivery(open_client(uri))


class Delivery:
    """Puts measurements into runs, those that a run does not hold yet.

    A run's measurements come in order, so the newest step of each metric, which the server is
    asked for, says what it holds. After an attempt that failed it is asked again: whether it took
    effect is not known.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._held: dict[str, dict[str, int]] = {}

    @staticmethod
    def may_pass(error: Exception) -> bool:
        """Whether the same segment may be taken later, so that it is worth waiting for."""
        return is_away(error)

    def send(self, segment: Segment) -> list[Measurement]:
        """Returns those that were new to the run.

        Raises:
            Exception: whatever MLflow's transport raises; the segment has to be sent again.
        """
        run_id = segment.run_id
        held = self._held.pop(run_id, None)
        if held is None:
            run = self._client.get_run(run_id)
            # The public mapping holds values without their steps.
            held = {metric.key: metric.step for metric in run.data._metric_objs}
        fresh = []
        for measurement in segment.measurements:
            if measurement.step > held.get(measurement.key, -1):
                held[measurement.key] = measurement.step
                fresh.append(measurement)
        self._client.log_batch(run_id, metrics=[Metric(*each) for each in fresh])
        self._held[run_id] = held
        return fresh
