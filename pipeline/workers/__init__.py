"""Ray Train: the workers placed, fed, watched and started again.

In: a `TrainingPlan` and a `Placement`.
Out: the `TrainingState` at the end of the plan.

    node_watch    a monitor on every node, also on those that join later
    feed          gives the workers their share of the steps that remain
    reporter      says what befalls the workers
    whole_starts  workers that have started, or leave nothing behind
    trainer       Ray Train set up for a plan
    train         places the workers, and starts them again
"""
