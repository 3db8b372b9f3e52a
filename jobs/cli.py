"""The `heliograph` command: its verbs, one file each."""

from heliograph.jobs.command import application
from heliograph.jobs.demo import demo
from heliograph.jobs.doctor import doctor
from heliograph.jobs.evaluate import evaluate
from heliograph.jobs.export import export
from heliograph.jobs.history import history
from heliograph.jobs.lineage import lineage
from heliograph.jobs.logs import logs
from heliograph.jobs.notify import notify
from heliograph.jobs.pin import pin
from heliograph.jobs.prepare import prepare
from heliograph.jobs.promote import promote
from heliograph.jobs.rollback import rollback
from heliograph.jobs.serve import serve
from heliograph.jobs.status import status
from heliograph.jobs.stop import stop
from heliograph.jobs.storage import storage
from heliograph.jobs.submit import submit
from heliograph.jobs.sync import sync
from heliograph.jobs.train import train
from heliograph.jobs.translate import translate


def main() -> None:
    app = application(
        demo, prepare, train, evaluate, export, pin, promote, rollback, history, lineage, notify,
        translate, serve, sync, storage, doctor, submit, status, logs, stop,
    )  # fmt: skip
    app(prog_name="heliograph")


if __name__ == "__main__":
    main()
