"""From a corpus to the micro-batches of every optimizer step.

In: a `Mixture`, and the recipe's tokenizer and batches.
Out: a tokenizer, and one Ray Dataset of all steps, from which each rank takes its share.

    tokenizer  text ↔ token ids, trained from the corpus, cached by hash
    sampling   other tokens for the same text, as the seed draws them
    windows    the step list: which pairs make which optimizer step
    tokens     a corpus' token ids: encoded now, or read where they were prepared
    budget     whether pairs fit into micro-batches, and a step into a window
    prepare    from a recipe to what training reads
    portions   a window's steps as rows, dealt to the ranks
    batches    what a worker eats: checked steps of padded micro-batches
    pacing     how far the stream runs ahead of training
    stream     all windows of all epochs as one Ray Dataset
"""
