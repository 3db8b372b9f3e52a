"""The `heliograph` command: its verbs, one file each."""

from jobs.command import application
from jobs.demo import demo
from jobs.doctor import doctor
from jobs.evaluate import evaluate
from jobs.export import export
from jobs.history import history
from jobs.lineage import lineage
from jobs.logs import logs
from jobs.notify import notify
from jobs.pin import pin
from jobs.prepare import prepare
from jobs.promote import promote
from jobs.rollback import rollback
from jobs.serve import serve
from jobs.status import status
from jobs.stop import stop
from jobs.storage import storage
from jobs.submit import submit
from jobs.sync import sync
from jobs.train import train
from jobs.translate import translate


def main() -> None:
    app = application(
        demo, prepare, train, evaluate, export, pin, promote, rollback, history, lineage, notify,
        translate, serve, sync, storage, doctor, submit, status, logs, stop,
    )  # fmt: skip
    app(prog_name="heliograph")


if __name__ == "__main__":
    main()
