"""The flow of a training job, in order. A stage imports from earlier stages only.

 1. errors      what a user can get wrong, said in words
 2. recipe      everything that defines a job: sections, defaults, checks
 3. grammar     the embedded corpus: a generator of English-German sentence pairs
 4. source      hub name or files → a Ray Dataset of {source, target}
 5. corpus      the cleaned pairs on storage, in pieces that can be read in any order
 6. tokenizer   text ↔ token ids, trained from the corpus, cached by hash
 7. batches     corpus → the step list → one stream of micro-batches per rank
 8. checkpoint  weights, optimizer and position in the data: whole or absent
 9. translate   sentences → sentences, with a model folder
10. evaluate    BLEU and chrF with their signatures
11. track       one MLflow run per job: metrics, curves, samples, attention maps
12. train       Ray Train, DDP: the training loop
13. registry    model versions, champion and challenger, the gate
14. job         the whole way, from a recipe to a registered model
"""
