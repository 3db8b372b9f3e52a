"""The `heliograph` command: its verbs, one file each."""

from jobs.command import application
from jobs.demo import demo
from jobs.evaluate import evaluate
from jobs.prepare import prepare
from jobs.promote import promote
from jobs.rollback import rollback
from jobs.submit import submit
from jobs.sync import sync
from jobs.train import train
from jobs.translate import translate


def main() -> None:
    app = application(demo, prepare, train, evaluate, promote, rollback, translate, sync, submit)
    app(prog_name="heliograph")


if __name__ == "__main__":
    main()
