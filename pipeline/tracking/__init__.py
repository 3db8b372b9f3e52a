"""What is told to MLflow while a job runs, each of it once.

In: metrics and events, from any process.
Out: the same in a run of the tracking server; on disk, while that is away.

    server        reaching MLflow, and waiting a while when it is away
    reach         whether all nodes of a cluster reach it
    spool         metrics on disk while the server is away
    delivery      metrics into runs, each of them once
    metric_log    metrics by step: never waited for, never lost, never twice
    node_monitor  what a node's CPU, memory, disk, network and GPU do, as metrics
    events        what befell a run: restarts, failures, interruptions
    event_log     brings the events into the run
    sync          delivers what a job kept on disk while the server was away
"""
