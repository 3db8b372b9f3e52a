"""What every rank does.

In: a `TrainingPlan`, and this rank's share of the steps.
Out: a trained model, as checkpoints and metrics.

    plan       what the driver decides and every worker follows
    stopwatch  where a rank's time goes, by phase
    telemetry  what a rank does, as Ray's metrics
    step       one optimizer step, and what its loss means on any number of workers
    tally      what steps came to, read some time after they were taken
    ballot     what all ranks must decide together, asked without waiting
    validate   loss and BLEU on the validation set, shared out over the ranks
    averaging  the mean of the last checkpoints: of which, and whether it is done
    worker     what a rank does at each step
    loop       the training loop that every rank runs
"""
