"""What Ray's nodes export, kept as Prometheus would keep it."""

import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.waiting import DEADLINE

SECONDS = 2.0
"""Between two looks: at 0.3 of them Ray's agent took 25 s of CPU in one small job."""


class Scraper(threading.Thread):
    """Keeps what the nodes' endpoints of Ray export, as Prometheus would; of one job alone."""

    def __init__(self, job: str) -> None:
        super().__init__(daemon=True)
        self.label = f'job_name="{job}"'
        self.series: dict[str, float] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SECONDS):
            self._look()
        self._look()  # a job may be shorter than the time between two

    def _look(self) -> None:
        import ray

        for node in ray.nodes():
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            try:
                with urllib.request.urlopen(url, timeout=DEADLINE) as response:
                    self._keep(response.read().decode())
            except OSError:  # Ray's agent starts after Ray
                continue

    def _keep(self, text: str) -> None:
        for line in text.splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                if 'job_name="' not in series or self.label in series:
                    self.series[series] = float(value)

    def names(self) -> set[str]:
        return {series.partition("{")[0] for series in self.series}

    def labels(self, name: str, label: str) -> set[str]:
        """All values of a label of a metric."""
        found = (re.search(rf'[{{,]{label}="([^"]*)"', each) for each in self.of(name))
        return {match[1] for match in found if match is not None}

    def of(self, name: str) -> dict[str, float]:
        return {each: value for each, value in self.series.items() if each.startswith(f"{name}{{")}


@contextmanager
def scraping(job: str) -> Iterator[Scraper]:
    scraper = Scraper(job)
    scraper.start()
    try:
        yield scraper
    finally:
        scraper.ended.set()
        scraper.join(DEADLINE)
