"""The flow of a training job, wing by wing.

A wing imports from earlier wings only, and its own words list its files in their order.

    request      What is asked for, checked before anything heavy is loaded
    storage      Places for files, on a disk or far away
    cluster      Ray: started or joined, and given jobs
    sources      A data set, wherever it is and whatever it is made of, as rows
    corpus       From rows to a corpus on storage, in pieces that can be read in any order
    steps        From a corpus to the micro-batches of every optimizer step
    checkpoints  Where training stands, on storage
    translation  A model at work, by torch or by a faster engine
    scoring      How good translations are, and whether that is enough
    tracking     What is told to MLflow while a job runs, each of it once
    runs         A run as people see it
    training     What every rank does
    workers      Ray Train: the workers placed, fed, watched and started again
    registry     A model as a version of MLflow's registry
    promotion    Who becomes champion, and the way back
    models       Finished models: where they come from, what they can do, other forms of them
    bulk         A data set to a data set, by many translators at once
    job          The whole way as one job that can be started again
    serving      Translations over HTTP
    doctor       What is wrong with a cluster, its storage and its tracking server
"""
