"""Where training stands, on storage.

In: a model, an optimizer and a `TrainingState`.
Out: checkpoints that are whole or absent, and the newest sound one of them.

    training_state    where training stands, besides weights and moments
    model_folder      a model on disk: sizes, weights and tokenizer
    checkpoint_store  a job's checkpoints; a damaged one falls back to the one before
    checkpoint        what a checkpoint holds
    background        checkpoints written while training goes on
"""
